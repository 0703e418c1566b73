"""Counting of overlaps, compared with brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.evaluation.metrics import Overlap, case_overlaps
from autoseg.imaging.targets import Targets

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(
        arrays(np.int32, shape, elements=st.integers(-1, 6)), arrays(np.uint8, shape, elements=st.integers(0, 6))
    )
)


def overlap(reference, prediction, label):
    """Returns the overlap of one label."""
    return case_overlaps(reference, prediction, Targets.of_labels({"a": label}))["a"]


def brute_force(reference, prediction, label):
    """Counts the overlap voxel by voxel."""
    pairs = list(zip(reference.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    return Overlap(
        true_positive=sum(a == label and b == label for a, b in pairs),
        false_positive=sum(a != label and b == label for a, b in pairs),
        false_negative=sum(a == label and b != label for a, b in pairs),
    )


@given(PAIRS, st.lists(st.integers(1, 6), unique=True))
@settings(max_examples=60, deadline=None)
def test_counts_equal_brute_force(pair, labels):
    """Every label is counted correctly, whatever other values the maps hold and whichever labels are left out."""
    reference, prediction = pair
    targets = Targets.of_labels({str(label): label for label in labels})
    assert case_overlaps(reference, prediction, targets) == {
        str(label): brute_force(reference, prediction, label) for label in labels
    }


@given(PAIRS, st.lists(st.integers(1, 6), unique=True))
@settings(max_examples=30, deadline=None)
def test_many_numbers_are_counted_alike(pair, labels):
    """Counting by sorting gives the same numbers as the table of all pairs, which would be too large here."""
    targets = Targets.of_labels({str(label): label for label in labels})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.evaluation.metrics.LARGEST_TABLE", 0)
        by_sorting = case_overlaps(*pair, targets)
    assert by_sorting == case_overlaps(*pair, targets)


@given(PAIRS, st.lists(st.sets(st.integers(1, 6), min_size=1), max_size=3), st.none() | st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_regions_count_as_masks_of_all_their_numbers(pair, regions, ignore):
    """Regions may overlap; ignored voxels count nowhere, whatever was predicted there."""
    reference, prediction = pair
    structures = {str(place): tuple(sorted(numbers)) for place, numbers in enumerate(regions)}
    found = case_overlaps(reference, prediction, Targets(structures=structures, exclusive=False, ignore=ignore))
    counted = np.ones(reference.shape, dtype=bool) if ignore is None else reference != ignore
    for name, numbers in structures.items():
        masks = [np.isin(array, numbers) & counted for array in (reference, prediction)]
        assert found[name] == brute_force(*masks, True)


@given(PAIRS)
@settings(max_examples=40, deadline=None)
def test_scores_equal_set_definitions(pair):
    """Dice and IoU are those of the sets of voxels, and Dice is 2 IoU / (1 + IoU)."""
    reference, prediction = pair
    result = overlap(reference, prediction, 1)
    a, b = set(np.flatnonzero(reference == 1)), set(np.flatnonzero(prediction == 1))
    if not a | b:
        assert math.isnan(result.dice)
        assert math.isnan(result.iou)
    else:
        assert result.dice == pytest.approx(2 * len(a & b) / (len(a) + len(b)))
        assert result.iou == pytest.approx(len(a & b) / len(a | b))
        assert result.dice == pytest.approx(2 * result.iou / (1 + result.iou))


@given(PAIRS)
@settings(max_examples=30, deadline=None)
def test_swapping_the_maps_swaps_the_errors(pair):
    """False positives of one map are false negatives of the other."""
    reference, prediction = (np.abs(array.astype(np.int16)) for array in pair)
    forward, backward = overlap(reference, prediction, 2), overlap(prediction, reference, 2)
    assert forward.false_positive == backward.false_negative
    assert forward.true_positive == backward.true_positive
    assert forward.reference_voxels == backward.predicted_voxels


def test_counts_are_plain_integers():
    """Counts go into JSON, so they are no numpy numbers."""
    result = overlap(np.ones((1, 2, 2), np.uint8), np.ones((1, 2, 2), np.uint8), 1)
    assert type(result.true_positive) is int
    assert result == Overlap(true_positive=4, false_positive=0, false_negative=0)


def test_an_extreme_value_of_a_narrow_type_is_no_label():
    """Values out of range do not wrap around to a label."""
    reference = np.array([[[255, 0, 1]]], dtype=np.uint8)
    prediction = np.array([[[-128, 127, 1]]], dtype=np.int8)
    assert overlap(reference, prediction, 1) == Overlap(true_positive=1, false_positive=0, false_negative=0)


def test_maps_of_different_shape_are_refused():
    """Maps of different shapes are an error of the caller."""
    with pytest.raises(ValueError, match=r"\(1, 2, 2\).*\(1, 2, 3\)"):
        overlap(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int), 1)
