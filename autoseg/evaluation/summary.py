"""The scores of many cases on one page: summary.json for programs, summary.csv for tables."""

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from autoseg.artifact import Artifact, Score, atomic_file
from autoseg.errors import DatasetError
from autoseg.evaluation.metrics import Overlap, case_overlaps
from autoseg.geometry import Geometry, Volume
from autoseg.targets import Targets

if TYPE_CHECKING:
    import pandas as pd

Count = Annotated[int, Field(ge=0)]


class LabelScores(BaseModel):
    """One label of one case.

    Attributes:
        dice, iou: 0 to 1; undefined (NaN, null in the file) if the label is in neither reference nor prediction.
        true_positive, false_positive, false_negative: In voxels.
        reference_volume_mm3, predicted_volume_mm3: Undefined for a plane, which has no thickness.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: Score
    iou: Score
    true_positive: Count
    false_positive: Count
    false_negative: Count
    reference_volume_mm3: Score
    predicted_volume_mm3: Score


class CaseResult(BaseModel):
    """All labels of one case, by name, and the files that were compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scores: dict[str, LabelScores]
    reference_file: str = ""
    prediction_file: str = ""

    def without(self, unknown: Collection[str]) -> "CaseResult":
        """The same with undefined scores of structures that nobody looked for in the reference."""
        nothing = _label_scores(Overlap(true_positive=0, false_positive=0, false_negative=0), math.nan)
        return self.model_copy(update={"scores": self.scores | dict.fromkeys(unknown, nothing)})

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels that have one; NaN if none has."""
        return mean_of_defined(scores.dice for scores in self.scores.values())


class MeanScores(BaseModel):
    """Means of one label over the cases where they are defined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: Score
    iou: Score


class Summary(Artifact):
    """The scores of a set of cases; summary.json.

    Attributes:
        foreground_mean: Mean over the labels of `mean`; a label that is in no case at all is left out.
        mean: Label name to its means.
        cases: In the order in which they were given.
    """

    foreground_mean: MeanScores
    mean: dict[str, MeanScores]
    cases: tuple[CaseResult, ...]

    def table(self) -> "pd.DataFrame":
        """One row per case and label, with the columns case, label and those of `LabelScores`."""
        import pandas as pd  # noqa: PLC0415 - takes longer to import than most uses of this module take

        columns = ["case", "label", *LabelScores.model_fields]
        rows = [
            {"case": case.name, "label": label, **scores.model_dump()}
            for case in self.cases
            for label, scores in case.scores.items()
        ]
        return pd.DataFrame(rows, columns=columns)

    def save_csv(self, path: Path) -> None:
        """Writes `table` as a CSV file, atomically; undefined scores are empty."""
        with atomic_file(path) as writing:
            self.table().to_csv(writing, index=False)

    def write(self, folder: Path) -> None:
        """Writes summary.json, and the same as a table, summary.csv."""
        self.save(folder / "summary.json")
        self.save_csv(folder / "summary.csv")

    def ranked(self) -> list[str]:
        """Names of the cases from worst to best mean Dice, equals by name.

        A case without any score comes last: nothing was there and nothing was found.
        """
        return [case.name for case in sorted(self.cases, key=_rank)]


def evaluate_case(
    name: str,
    reference: Volume,
    prediction: Volume,
    targets: Targets,
    *,
    reference_file: str = "",
    prediction_file: str = "",
) -> CaseResult:
    """Compares the prediction of one case with its reference.

    Args:
        name: Of the case.
        reference: Label map, shape (z, y, x).
        prediction: Label map on the same grid.
        targets: The structures to compare.
        reference_file: Where the reference came from, for the record.
        prediction_file: Where the prediction came from, for the record.

    Raises:
        DatasetError: The two lie on different grids.
    """
    difference = reference.geometry.difference(prediction.geometry)
    if difference is not None:
        raise DatasetError(
            f"case {name!r}: reference and prediction lie on different grids: {difference}",
            "predict from the image that the reference was drawn on",
        )
    overlaps = case_overlaps(reference.array, prediction.array, targets)
    voxel_mm3 = _voxel_mm3(reference.geometry)
    return CaseResult(
        name=name,
        scores={name: _label_scores(overlap, voxel_mm3) for name, overlap in overlaps.items()},
        reference_file=reference_file,
        prediction_file=prediction_file,
    )


def summarize(cases: Sequence[CaseResult], labels: Iterable[str]) -> Summary:
    """Gathers the results of many cases.

    The mean of a label is taken over the cases where its score is defined, the foreground mean over the labels whose
    mean is defined. Both are undefined where nothing is left. Source: the reference method (nnU-Net v2.8.1,
    evaluate_predictions). Decision: there, a label that is in no case makes the foreground mean undefined.

    Args:
        cases: Results with all of `labels`.
        labels: Names.
    """
    mean = {
        label: MeanScores(
            dice=mean_of_defined(case.scores[label].dice for case in cases),
            iou=mean_of_defined(case.scores[label].iou for case in cases),
        )
        for label in labels
    }
    foreground_mean = MeanScores(
        dice=mean_of_defined(scores.dice for scores in mean.values()),
        iou=mean_of_defined(scores.iou for scores in mean.values()),
    )
    return Summary(foreground_mean=foreground_mean, mean=mean, cases=tuple(cases))


def mean_of_defined(scores: Iterable[float]) -> float:
    """Mean of the scores that are not NaN; NaN if there is none."""
    values = np.fromiter(scores, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _voxel_mm3(geometry: Geometry) -> float:
    return float(np.prod(geometry.spacing_mm)) if geometry.dimensions == 3 else float("nan")


def _label_scores(overlap: Overlap, voxel_mm3: float) -> LabelScores:
    return LabelScores(
        dice=overlap.dice,
        iou=overlap.iou,
        true_positive=overlap.true_positive,
        false_positive=overlap.false_positive,
        false_negative=overlap.false_negative,
        reference_volume_mm3=overlap.reference_voxels * voxel_mm3,
        predicted_volume_mm3=overlap.predicted_voxels * voxel_mm3,
    )


def _rank(case: CaseResult) -> tuple[bool, float, str]:
    """Cases without a score after all others; NaN itself has no place in an order."""
    dice = case.mean_dice
    return (True, 0.0, case.name) if np.isnan(dice) else (False, dice, case.name)
