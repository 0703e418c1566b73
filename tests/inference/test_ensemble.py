"""Configurations that segment together."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import place
from scipy.special import expit, softmax
from small_models import SMALL_INFO, small_checkpoint, small_configuration

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError
from autoseg.imaging.label_files import load_result, save_result
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules, SmallestSize, apply_rules
from autoseg.imaging.targets import Targets
from autoseg.inference.ensemble import EnsemblePrediction, EnsembleSegmenter, make_ensemble
from autoseg.inference.prediction import Prediction
from autoseg.inference.predictor import Predictor
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.networks.architecture import Architecture
from autoseg.preprocessing.case import PreprocessRecord, preprocess_case
from autoseg.preprocessing.resampling import resample_image

CPU = torch.device("cpu")
CLASSES = Targets.of_labels({"a": 1, "b": 2, "c": 3})
REGIONS = Targets(
    structures={"whole": (1, 2, 3), "core": (2, 3), "rest": (3,)}, exclusive=False, region_class_order=(1, 2, 3)
)
MASKS = replace(REGIONS, region_class_order=())


def scan(shape=(9, 14, 12)):
    """Noise with an empty border, which is cropped away."""
    array = np.random.default_rng(0).normal(5, 1, (1, *shape)).astype(np.float32)
    array[:, :, :3] = 0
    array[..., -2:] = 0
    return place(array, spacing_mm=(2.0, 1.0, 1.0))


def record_of(image, spacing_mm, dimensions=3) -> PreprocessRecord:
    """How a configuration of another spacing prepares the image."""
    configuration = small_configuration(dimensions).model_copy(update={"spacing_mm": spacing_mm})
    return preprocess_case(image, None, axis_order=(0, 1, 2), configuration=configuration).record


def members(targets=CLASSES, shape=(9, 14, 12)) -> tuple[Prediction, ...]:
    """What a volume and a slice configuration might say: smooth noise on grids of their own."""
    image = scan(shape)
    random = torch.Generator().manual_seed(1)
    records = [record_of(image, (1.5, 1.3, 1.3)), record_of(image, (1.0, 1.0), dimensions=2)]
    return tuple(
        Prediction(
            logits=3 * torch.randn(targets.outputs, *record.shape, generator=random),
            record=record,
            targets=targets,
            rules=NO_RULES,
        )
        for record in records
    )


def mean_at_full_resolution(predictions) -> np.ndarray:
    """All maps of all outputs at once: the definition."""
    means = []
    for one in predictions:
        record, exclusive = one.record, one.targets.exclusive
        grown = resample_image(one.logits.numpy(), record.spacing_mm, record.box.shape, record.box_spacing_mm, order=1)
        full = np.zeros((len(grown), *record.geometry.shape))
        full[0] = float(exclusive)
        full[(slice(None), *record.box.slices)] = softmax(grown, axis=0) if exclusive else expit(grown)
        means.append(full)
    return np.mean(means, axis=0)


def test_the_likeliest_class_on_average_is_elected():
    """As if all maps of both were averaged at full resolution; outside the cropping box is background."""
    predictions = members()
    joint = EnsemblePrediction(members=predictions, rules=NO_RULES)
    mean = mean_at_full_resolution(predictions)
    segmented = joint.segmentation()
    assert segmented.array.dtype == np.uint8
    assert segmented.geometry == predictions[0].record.geometry
    np.testing.assert_array_equal(segmented.array, mean.argmax(axis=0))
    assert not segmented.array[:, :3].any()
    assert (segmented.array != predictions[0].segmentation().array).any()
    assert (segmented.array != predictions[1].segmentation().array).any()
    for number, one in zip([2, 0], joint.probabilities([2, 0]), strict=True):
        np.testing.assert_allclose(one.array, mean[number], atol=1e-5)


def test_regions_are_painted_in_order():
    """Where the mean of the sigmoids is above one half; a later region covers those before it."""
    predictions = members(REGIONS)
    expected = np.zeros(predictions[0].record.geometry.shape)
    for number, mean in zip(REGIONS.region_class_order, mean_at_full_resolution(predictions), strict=True):
        expected[mean > 0.5] = number
    segmented = EnsemblePrediction(members=predictions, rules=NO_RULES).segmentation()
    np.testing.assert_array_equal(segmented.array, expected)
    assert set(np.unique(expected)) == {0, 1, 2, 3}


def test_masks_are_elected_each_and_written_as_a_folder(tmp_path):
    """Structures that overlap freely have a mask each; a rule of one changes no other."""
    predictions = members(MASKS)
    expected = mean_at_full_resolution(predictions) > 0.5
    joint = EnsemblePrediction(members=predictions, rules=NO_RULES)
    np.testing.assert_array_equal([one.array for one in joint.masks()], expected)
    np.testing.assert_array_equal(joint.segmentation().array, expected)
    path, written, known = save_result(joint, tmp_path / "case.nii.gz")
    assert sorted(file.name for file in path.iterdir()) == ["core.nii.gz", "rest.nii.gz", "whole.nii.gz"]
    np.testing.assert_array_equal(np.isin(written.array, known.structures["core"]), expected[1])
    np.testing.assert_array_equal(load_result(path, MASKS)[0].array, written.array)
    rules = PostprocessingRules(smallest=(SmallestSize(structure=(2, 3), mm3=1e6),))
    cleaned = [one.array.any() for one in replace(joint, rules=rules).masks()]
    assert cleaned == [True, False, True]


def test_rules_are_applied_to_what_is_elected():
    """Those of the members are not looked at."""
    rules = PostprocessingRules(keep_largest=((1,), (2,)), smallest=(SmallestSize(structure=(3,), mm3=6.0),))
    deaf = tuple(replace(one, rules=PostprocessingRules(keep_largest_foreground=True)) for one in members())
    plain = EnsemblePrediction(members=deaf, rules=NO_RULES).segmentation()
    cleaned = EnsemblePrediction(members=deaf, rules=rules).segmentation()
    np.testing.assert_array_equal(cleaned.array, apply_rules(plain, rules).array)
    assert (cleaned.array != plain.array).any()


def test_one_of_two_equals_says_what_it_says_alone():
    """The mean of a prediction and itself elects what it elects alone, and the first class where all are equal."""
    for targets in (CLASSES, REGIONS, MASKS):
        one = members(targets)[0]
        same = EnsemblePrediction(members=(one, one), rules=NO_RULES)
        np.testing.assert_array_equal(same.segmentation().array, one.segmentation().array)
        level = replace(one, logits=torch.zeros_like(one.logits))
        tied = EnsemblePrediction(members=(level, level), rules=NO_RULES)
        np.testing.assert_array_equal(tied.segmentation().array, level.segmentation().array)
        assert not tied.segmentation().array.any()


def test_memory_does_not_grow_with_the_number_of_classes():
    """A few volumes at full resolution, for three classes and for forty."""

    def peak_of(labels: int) -> int:
        many = Targets.of_labels({str(number): number for number in range(1, labels + 1)})
        joint = EnsemblePrediction(members=members(many, shape=(16, 40, 40)), rules=NO_RULES)
        joint.segmentation()  # what is made once, such as matrices, is there then
        tracemalloc.start()
        joint.segmentation()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_of(40) < 1.2 * peak_of(3)
    assert peak_of(40) < 12 * 16 * 40 * 40 * 4


class Constant(Predictor):
    """Stands for networks that give every voxel the same logits; counts how often they are asked."""

    def __init__(self, *logits):
        self.logits, self.asked = torch.tensor(logits), 0

    def __call__(self, patches):
        self.asked += 1
        grid = patches.shape[2:]
        return self.logits.reshape(1, -1, *(1 for _ in grid)).expand(len(patches), -1, *grid).clone()


def segmenter(*logits, **options) -> Segmenter:
    """A configuration that predicts the same logits for all voxels."""
    return replace(make_segmenter([small_checkpoint()], NO_RULES, CPU), predictor=Constant(*logits), **options)


def test_configurations_are_averaged_as_probabilities():
    """Two sure voices win over one that is surer still, which they would not among logits; shares add up to one."""
    softmax_of = [softmax(logits) for logits in ([0.0, 2.0, 0.0], [30.0, 0.0, 0.0], [0.0, 2.0, 0.0])]
    assert np.mean(softmax_of, axis=0).argmax() == 1
    voices = [segmenter(0.0, 2.0, 0.0), segmenter(30.0, 0.0, 0.0), segmenter(0.0, 2.0, 0.0)]
    joint = make_ensemble(voices, NO_RULES)
    assert isinstance(joint, EnsembleSegmenter)
    assert joint.info == SMALL_INFO
    shares = []
    image = place(np.random.default_rng(0).normal(size=(1, 9, 9, 9)).astype(np.float32))
    assert (joint.segment(image, shares.append).array == 1).all()
    assert sum(shares) == pytest.approx(1)


def test_a_coarser_configuration_runs_once_where_it_is_a_member_too():
    """A cascade is shown what the other member says, wherever it stands in the list."""
    coarse = segmenter(0.0, 5.0, 0.0)
    shown = []

    class Following(Constant):
        def __call__(self, patches):
            shown.append(patches[:, 1:].amax(dim=(0, 2, 3, 4)).tolist())
            return super().__call__(patches)

    base = small_configuration()
    deeper = base.architecture.model_dump() | {"in_channels": 3}
    following = replace(
        segmenter(0.0, 0.0, 1.0),
        predictor=Following(0.0, 0.0, 1.0),
        configuration=base.model_copy(
            update={"architecture": Architecture(**deeper), "previous": "3d_lowres", "patch_size": (8, 8, 8)}
        ),
        previous=coarse,
    )
    image = place(np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32))
    alone = following.predict(image).logits
    once = coarse.predictor.asked
    assert once > 0
    for order in ([coarse, following], [following, coarse]):
        coarse.predictor.asked = 0
        answer = make_ensemble(order, NO_RULES).predict(image)
        assert coarse.predictor.asked == once
        torch.testing.assert_close(answer.members[order.index(following)].logits, alone)
    assert all(one == [1.0, 0.0] for one in shown)


def test_one_configuration_stays_itself_with_other_rules():
    """A choice of one needs no average."""
    rules = PostprocessingRules(keep_largest=((1,),))
    one = segmenter(0.0, 1.0, 0.0)
    assert make_ensemble([one], rules) == replace(one, rules=rules)


def test_temperatures_of_each_alone_do_not_change_who_wins_together():
    """The mean of what the networks give decides, and is what is written as probabilities."""
    image = place(np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32))
    plain = [segmenter(0.0, 2.0, 1.0), segmenter(0.0, 1.0, 2.5)]
    calibrated = [replace(one, temperatures=(1.0, 0.5, 10.0)) for one in plain]
    one, other = (make_ensemble(members, NO_RULES).predict(image) for members in (plain, calibrated))
    np.testing.assert_array_equal(one.segmentation().array, other.segmentation().array)
    for volume, same in zip(one.probabilities(range(3)), other.probabilities(range(3)), strict=True):
        np.testing.assert_array_equal(volume.array, same.array)


def test_configurations_of_different_labels_do_not_go_together():
    """One line says so."""
    other = DatasetInfo(channel_names={"0": "MR"}, labels={"background": 0, "x": 1, "y": 2}, file_ending=".nii.gz")
    with pytest.raises(ModelError, match=r"different channels or labels; train them again with the present"):
        make_ensemble([segmenter(0.0, 1.0, 0.0), segmenter(0.0, 1.0, 0.0, info=other)], NO_RULES)
