"""Centreline Dice falls where a vessel breaks, and not where it is drawn thinner."""

import math

import numpy as np
import pytest

from autoseg.evaluation.centrelines import centreline_dice
from autoseg.evaluation.masks import MaskPair
from autoseg.evaluation.scores import Measures, score_labels
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.skeletons import find_skeleton
from autoseg.imaging.targets import Targets

SHAPE = (9, 9, 40)


def vessel(first=2, last=38, width=3):
    """Returns the mask of a straight vessel along x."""
    mask, half = np.zeros(SHAPE, dtype=bool), width // 2
    mask[4 - half : 5 + half, 4 - half : 5 + half, first:last] = True
    return mask


def measure(reference, prediction):
    """Returns the centreline Dice of two masks."""
    return centreline_dice(MaskPair(reference=reference, prediction=prediction))


def test_thinner_vessel_is_whole():
    """A ninth of its voxels hold its whole skeleton."""
    thin = vessel(width=1)
    assert measure(vessel(), vessel()) == 1
    assert measure(vessel(), thin) > 0.95
    assert thin.sum() * 9 == vessel().sum()


def test_rows_of_voxels_give_shares_of_their_length():
    """Skeletons of rows are the rows: 24 of 36 voxels are found, and 24 of 30 are right."""
    reference, prediction = vessel(width=1), vessel(14, 38, width=1)
    prediction[4, 3, 0:6] = True  # beside the reference
    recall, precision = 24 / 36, 24 / 30
    assert prediction.sum() == 24 + 6
    assert measure(reference, prediction) == pytest.approx(2 * recall * precision / (recall + precision))


def test_shares_are_those_of_a_loop_over_the_skeletons():
    """Random masks, each voxel of both skeletons looked up in the other mask."""
    random = np.random.default_rng(0)
    for _ in range(5):
        masks = [random.random((6, 12, 12)) < 0.6 for _ in range(2)]
        shares = []
        for mask, other in (masks, masks[::-1]):
            line = np.argwhere(find_skeleton(mask))
            shares.append(sum(bool(other[tuple(voxel)]) for voxel in line) / len(line))
        assert measure(*masks) == pytest.approx(2 / (1 / shares[0] + 1 / shares[1]))


def test_empty_masks():
    """Undefined if both are empty, else 0; also where nothing meets."""
    nothing = np.zeros(SHAPE, dtype=bool)
    assert math.isnan(measure(nothing, nothing))
    assert measure(vessel(), nothing) == measure(nothing, vessel()) == 0
    assert measure(vessel(2, 10), vessel(20, 30)) == 0


def test_it_is_measured_on_request():
    """A plane and a volume; voxels that were not annotated belong to neither mask."""
    labels = vessel().astype(np.uint8)
    labels[:, :, :10] *= 2  # not annotated
    targets = Targets.of_labels({"vessel": 1}, ignore=2)
    geometry = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0))
    arguments = labels, vessel(8, 38).astype(np.uint8), targets, geometry
    assert math.isnan(score_labels(*arguments)["vessel"].centreline_dice)
    assert score_labels(*arguments, Measures(centrelines=True))["vessel"].centreline_dice == 1
    plane = Geometry(shape=(1, *SHAPE[1:]), spacing_mm=(1.0, 1.0, 1.0))
    arguments = labels[4:5], labels[4:5], targets, plane
    assert score_labels(*arguments, Measures(centrelines=True))["vessel"].centreline_dice == 1
