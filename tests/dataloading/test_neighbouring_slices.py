"""Slices with their neighbours as channels, in training and in prediction."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_configuration
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_splits, write_volumes

import autoseg
from autoseg.dataloading.neighbouring_slices import SliceStack
from autoseg.dataloading.patch import PatchRegion, find_cleared
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.errors import ModelError
from autoseg.imaging.geometry import Box
from autoseg.inference.predictor import FunctionPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import Configuration, Plan
from autoseg.preprocessing.foreground import Foreground
from autoseg.runtime.arrays import NumpyDevice


def stack_by_hand(image: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns channels that hold, slice by slice, the neighbours of each slice; the outermost ones are repeated."""
    depth, channels = image.shape[1], []
    for channel in image:
        for offset in range(-neighbours, neighbours + 1):
            channels.append(np.stack([channel[min(max(z + offset, 0), depth - 1)] for z in range(depth)]))
    return np.stack(channels)


def case_of(shape: tuple[int, int, int], channels: int = 2) -> InMemoryCase:
    """A case of noise, with labels of noise."""
    random = np.random.default_rng(sum(shape))
    return InMemoryCase(
        image=random.normal(size=(channels, *shape)).astype(np.float32),
        label=random.integers(0, 3, shape).astype(np.int8),
        foreground=Foreground.of([]),
    )


@given(depth=st.integers(1, 6), neighbours=st.integers(1, 4), data=st.data())
def test_every_box_holds_the_neighbours_of_its_slices(depth, neighbours, data):
    """A part that is read equals that part of the whole stack, at the ends of the case too."""
    case = case_of((depth, 3, 4))
    first = data.draw(st.integers(0, depth - 1))
    end = data.draw(st.integers(first + 1, depth))
    box = Box(start=(first, 1, 0), stop=(end, 3, 3))
    image, label = SliceStack(case=case, neighbours=neighbours).read(box)
    np.testing.assert_array_equal(image, stack_by_hand(case.image, neighbours)[:, first:end, 1:3, :3])
    np.testing.assert_array_equal(label, case.label[first:end, 1:3, :3])


def two_channels(**changes) -> Configuration:
    """A 2D configuration of two channels that sees one slice on each side."""
    fields = small_configuration(dimensions=2).model_dump()
    fields["normalization"] = [{"scheme": "zscore", "only_nonzero": True}, {"scheme": "none"}]
    return Configuration.model_validate({**fields, "neighbouring_slices": 1, **changes})


def test_training_turns_all_slices_of_a_patch_alike():
    """Each channel of an augmented patch is what the same augmentation makes of that slice alone."""
    settings = {**two_channels().augmentation.model_dump(), "rotation_probability": 1.0, "deformation_probability": 1.0}
    configuration = two_channels(augmentation=settings)
    case = case_of((4, 20, 20))
    plain = PatchRegion(case=case, start=(3, 5, 6), patch_size=(8, 8), neighbours=1)
    region = plain.with_augmentation(configuration, [], np.random.default_rng(0))
    assert region.augmentation.affine is not None
    assert region.augmentation.displacements is not None
    image, label = region.read(configuration.augmentation)
    stacked = stack_by_hand(case.image, 1)
    assert len(image) == 6
    for number in range(6):
        alone = InMemoryCase(image=stacked[[number]], label=case.label, foreground=Foreground.of([]))
        expected, same_label = PatchRegion(
            case=alone, start=(3, 5, 6), patch_size=(8, 8), augmentation=region.augmentation
        ).read(configuration.augmentation)
        torch.testing.assert_close(image[number], expected[0])
        assert torch.equal(label, same_label)


def test_intensities_of_neighbours_change_by_one_amount():
    """The slices of a channel share its factors, and are missing and cleared together."""
    changes = {"brightness_probability": 1.0, "missing_channels_probability": 1.0}
    configuration = two_channels(augmentation={**two_channels().augmentation.model_dump(), **changes})
    region = PatchRegion(case=case_of((4, 20, 20)), start=(0, 0, 0), patch_size=(8, 8), neighbours=1)
    drawn = region.with_augmentation(configuration, [], np.random.default_rng(1)).augmentation
    assert drawn.brightness is not None
    first, second = drawn.brightness[:3], drawn.brightness[3:]
    assert set(first) == {first[0]}
    assert set(second) == {second[0]}
    assert first[0] != second[0]
    assert drawn.missing in ((0, 1, 2), (3, 4, 5))
    assert find_cleared(configuration) == [0, 1, 2]


