"""All scores of the structures of one case.

Empty masks are treated alike by all metrics:

- If both masks of a structure are empty, no score is defined (NaN), and means leave the case out.
- If exactly one of them is empty, Dice, IoU, NSD and lesion F1 are 0, and distances are the diagonal of the image. The
  diagonal is longer than any distance in the image and not infinite, so that means show the failure. The volume error
  is defined as usual; the relative volume error is undefined if the reference is empty.
- Ignored voxels (`Targets.ignore`) belong to neither mask.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from autoseg.evaluation.centrelines import centreline_dice
from autoseg.evaluation.lesions import count_lesions
from autoseg.evaluation.masks import crop_masks
from autoseg.evaluation.metrics import Overlap, case_overlaps
from autoseg.evaluation.surface import MeasurementGrid, SurfaceScores, compare_surfaces
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import Score

Count = Annotated[int, Field(ge=0)]

DEFAULT_TOLERANCE_MM = 1.0
"""Decision: about the voxel size of common scans, and the tolerance of the Medical Segmentation Decathlon for most of
its organs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """How segmentations are measured.

    Attributes:
        tolerance_mm: Tolerance of NSD, the normalized surface Dice; 0 or more.
        centrelines: Whether the centreline Dice is measured too. Decision: it is not by default, because the skeletons
            of large structures take seconds, and say nothing of organs.
    """

    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    centrelines: bool = False


USUAL_MEASURES = Measures()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a metric is displayed, and which of two values is better.

    Attributes:
        title: Title in tables.
        best: The best value: the highest, the lowest, or zero.
        digits: Digits after the decimal point in tables.
        scale: Factor from the number in files to the number in tables.
    """

    title: str
    best: Literal["highest", "lowest", "zero"]
    digits: int
    scale: float = 1.0


METRICS = {
    "dice": Metric(title="Dice", best="highest", digits=3),
    "iou": Metric(title="IoU", best="highest", digits=3),
    "nsd": Metric(title="NSD", best="highest", digits=3),
    "hd95_mm": Metric(title="HD95, mm", best="lowest", digits=2),
    "assd_mm": Metric(title="ASSD, mm", best="lowest", digits=2),
    "lesion_f1": Metric(title="lesion F1", best="highest", digits=3),
    "centreline_dice": Metric(title="centreline Dice", best="highest", digits=3),
    "volume_error_mm3": Metric(title="volume error, mm3", best="zero", digits=0),
    "relative_volume_error": Metric(title="volume error, %", best="zero", digits=1, scale=100.0),
}
"""Scores that are averaged over cases, by their name in files: fields of `LabelScores` and `MeanScores`."""


class LabelScores(BaseModel):
    """Scores of one label in one case. Scores that a file of an earlier version lacks are undefined.

    Attributes:
        dice, iou: Dice coefficient and intersection over union, 0 to 1.
        nsd, hd95_mm, assd_mm: Surface metrics, see `surface.SurfaceScores`; in pixels if the pixel size is unknown.
        lesion_f1: F1 score of lesion detection, 0 to 1; see `lesions.LesionCounts`.
        centreline_dice: See `centrelines.centreline_dice`; undefined if it was not asked for.
        volume_error_mm3: Predicted minus reference volume.
        relative_volume_error: Volume error divided by the reference volume.
        true_positive, false_positive, false_negative: Numbers of voxels.
        reference_volume_mm3, predicted_volume_mm3: Volumes; undefined for a plane, which has no thickness.
        lesions_found, lesions_missed, lesions_false: Numbers of connected components.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: Score
    iou: Score
    nsd: Score = math.nan
    hd95_mm: Score = math.nan
    assd_mm: Score = math.nan
    lesion_f1: Score = math.nan
    centreline_dice: Score = math.nan
    volume_error_mm3: Score = math.nan
    relative_volume_error: Score = math.nan
    true_positive: Count
    false_positive: Count
    false_negative: Count
    reference_volume_mm3: Score
    predicted_volume_mm3: Score
    lesions_found: Count | None = None
    lesions_missed: Count | None = None
    lesions_false: Count | None = None


