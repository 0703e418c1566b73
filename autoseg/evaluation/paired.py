"""Paired comparison of two runs on the same cases: differences, confidence intervals, and a significance test."""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from autoseg.datasets.names import compose
from autoseg.errors import DatasetError
from autoseg.evaluation.repeats import average_repeats, mean_of_defined
from autoseg.evaluation.scores import METRICS
from autoseg.evaluation.statistics import SEED, Interval, bootstrap_means, draw_resamples, signed_rank_p
from autoseg.evaluation.summary import CaseResult, Summary
from autoseg.runtime.artifact import Artifact, Score, atomic_file

if TYPE_CHECKING:
    import pandas as pd

FOREGROUND = "mean foreground"
"""Name of the mean over all labels, in place of the name of a label."""

Count = Annotated[int, Field(ge=0)]


class PairedScores(BaseModel):
    """Comparison of one metric of one label over the cases where it is defined in both runs.

    Volume errors are compared without their sign, so that errors in opposite directions do not cancel.

    Attributes:
        label: Name of the label, or `FOREGROUND` for the mean over the labels: means are averaged over the labels, and
            so are the differences within each case.
        metric: Name of the metric, a field of `LabelScores`.
        cases: Number of cases.
        first, second: Means of the two runs.
        difference: Mean of the second run minus mean of the first.
        interval: 95 % confidence interval of the difference.
        p_value: Two-sided p value of Wilcoxon's signed-rank test for this row alone. It is not corrected for multiple
            testing: of many p values, some are small by chance.
        wins, losses, ties: Number of cases in which the second run is better, worse, or equal.
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
        first, second: Paths of the two runs.
        tolerance_mm: Tolerance at which NSD was measured.
        cases: Names of the cases of both runs.
        only_first, only_second: Cases and labels that the other run lacks; they are left out of the comparison.
        rows: The rows of the foreground, then those of each label; metrics that a run lacks are left out.
    """

    first: str
    second: str
    tolerance_mm: Score
    cases: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    rows: tuple[PairedScores, ...]

    def table(self) -> "pd.DataFrame":
        """Returns one row per label and metric, with the fields of `PairedScores`; the interval as low and high."""
        import pandas as pd  # noqa: PLC0415 - importing pandas takes longer than most uses of this module

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
    """Compares two runs on their common cases and labels.

    >>> from autoseg.evaluation.scores import UNDEFINED
    >>> from autoseg.evaluation.summary import summarize
    >>> def run(*dice):
    ...     scores = [{"liver": UNDEFINED.model_copy(update={"dice": value})} for value in dice]
    ...     return summarize([CaseResult(name=f"case_{n}", scores=s) for n, s in enumerate(scores)], ["liver"])
    >>> row = compare_summaries(run(0.5, 0.6, 0.7), run(0.6, 0.8, 0.7), names=("a", "b")).rows[0]
    >>> row.label, row.metric, round(row.difference, 3), (row.wins, row.losses, row.ties)
    ('mean foreground', 'dice', 0.1, (2, 0, 1))

    Args:
        first: Scores of the first run.
        second: Scores of the second run.
        names: Paths of the two runs, for the record.

    Raises:
        DatasetError: The runs have no case or no label in common, were compared with different references, or their
            NSD was measured at different tolerances.
    """
    first_cases, second_cases = (_group_results(run) for run in (first, second))
    common = tuple(name for name in first_cases if name in second_cases)
    labels = tuple(label for label in first.mean if label in second.mean)
    if not common or not labels:
        raise DatasetError("the two runs have no case or no label in common", "compare runs on the same dataset")
    pairs = [pair for name in common for pair in zip(first_cases[name], second_cases[name], strict=False)]
    _check_references(pairs, labels)
    _check_tolerances(first, second)
    resamples = draw_resamples(len(common), np.random.default_rng(SEED))
    columns = [_compare_metric(name, pairs, labels, resamples) for name in METRICS]
    return Comparison(
        first=names[0],
        second=names[1],
        tolerance_mm=first.tolerance_mm,
        cases=common,
        only_first=_list_missing(first_cases, second_cases) + _list_missing(first.mean, second.mean),
        only_second=_list_missing(second_cases, first_cases) + _list_missing(second.mean, first.mean),
        rows=tuple(row for label_rows in zip(*columns, strict=True) for row in label_rows if row.cases),
    )


