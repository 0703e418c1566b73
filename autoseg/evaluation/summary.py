"""The scores of many cases on one page: summary.json for programs, summary.csv for tables."""

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.errors import DatasetError
from autoseg.evaluation.scores import DEFAULT_TOLERANCE_MM, METRICS, UNDEFINED, LabelScores, score_case
from autoseg.evaluation.statistics import SEED, Interval, bootstrap_means, draw_resamples
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import Artifact, Score, atomic_file

if TYPE_CHECKING:
    import pandas as pd


class CaseResult(BaseModel):
    """All labels of one case, by name, and the files that were compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scores: dict[str, LabelScores]
    reference_file: str = ""
    prediction_file: str = ""

    def without(self, unknown: Collection[str]) -> "CaseResult":
        """The same with undefined scores of structures that nobody looked for in the reference."""
        return self.model_copy(update={"scores": self.scores | dict.fromkeys(unknown, UNDEFINED)})

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels that have one; NaN if none has."""
        return mean_of_defined(scores.dice for scores in self.scores.values())


class MeanScores(BaseModel):
    """Means of one label over the cases where they are defined; the metrics are those of `LabelScores`.

    Attributes:
        intervals: Metric to the 95 % confidence interval of its mean; undefined with fewer than two cases.
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
    intervals: dict[str, Interval] = {}


class Summary(Artifact):
    """The scores of a set of cases; summary.json.

    Attributes:
        tolerance_mm: At which NSD was measured; undefined in files of earlier versions.
        foreground_mean: Mean over the labels of `mean`; a label that is in no case at all is left out.
        mean: Label name to its means.
        cases: In the order in which they were given.
    """

    tolerance_mm: Score = math.nan
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
    files: tuple[str, str] = ("", ""),
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> CaseResult:
    """Compares the prediction of one case with its reference.

    Args:
        name: Of the case.
        reference: Label map, shape (z, y, x).
        prediction: Label map on the same grid.
        targets: The structures to compare.
        files: Where reference and prediction came from, for the record.
        tolerance_mm: Of NSD.

    Raises:
        DatasetError: The two lie on different grids.
    """
    difference = reference.geometry.difference(prediction.geometry)
    if difference is not None:
        raise DatasetError(
            f"case {name!r}: reference and prediction lie on different grids: {difference}",
            "predict from the image that the reference was drawn on",
        )
    return CaseResult(
        name=name,
        scores=score_case(reference.array, prediction.array, targets, reference.geometry, tolerance_mm=tolerance_mm),
        reference_file=files[0],
        prediction_file=files[1],
    )


def summarize(
    cases: Sequence[CaseResult], labels: Iterable[str], *, tolerance_mm: float = DEFAULT_TOLERANCE_MM
) -> Summary:
    """Gathers the results of many cases.

    The mean of a label is taken over the cases where its score is defined, the foreground mean over the labels whose
    mean is defined. Both are undefined where nothing is left. Source: the reference method (nnU-Net v2.8.1,
    evaluate_predictions). Decision: there, a label that is in no case makes the foreground mean undefined.

    Args:
        cases: Results with all of `labels`.
        labels: Names.
        tolerance_mm: At which NSD was measured.
    """
    names = tuple(labels)
    resamples = draw_resamples(len(cases), np.random.default_rng(SEED))
    means: list[dict[str, float]] = [{} for _ in names]
    intervals: list[dict[str, Interval]] = [{} for _ in names]
    foreground: dict[str, float] = {}
    foreground_intervals: dict[str, Interval] = {}
    for metric in METRICS:
        values = np.array([[getattr(case.scores[name], metric) for name in names] for case in cases], dtype=float)
        values = values.reshape(len(cases), len(names))
        of_labels, foreground_intervals[metric] = bootstrap_means(values, resamples)
        for column, interval in enumerate(of_labels):
            means[column][metric] = mean_of_defined(values[:, column])
            intervals[column][metric] = interval
        foreground[metric] = mean_of_defined(mean[metric] for mean in means)
    return Summary(
        tolerance_mm=tolerance_mm,
        foreground_mean=MeanScores(**foreground, intervals=foreground_intervals),
        mean={
            name: MeanScores(**mean, intervals=ends) for name, mean, ends in zip(names, means, intervals, strict=True)
        },
        cases=tuple(cases),
    )


def mean_of_defined(scores: Iterable[float]) -> float:
    """Mean of the scores that are not NaN; NaN if there is none."""
    values = np.fromiter(scores, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _rank(case: CaseResult) -> tuple[bool, float, str]:
    """Cases without a score after all others; NaN itself has no place in an order."""
    dice = case.mean_dice
    return (True, 0.0, case.name) if np.isnan(dice) else (False, dice, case.name)
