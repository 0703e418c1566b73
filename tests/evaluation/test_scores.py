"""All scores of a case, also where masks are empty."""

import math

import numpy as np
import pytest

from autoseg.evaluation.scores import METRICS, UNDEFINED, LabelScores, Measures, score_labels
from autoseg.evaluation.summary import MeanScores
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.targets import Targets

DIAGONAL = math.hypot(8 * 2.0, 6 * 1.0, 5 * 0.5)
GEOMETRY = Geometry(shape=(8, 6, 5), spacing_mm=(2.0, 1.0, 0.5))
LESION = Targets.of_labels({"lesion": 1})


def block(*places):
    """Makes a label map with small blocks."""
    label_map = np.zeros(GEOMETRY.shape, dtype=np.uint8)
    for z, y, x in places:
        label_map[z : z + 2, y : y + 2, x : x + 2] = 1
    return label_map


def score(reference, prediction, targets=LESION, geometry=GEOMETRY, **options):
    """Returns the scores of the only structure."""
    [scores] = score_labels(reference, prediction, targets, geometry, **options).values()
    return scores


def test_a_structure_in_neither_mask_has_no_scores():
    """Every metric is undefined, so that means leave the case out; counts are 0."""
    scores = score(block(), block())
    assert all(math.isnan(getattr(scores, metric)) for metric in METRICS)
    assert (scores.lesions_found, scores.lesions_missed, scores.lesions_false) == (0, 0, 0)
    assert (scores.reference_volume_mm3, scores.predicted_volume_mm3) == (0, 0)


@pytest.mark.parametrize("missed", [True, False])
def test_a_structure_in_one_mask_only_has_the_worst_scores(missed):
    """Ratios are 0 and distances the diagonal of the image; nothing is infinite."""
    full, empty = block((1, 1, 1)), block()
    scores = score(full, empty) if missed else score(empty, full)
    assert (scores.dice, scores.iou, scores.nsd, scores.lesion_f1) == (0, 0, 0, 0)
    assert scores.hd95_mm == scores.assd_mm == pytest.approx(DIAGONAL)
    assert scores.volume_error_mm3 == (-8 if missed else 8)
    assert scores.relative_volume_error == -1 if missed else math.isnan(scores.relative_volume_error)


def test_a_structure_in_both_masks_has_all_scores():
    """The prediction is a block shifted by a voxel of 2 mm, and an island."""
    scores = score(block((1, 1, 1)), block((2, 1, 1), (6, 4, 3)), measures=Measures(tolerance_mm=2.0))
    assert scores.dice == pytest.approx(2 * 4 / (8 + 16))
    assert scores.nsd == pytest.approx((8 + 8) / (8 + 16))
    assert scores.nsd > score(block((1, 1, 1)), block((2, 1, 1), (6, 4, 3)), measures=Measures(tolerance_mm=1.0)).nsd
    assert 2 < scores.hd95_mm < DIAGONAL
    assert (scores.lesions_found, scores.lesions_missed, scores.lesions_false) == (1, 0, 1)
    assert scores.lesion_f1 == pytest.approx(2 / 3)
    assert (scores.volume_error_mm3, scores.relative_volume_error) == (8.0, 1.0)


def test_voxels_that_nobody_labelled_belong_to_neither_mask():
    """A prediction in ignored voxels is wrong in no metric; a mask with ignored voxels only counts as empty."""
    unlabelled = Targets.of_labels({"lesion": 1}, ignore=2)
    reference, prediction = block((1, 1, 1)), block((1, 1, 1), (5, 3, 2))
    reference[4:] = 2
    scores = score(reference, prediction, unlabelled)
    assert (scores.dice, scores.nsd, scores.hd95_mm, scores.lesion_f1, scores.volume_error_mm3) == (1, 1, 0, 1, 0)
    reference[:4] = prediction[:4] = 0
    assert math.isnan(score(reference, prediction, unlabelled).hd95_mm)


def test_a_plane_is_measured_within_itself():
    """A plane has contours and a relative volume error, but no volume."""
    plane = Geometry(shape=(1, 10, 10), spacing_mm=(9.0, 1.0, 1.0), dimensions=2)
    reference, prediction = np.zeros((2, 1, 10, 10), np.uint8)
    reference[:, 2:7, 2:7], prediction[:, 2:7, 3:8] = 1, 1
    scores = score(reference, prediction, geometry=plane)
    assert (scores.nsd, scores.hd95_mm, scores.relative_volume_error) == (1, 1, 0)
    assert math.isnan(scores.volume_error_mm3)


def test_metrics_are_those_of_the_files():
    """Every metric of the table is a field of the scores of a case and of means, and means have no others."""
    assert set(METRICS) <= set(LabelScores.model_fields)
    assert set(METRICS) == set(MeanScores.model_fields) - {"intervals"}
    assert all(math.isnan(getattr(UNDEFINED, metric)) for metric in METRICS)
