"""Weights are taken over by name and shape, channels and structures by their own names, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SMALL_INFO, small_configuration

from autoseg.datasets.info import DatasetInfo
from autoseg.networks.architecture import Architecture
from autoseg.networks.default_unet import build_network
from autoseg.training.weight_transfer import (
    Report,
    describe_report,
    fit_channels,
    match_names,
    match_networks,
    share_taken,
    take_weights,
)

FIRST = "encoder.0.blocks.0.conv.weight"
HEAD, HEAD_BIAS = "heads.0.weight", "heads.0.bias"


def info(labels=("bright", "dark"), channels=("MR",), *, overlap=False):
    """Returns a dataset with these labels, which may overlap, and channels."""
    return DatasetInfo(
        channel_names=dict(zip(map(str, range(len(channels))), channels, strict=True)),
        labels={"background": 0} | {name: number for number, name in enumerate(labels, start=1)},
        masks=overlap,
        file_ending=".nii.gz",
    )


def network(of, seed=0, **changes):
    """Returns weights of the small network for a dataset; biases, which start at 0, are random too."""
    usual = small_configuration().architecture
    values = {"in_channels": of.channels, "out_channels": of.targets.outputs, "deep_supervision": True, **changes}
    random = torch.Generator().manual_seed(seed)
    weights = build_network(Architecture(**{**usual.model_dump(), **values}), random).state_dict()
    return {name: value + 0.1 * torch.randn(value.shape, generator=random) for name, value in weights.items()}


def take(new, old, **changes) -> Report:
    """Returns a new network with what it can take over from one of another dataset."""
    return take_weights(network(new, 1, **changes), network(old), match_networks(new, old))


def test_same_dataset_takes_everything():
    """The weights are equal bit for bit; fresh and old weights are not changed."""
    fresh, old = network(SMALL_INFO, 1), network(SMALL_INFO)
    before = {name: value.clone() for name, value in fresh.items()}
    report = take_weights(fresh, old, match_networks(SMALL_INFO, SMALL_INFO))
    assert set(report.fits.values()) == {"taken"}
    assert share_taken(report.fits, report.weights) == 1
    assert report.weights.keys() == old.keys()
    for name, value in report.weights.items():
        assert torch.equal(value, old[name])
        assert value.data_ptr() != old[name].data_ptr()
        assert torch.equal(fresh[name], before[name])


def test_structures_keep_their_rows():
    """The order differs, one structure is new and one is gone; the background keeps its row."""
    old, new = info(("liver", "spleen", "kidney")), info(("tumor", "kidney", "liver"))
    report, fresh, known = take(new, old), network(new, 1), network(old)
    assert {name for name, fit in report.fits.items() if fit == "fitted"} == {HEAD, HEAD_BIAS}
    for name in (HEAD, HEAD_BIAS):
        rows = report.weights[name]
        assert torch.equal(rows[1], fresh[name][1])
        for row, place in ((0, 0), (2, 3), (3, 1)):
            assert torch.equal(rows[row], known[name][place])
    assert "structures that start fresh: tumor" in describe_report(report, new, match_networks(new, old))


@pytest.mark.parametrize(("old_overlaps", "new_overlaps"), [(False, True), (True, False), (True, True)])
def test_overlapping_structures_have_no_background(old_overlaps, new_overlaps):
    """Rows are matched by name between exclusive and overlapping labels."""
    old, new = info(("liver", "spleen"), overlap=old_overlaps), info(("spleen", "liver"), overlap=new_overlaps)
    report, fresh, known = take(new, old), network(new, 1), network(old)
    first, there = int(not new_overlaps), int(not old_overlaps)
    rows = report.weights[HEAD]
    assert torch.equal(rows[first], known[HEAD][there + 1])
    assert torch.equal(rows[first + 1], known[HEAD][there])
    if not new_overlaps:
        assert torch.equal(rows[0], fresh[HEAD][0])


def test_heads_without_a_common_structure_are_fresh():
    """Nothing is taken from structures of other names."""
    old, new = info(("liver",), overlap=True), info(("spleen",), overlap=True)
    report = take(new, old)
    assert [name for name, fit in report.fits.items() if fit == "fresh"] == [HEAD, HEAD_BIAS]
    assert torch.equal(report.weights[HEAD], network(new, 1)[HEAD])


def test_every_head_is_taken_over():
    """Heads of deep supervision are taken over too; heads that the old network lacks are fresh."""
    stages = small_configuration().architecture.stages
    deep = {"stages": [*stages, stages[-1].model_copy(update={"features": 16})]}
    old, new = info(("liver", "spleen")), info(("spleen", "liver"))
    report = take_weights(network(new, 1, **deep), network(old, 0, **deep), match_networks(new, old))
    heads = [name for name in report.fits if name.startswith("heads.")]
    assert len(heads) == 4
    assert {report.fits[name] for name in heads} == {"fitted"}
    shallow = take(new, old, **deep)
    assert (shallow.fits["heads.0.weight"], shallow.fits["heads.1.weight"]) == ("fitted", "fresh")


def test_channels_keep_their_weights_and_new_ones_start_as_their_mean():
    """In a worked example, "T1" and "T2" become "T2", "FLAIR", "T1"."""
    kernel = torch.tensor([2.0, 4.0]).reshape(1, 2, 1, 1, 1)
    fitted = fit_channels(kernel, match_names(["T2", "FLAIR", "T1"], ["T1", "T2"]))
    assert fitted.flatten().tolist() == pytest.approx([8 / 3, 2, 4 / 3])


@given(st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=20)
def test_response_to_equal_channels_keeps_its_scale(old, new):
    """That holds for any numbers of channels, if no name is the same."""
    kernel = torch.randn(3, old, 3, 3, 3, generator=torch.Generator().manual_seed(old))
    torch.testing.assert_close(fit_channels(kernel, (None,) * new).sum(1), kernel.sum(1))


def test_channels_in_another_order_give_the_same_response():
    """Only the order of the weights changes."""
    kernel = torch.randn(3, 3, 3, 3, 3)
    assert torch.equal(fit_channels(kernel, (2, 0, 1)), kernel[:, [2, 0, 1]])


@pytest.mark.parametrize("residual", ["stage", "none", "block"])
def test_first_convolution_is_fitted_in_every_kind_of_network(residual):
    """No other weights are fitted to the channels."""
    stages = [stage.model_copy(update={"convolutions": 2}) for stage in small_configuration().architecture.stages]
    kind = {"residual": residual, "stages": stages}
    old, new = info(channels=("CT",)), info(channels=("PET", "CT"))
    fresh, known = network(new, 1, **kind), network(old, 0, **kind)
    report = take_weights(fresh, known, match_networks(new, old))
    [name] = [name for name, fit in report.fits.items() if fit != "taken"]
    assert name == ("stem.conv.weight" if residual == "block" else FIRST)
    torch.testing.assert_close(report.weights[name], known[name].repeat(1, 2, 1, 1, 1) / 2)
    lines = list(describe_report(report, new, match_networks(new, old)))
    assert "channels that start as the mean of the old ones: PET" in lines
    assert any(line.startswith("fitted: 1 tensor, ") for line in lines)


def test_equal_names_are_matched_in_their_order():
    """So two channels that are both called MR stay two."""
    assert match_names(["MR", "CT", "MR", "MR"], ["MR", "MR", "T1"]) == (0, None, 1, None)


def test_segmentation_channels_are_no_image_channels():
    """Those of a cascade are matched by structure, and not with an image channel of the same name."""
    old, new = info(("liver", "spleen"), ("liver",)), info(("spleen", "liver"), ("CT",))
    assert match_networks(new, old, previous=2, old_previous=2).channels == (None, 2, 1)
    assert match_networks(new, old, previous=2).channels == (None, None, None)


def test_other_shapes_and_missing_weights_are_fresh():
    """Values that are no tensors of numbers are fresh too."""
    old = network(SMALL_INFO)
    del old["encoder.1.blocks.0.conv.weight"]
    old["encoder.0.blocks.0.conv.bias"] = torch.zeros(7)
    old["encoder.0.blocks.0.norm.bias"] = "no tensor"
    old["encoder.0.blocks.0.norm.weight"] = torch.ones(4, dtype=torch.int64)
    old[HEAD] = old[HEAD][:, :1]
    report = take_weights(network(SMALL_INFO, 1), old, match_networks(SMALL_INFO, SMALL_INFO))
    assert {name for name, fit in report.fits.items() if fit == "fresh"} == {
        "encoder.1.blocks.0.conv.weight",
        "encoder.0.blocks.0.conv.bias",
        "encoder.0.blocks.0.norm.bias",
        "encoder.0.blocks.0.norm.weight",
        HEAD,
    }
