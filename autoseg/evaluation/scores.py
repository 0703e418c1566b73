"""All scores of the structures of one case.

Empty masks, for every metric the same:

- A structure in neither mask: no score is defined (NaN), and means leave the case out.
- In exactly one of them: Dice, IoU, NSD and lesion F1 are 0, and distances are the diagonal of the image. It is longer
  than any distance in the image and not infinite, so that means show the failure. The volume error is what it is; its
  ratio to the reference is undefined if the reference is empty.
- Voxels that nobody labelled (`Targets.ignore`) belong to neither mask.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from autoseg.evaluation.lesions import count_lesions
from autoseg.evaluation.masks import cut_masks
from autoseg.evaluation.metrics import Overlap, case_overlaps
from autoseg.evaluation.surface import Ruler, SurfaceScores, compare_surfaces
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import Score

Count = Annotated[int, Field(ge=0)]

DEFAULT_TOLERANCE_MM = 1.0
"""Decision: about a voxel of usual scans, and what the Medical Segmentation Decathlon allowed most of its organs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a metric is shown and judged.

    Attributes:
        title: In tables.
        best: Which value is best: the highest, the lowest, or zero.
        digits: After the point, in tables.
        scale: Of the number in tables to the one in files.
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
    "volume_error_mm3": Metric(title="volume error, mm3", best="zero", digits=0),
    "relative_volume_error": Metric(title="volume error, %", best="zero", digits=1, scale=100.0),
}
"""Scores of which means are taken, by their name in files: fields of `LabelScores` and `MeanScores`."""


class LabelScores(BaseModel):
    """One label of one case. Scores that a file of an earlier version lacks are undefined.

    Attributes:
        dice, iou: 0 to 1.
        nsd, hd95_mm, assd_mm: Of the surfaces, see `surface.SurfaceScores`; in pixels if the size of pixels is unknown.
        lesion_f1: 0 to 1, see `lesions.LesionCounts`.
        volume_error_mm3: Predicted minus reference volume.
        relative_volume_error: The same in shares of the reference volume.
        true_positive, false_positive, false_negative: In voxels.
        reference_volume_mm3, predicted_volume_mm3: Undefined for a plane, which has no thickness.
        lesions_found, lesions_missed, lesions_false: Connected components.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: Score
    iou: Score
    nsd: Score = math.nan
    hd95_mm: Score = math.nan
    assd_mm: Score = math.nan
    lesion_f1: Score = math.nan
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
"""Of a structure that nobody looked for."""


def score_labels(
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    targets: Targets,
    geometry: Geometry,
    *,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> dict[str, LabelScores]:
    """Scores each structure of a case; see the module's text for empty masks.

    Args:
        reference: Label map, shape (z, y, x).
        prediction: Label map of the same shape.
        targets: The structures.
        geometry: Grid of both.
        tolerance_mm: Of NSD, 0 or more.

    Returns:
        Name of a structure to its scores, in the order of the structures.
    """
    ruler = Ruler.of(geometry)
    voxel_mm3 = geometry.voxel_volume_mm3
    overlaps = case_overlaps(reference, prediction, targets)
    scores = {}
    for name, pair in cut_masks(reference, prediction, targets):
        overlap = overlaps[name]
        surface = _at_empty_masks(overlap, ruler) or compare_surfaces(pair, ruler, tolerance_mm=tolerance_mm)
        lesions = count_lesions(pair)
        error = _volume_error(overlap)
        scores[name] = LabelScores(
            dice=overlap.dice,
            iou=overlap.iou,
            nsd=surface.nsd,
            hd95_mm=surface.hd95_mm,
            assd_mm=surface.assd_mm,
            lesion_f1=lesions.f1,
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


def _at_empty_masks(overlap: Overlap, ruler: Ruler) -> SurfaceScores | None:
    """What surfaces score where one mask or both are empty, else None."""
    if overlap.reference_voxels and overlap.predicted_voxels:
        return None
    if overlap.reference_voxels or overlap.predicted_voxels:
        return SurfaceScores(nsd=0.0, hd95_mm=ruler.diagonal_mm, assd_mm=ruler.diagonal_mm)
    return SurfaceScores(nsd=math.nan, hd95_mm=math.nan, assd_mm=math.nan)


def _volume_error(overlap: Overlap) -> float:
    """Predicted minus reference voxels."""
    present = overlap.reference_voxels or overlap.predicted_voxels
    return float(overlap.predicted_voxels - overlap.reference_voxels) if present else math.nan