UNDEFINED = LabelScores(
    dice=math.nan,
    iou=math.nan,
    true_positive=0,
    false_positive=0,
    false_negative=0,
    reference_volume_mm3=math.nan,
    predicted_volume_mm3=math.nan,
    lesions_found=0,
    lesions_missed=0,
    lesions_false=0,
)
"""Scores of a structure that was not annotated."""


def score_labels(
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    targets: Targets,
    geometry: Geometry,
    measures: Measures = USUAL_MEASURES,
) -> dict[str, LabelScores]:
    """Scores each structure of two label maps; see the text of this module for empty masks.

    >>> reference, prediction = np.array([[[1, 1, 1, 0, 0]]]), np.array([[[0, 1, 1, 1, 0]]])
    >>> geometry = Geometry(shape=(1, 1, 5), spacing_mm=(1.0, 1.0, 2.0))
    >>> scores = score_labels(reference, prediction, Targets.of_labels({"liver": 1}), geometry)["liver"]
    >>> round(scores.dice, 3), scores.nsd, scores.hd95_mm, scores.reference_volume_mm3
    (0.667, 0.0, 2.0, 6.0)

    Args:
        reference: Label map of shape (z, y, x).
        prediction: Label map of the same shape.
        targets: The structures.
        geometry: Grid of both label maps.
        measures: How it is measured.

    Returns:
        Name of each structure to its scores, in the order of the structures.
    """
    grid = MeasurementGrid.of(geometry)
    voxel_mm3 = geometry.voxel_volume_mm3
    overlaps = case_overlaps(reference, prediction, targets)
    scores = {}
    for name, pair in crop_masks(reference, prediction, targets):
        overlap = overlaps[name]
        surface = _score_empty_masks(overlap, grid) or compare_surfaces(pair, grid, tolerance_mm=measures.tolerance_mm)
        lesions = count_lesions(pair)
        error = _volume_error(overlap)
        scores[name] = LabelScores(
            dice=overlap.dice,
            iou=overlap.iou,
            nsd=surface.nsd,
            hd95_mm=surface.hd95_mm,
            assd_mm=surface.assd_mm,
            lesion_f1=lesions.f1,
            centreline_dice=centreline_dice(pair) if measures.centrelines else math.nan,
            volume_error_mm3=error * voxel_mm3,
            relative_volume_error=error / overlap.reference_voxels if overlap.reference_voxels else math.nan,
            true_positive=overlap.true_positive,
            false_positive=overlap.false_positive,
            false_negative=overlap.false_negative,
            reference_volume_mm3=overlap.reference_voxels * voxel_mm3,
            predicted_volume_mm3=overlap.predicted_voxels * voxel_mm3,
            lesions_found=lesions.found,
            lesions_missed=lesions.missed,
            lesions_false=lesions.false,
        )
    return scores


def _score_empty_masks(overlap: Overlap, grid: MeasurementGrid) -> SurfaceScores | None:
    """Returns the surface scores if one mask or both are empty, else None."""
    if overlap.reference_voxels and overlap.predicted_voxels:
        return None
    if overlap.reference_voxels or overlap.predicted_voxels:
        return SurfaceScores(nsd=0.0, hd95_mm=grid.diagonal_mm, assd_mm=grid.diagonal_mm)
    return SurfaceScores(nsd=math.nan, hd95_mm=math.nan, assd_mm=math.nan)


def _volume_error(overlap: Overlap) -> float:
    """Returns the number of predicted minus reference voxels; NaN if both masks are empty."""
    present = overlap.reference_voxels or overlap.predicted_voxels
    return float(overlap.predicted_voxels - overlap.reference_voxels) if present else math.nan
