"""Two runs on the same cases: which is better, by how much, and whether that may be chance."""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from autoseg.errors import DatasetError
from autoseg.evaluation.scores import METRICS
from autoseg.evaluation.statistics import SEED, Interval, bootstrap_means, draw_resamples, signed_rank_p
from autoseg.evaluation.summary import CaseResult, Summary, mean_of_defined
from autoseg.runtime.artifact import Artifact, Score, atomic_file

if TYPE_CHECKING:
    import pandas as pd

FOREGROUND = "mean foreground"
"""What stands for the mean of all labels where names of labels stand."""

Count = Annotated[int, Field(ge=0)]


class PairedScores(BaseModel):
    """One label and metric of two runs, over the cases where it is defined in both.

    Volume errors count without their sign, so that errors in opposite directions do not seem to cancel.

    Attributes:
        label: Or `FOREGROUND`: the mean over the labels, of the means and within each case.
        metric: As in `LabelScores`.
        cases: How many there are.
        first, second: Means of the two runs.
        difference: Mean of second minus first.
        interval: 95 % confidence interval of the difference.
        p_value: Of Wilcoxon's signed-rank test, two-sided, for this row alone: of many, some are small by chance.
        wins, losses, ties: Cases in which the second run is better, worse, or the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    metric: str
    cases: Count
    first: Score
    second: Score
    difference: Score
    interval: Interval
    p_value: Score
    wins: Count
    losses: Count
    ties: Count


class Comparison(Artifact):
    """Two runs, compared case by case.

    Attributes:
        first, second: Where the runs were found.
        tolerance_mm: At which NSD was measured.
        cases: Those of both.
        only_first, only_second: Cases and labels that the other run lacks; they are left out.
        rows: The foreground first, then label by label; metrics that a run lacks are left out.
    """

    first: str
    second: str
    tolerance_mm: Score
    cases: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    rows: tuple[PairedScores, ...]

    def table(self) -> "pd.DataFrame":
        """One row per label and metric, with the columns of `PairedScores`; the interval as low and high."""
        import pandas as pd  # noqa: PLC0415 - takes longer to import than most uses of this module take

        rows = []
        for row in self.rows:
            low, high = row.interval
            rows.append(row.model_dump(exclude={"interval"}) | {"low": low, "high": high})
        return pd.DataFrame(rows, columns=[*PairedScores.model_fields, "low", "high"]).drop(columns="interval")

    def save_csv(self, path: Path) -> None:
        """Writes `table` as a CSV file, atomically; undefined numbers are empty."""
        with atomic_file(path) as writing:
            self.table().to_csv(writing, index=False)


def compare_summaries(first: Summary, second: Summary, *, names: tuple[str, str]) -> Comparison:
    """Compares two runs on the cases and labels that both have.

    Args:
        first: Scores of one run.
        second: Scores of the other.
        names: Where they were found, for the record.

    Raises:
        DatasetError: They have no case or no label in common, or were compared with other references, or their NSD was
            measured at another tolerance.
    """
    of_first, of_second = ({case.name: case for case in run.cases} for run in (first, second))
    common = tuple(name for name in of_first if name in of_second)
    labels = tuple(label for label in first.mean if label in second.mean)
    if not common or not labels:
        raise DatasetError("the two runs have no case or no label in common", "compare runs on the same dataset")
    pairs = [(of_first[name], of_second[name]) for name in common]
    _check_references(pairs, labels)
    _check_tolerances(first, second)
    resamples = draw_resamples(len(pairs), np.random.default_rng(SEED))
    columns = [_compare_metric(name, pairs, labels, resamples) for name in METRICS]
    return Comparison(
        first=names[0],
        second=names[1],
        tolerance_mm=first.tolerance_mm,
        cases=common,
        only_first=_lacking(of_first, of_second) + _lacking(first.mean, second.mean),
        only_second=_lacking(of_second, of_first) + _lacking(second.mean, first.mean),
        rows=tuple(row for of_label in zip(*columns, strict=True) for row in of_label if row.cases),
    )


def _compare_metric(
    name: str, pairs: Sequence[tuple[CaseResult, CaseResult]], labels: Sequence[str], resamples: NDArray[np.float64]
) -> list[PairedScores]:
    """The row of the foreground, then that of each label."""
    metric = METRICS[name]
    values = np.array([[[getattr(run.scores[label], name) for label in labels] for run in pair] for pair in pairs])
    values = np.abs(values) if metric.best == "zero" else values
    values = np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)  # defined in both, or in neither
    differences = values[:, 1] - values[:, 0]  # (cases, labels)
    intervals, interval = bootstrap_means(differences, resamples)
    rows = []
    for column, label in enumerate(labels):
        first, second = (mean_of_defined(values[:, run, column]) for run in (0, 1))
        rows.append(_row(label, name, (first, second), intervals[column], differences[:, column]))
    first, second = mean_of_defined(row.first for row in rows), mean_of_defined(row.second for row in rows)
    of_cases = np.array([mean_of_defined(of_case) for of_case in differences])
    return [_row(FOREGROUND, name, (first, second), interval, of_cases), *rows]


def _row(
    label: str, name: str, means: tuple[float, float], interval: tuple[float, float], differences: NDArray[np.float64]
) -> PairedScores:
    known = differences[~np.isnan(differences)]
    gains = known if METRICS[name].best == "highest" else -known
    return PairedScores(
        label=label,
        metric=name,
        cases=len(known),
        first=means[0],
        second=means[1],
        difference=means[1] - means[0],
        interval=interval,
        p_value=signed_rank_p(known.tolist()),
        wins=int(np.count_nonzero(gains > 0)),
        losses=int(np.count_nonzero(gains < 0)),
        ties=int(np.count_nonzero(gains == 0)),
    )


def _check_references(pairs: Sequence[tuple[CaseResult, CaseResult]], labels: Sequence[str]) -> None:
    for one, other in pairs:
        for label in labels:
            voxels = [run.scores[label].true_positive + run.scores[label].false_negative for run in (one, other)]
            if voxels[0] != voxels[1]:
                raise DatasetError(
                    f"case {one.name!r}: the references of the two runs differ: "
                    f"{label!r} has {voxels[0]} and {voxels[1]} voxels",
                    "evaluate both with the same references",
                )


def _check_tolerances(first: Summary, second: Summary) -> None:
    one, other = first.tolerance_mm, second.tolerance_mm
    if not np.isnan([one, other]).any() and one != other:
        raise DatasetError(
            f"NSD of the two runs was measured at {one:g} and at {other:g} mm",
            "evaluate both with the same --tolerance",
        )


def _lacking(names: Iterable[str], others: Container[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)