def _group_results(run: Summary) -> dict[str, list[CaseResult]]:
    """Returns the results of each case: several, in the order of the repeats, if a case was held out several times."""
    results: dict[str, list[CaseResult]] = {}
    for case in run.cases:
        results.setdefault(compose(case.name), []).append(case)
    return results


def _compare_metric(
    name: str, pairs: Sequence[tuple[CaseResult, CaseResult]], labels: Sequence[str], resamples: NDArray[np.float64]
) -> list[PairedScores]:
    """Returns the row of the foreground, then the row of each label.

    Args:
        name: Name of the metric.
        pairs: Results of each case in both runs; several of a case that was judged several times.
        labels: Names of the labels.
        resamples: Bootstrap resamples, shape (resamples, cases).
    """
    metric = METRICS[name]
    values = np.array([[[getattr(run.scores[label], name) for label in labels] for run in pair] for pair in pairs])
    values = np.abs(values) if metric.best == "zero" else values
    undefined = np.isnan(values).any(axis=1, keepdims=True)  # in one run, or in both
    values = np.where(undefined, np.nan, values)
    values = average_repeats(values, [first.name for first, _ in pairs])
    differences = values[:, 1] - values[:, 0]  # (cases, labels)
    intervals, interval = bootstrap_means(differences, resamples)
    rows = []
    for column, label in enumerate(labels):
        first, second = (mean_of_defined(values[:, run, column]) for run in (0, 1))
        rows.append(_row(label, name, (first, second), intervals[column], differences[:, column]))
    first, second = mean_of_defined(row.first for row in rows), mean_of_defined(row.second for row in rows)
    case_means = np.array([mean_of_defined(of_labels) for of_labels in differences])
    return [_row(FOREGROUND, name, (first, second), interval, case_means), *rows]


def _row(
    label: str, name: str, means: tuple[float, float], interval: tuple[float, float], differences: NDArray[np.float64]
) -> PairedScores:
    defined = differences[~np.isnan(differences)]
    gains = defined if METRICS[name].best == "highest" else -defined
    return PairedScores(
        label=label,
        metric=name,
        cases=len(defined),
        first=means[0],
        second=means[1],
        difference=means[1] - means[0],
        interval=interval,
        p_value=signed_rank_p(defined.tolist()),
        wins=int(np.count_nonzero(gains > 0)),
        losses=int(np.count_nonzero(gains < 0)),
        ties=int(np.count_nonzero(gains == 0)),
    )


def _check_references(pairs: Sequence[tuple[CaseResult, CaseResult]], labels: Sequence[str]) -> None:
    for first, second in pairs:
        for label in labels:
            voxels = [run.scores[label].true_positive + run.scores[label].false_negative for run in (first, second)]
            if voxels[0] != voxels[1]:
                raise DatasetError(
                    f"case {first.name!r}: the references of the two runs differ: "
                    f"{label!r} has {voxels[0]} and {voxels[1]} voxels",
                    "evaluate both with the same references",
                )


def _check_tolerances(first: Summary, second: Summary) -> None:
    first_mm, second_mm = first.tolerance_mm, second.tolerance_mm
    if not np.isnan([first_mm, second_mm]).any() and first_mm != second_mm:
        raise DatasetError(
            f"NSD of the two runs was measured at {first_mm:g} and at {second_mm:g} mm",
            "evaluate both with the same --tolerance",
        )


def _list_missing(names: Iterable[str], others: Container[str]) -> tuple[str, ...]:
    """Lists the names that are not among the others."""
    return tuple(name for name in names if name not in others)