@pytest.mark.parametrize("neighbours", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_prediction_sees_what_training_reads(neighbours, depth):
    """A network that weighs its channels gives, voxel by voxel, the weighted sum of the stacked slices."""
    image = case_of((depth, 9, 7)).image
    stacked = stack_by_hand(image, neighbours)
    weights = np.arange(1, len(stacked) + 1, dtype=np.float32)
    predictor = FunctionPredictor(lambda patches: np.einsum("c,nc...->n...", weights, patches)[:, None])
    logits = predict_volume(
        image, predictor, patch_size=(4, 4), batch_size=3, device=NumpyDevice(), neighbours=neighbours
    )
    np.testing.assert_allclose(logits[0], np.einsum("c,czyx->zyx", weights, stacked), atol=1e-4)


def test_plans_take_neighbours_in_two_dimensions_only():
    """The number of input channels follows; weights of a network without neighbours match the middle slice."""
    configuration = two_channels()
    assert configuration.architecture.in_channels == 6
    assert (configuration.image_channels, configuration.previous_channels) == (2, 0)
    assert configuration.name_inputs(["T1", "T2"])[:3] == ("T1, slice -1", "T1", "T1, slice +1")
    fields = small_configuration(dimensions=3).model_dump()
    with pytest.raises(ValueError, match="neighbouring_slices must be 0 in 3D"):
        Configuration.model_validate({**fields, "neighbouring_slices": 1})
    with pytest.raises(ValueError, match="less than or equal to 8"):
        two_channels(neighbouring_slices=9)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A workspace whose plan.json was edited so that slices are learned with their neighbours, and trained."""
    root = tmp_path_factory.mktemp("neighbours")
    folders = write_volumes(root)
    plan_tiny(root, epochs=2)
    content = json.loads(folders.plan.read_text())
    content["configurations"]["2d"]["neighbouring_slices"] = 1
    folders.plan.write_text(json.dumps(content))
    write_splits(root, [(["case_1", "case_2"], ["case_3"])])
    autoseg.train(NUMBER, "2d", 0, workspace=root)
    return root


def test_models_segment_with_neighbours_wherever_they_go(workspace, tmp_path):
    """A bundle gives the same mask, validation nearly the same, and nnU-Net has no such network."""
    folders = folders_of(workspace)
    assert Plan.load(folders.plan).configurations["2d"].architecture.in_channels == 3
    model = autoseg.load_model(folders.model("2d").path)
    scan = folders.raw / "imagesTr" / "case_3_0000.nii.gz"
    mask = sitk.GetArrayFromImage(model.predict(scan))
    [validated] = folders.model("2d").validation(0).rglob("case_3.nii.gz")
    assert (mask == np.asarray(nibabel.load(validated).dataobj).T).mean() > 0.99
    autoseg.export_model(NUMBER, tmp_path / "model.zip", configuration="2d", workspace=workspace)
    bundled = autoseg.load_model(tmp_path / "model.zip")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(bundled.predict(scan)), mask)
    with pytest.raises(ModelError, match="sees neighbouring slices as channels"):
        autoseg.export_nnunet(NUMBER, tmp_path / "nnunet", configuration="2d", workspace=workspace)


def test_digests_tell_what_networks_see(workspace):
    """Models that see other slices, or other windows, predict otherwise, so their results are not continued."""
    segmenter = autoseg.load_model(folders_of(workspace).model("2d").path).segmenter
    configuration = segmenter.configuration
    windows = [Normalization.model_validate({"window_hu": window}) for window in ([0, 80], [0, 90])]
    changes = [
        {"neighbouring_slices": 0},
        {"neighbouring_slices": 2},
        *({"normalization": (window,)} for window in windows),
    ]
    others = [replace(segmenter, configuration=configuration.model_copy(update=change)).digest for change in changes]
    assert len({segmenter.digest, *others}) == 5
