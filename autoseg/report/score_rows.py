"""Scores as they stand in the tables of a page: means with intervals, and held-out cases with remarks."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoseg.evaluation.repeats import mean_of_defined
from autoseg.evaluation.scores import METRICS, LabelScores
from autoseg.evaluation.summary import CaseResult, MeanScores, Summary
from autoseg.report.held_out import ExaminedCase

SHOWN = ("dice", "nsd", "hd95_mm")
"""Metrics of a model that have a column: overlap, surfaces, and the largest errors."""

MOST_COLUMNS = 6
"""Labels up to which each has a column in the table of cases; of more, the lowest is named."""

LARGE_VOLUME_ERROR = 0.5
"""Share of the true volume from which on an error of the volume is remarked. Decision: half or half as much again
changes what is concluded from a volume."""

NONE = "–"  # noqa: RUF001


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanCell:
    """A mean over the cases.

    Attributes:
        text: The mean.
        interval: Its 95 % interval in words; empty if it is undefined.
        left, width, middle: Place of the interval and of the mean on a line from 0 to 1; None for metrics without a
            largest value.
        value: The mean, to sort by.
    """

    text: str
    interval: str
    value: float
    left: float | None = None
    width: float | None = None
    middle: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """A row of the table of scores.

    Attributes:
        label: Name of the label, or of the mean over them.
        cases: Number of cases in which its Dice is defined.
        cells: The metrics of `SHOWN`.
        lowest: Dice of the worst case, as a text.
        lowest_case: Name of that case; empty if there is none.
        lowest_key: Its key, see `ExaminedCase.key`.
    """

    label: str
    cases: int
    cells: tuple[MeanCell, ...]
    lowest: str
    lowest_case: str
    lowest_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow:
    """A row of the table of cases.

    Attributes:
        case: The case.
        means: For each metric of `SHOWN`, the mean over its labels as a number and a text.
        labels: For each label that has a column, its Dice as a number and a text.
        lowest: Where labels have no columns, the label of the lowest Dice with that.
        agreement: How far the votes of the model agree, as a number and a text.
        remarks: What is striking.
        details: The scores of each label, for the script of the page.
    """

    case: ExaminedCase
    means: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]
    lowest: str
    agreement: tuple[float, str]
    remarks: tuple[str, ...]
    details: str


def make_label_rows(summary: Summary, cases: Sequence[ExaminedCase]) -> list[LabelRow]:
    """Returns the row of the mean over the labels, if there are several, then that of each label.

    Args:
        summary: The means of a configuration.
        cases: Its cases.
    """
    rows = []
    if len(summary.mean) > 1:
        ranked = [(case.result.mean_dice, case) for case in cases]
        rows.append(_make_label_row("mean of the labels", summary.foreground_mean, ranked))
    for label, scores in summary.mean.items():
        rows.append(_make_label_row(label, scores, [(case.result.scores[label].dice, case) for case in cases]))
    return rows


def make_case_row(case: ExaminedCase) -> CaseRow:
    """Returns the row of a held-out case."""
    scores = case.result.scores
    means = [(name, mean_of_defined(getattr(label, name) for label in scores.values())) for name in SHOWN]
    columns = scores if len(scores) <= MOST_COLUMNS else {}
    defined = {name: label.dice for name, label in scores.items() if not math.isnan(label.dice)}
    lowest = min(defined, key=lambda name: defined[name], default="")
    problem = (case.problem,) if case.problem else ()
    return CaseRow(
        case=case,
        means=tuple((_sortable(name, value), format_metric(name, value)) for name, value in means),
        labels=tuple((_sortable("dice", label.dice), format_metric("dice", label.dice)) for label in columns.values()),
        lowest=f"{lowest} {defined[lowest]:.3f}" if lowest else NONE,
        agreement=(_sortable("dice", case.result.agreement), format_metric("dice", case.result.agreement)),
        remarks=(*problem, *list_remarks(case.result)),
        details=make_details(case.result),
    )


def make_details(result: CaseResult) -> str:
    """Returns the scores of each label as JSON: the titles of the columns, and a row per label."""
    names = [*SHOWN, "reference_volume_mm3", "predicted_volume_mm3"]
    titles = ["label", *(METRICS[name].title for name in SHOWN), "true volume, mm³", "found volume, mm³"]
    rows = [
        [label, *(format_metric(name, getattr(scores, name)) for name in names)]
        for label, scores in result.scores.items()
    ]
    return json.dumps({"titles": titles, "rows": rows}, ensure_ascii=False)


def list_remarks(result: CaseResult) -> Iterator[str]:
    """Yields what is striking about the scores of a case.

    Example:
        >>> from autoseg.evaluation.scores import UNDEFINED
        >>> scores = UNDEFINED.model_copy(update={"dice": 0.0, "false_negative": 7})
        >>> list(list_remarks(CaseResult(name="a", scores={"liver": scores})))
        ['nothing of liver was found']
    """
    for label, scores in result.scores.items():
        if remark := _describe_failure(scores):
            yield remark.format(label)


def format_metric(name: str, value: float) -> str:
    """Returns a score as a text.

    Example:
        >>> format_metric("dice", 0.91234), format_metric("hd95_mm", 3.456), format_metric("reference_volume_mm3", 7.2)
        ('0.912', '3.46', '7')
    """
    if math.isnan(value):
        return NONE
    metric = METRICS.get(name)
    return f"{value:.0f}" if metric is None else f"{value * metric.scale:.{metric.digits}f}"


def _describe_failure(scores: LabelScores) -> str:
    present, found = scores.true_positive + scores.false_negative, scores.true_positive + scores.false_positive
    if present and not found:
        return "nothing of {} was found"
    if found and not present:
        return "{} was found where there is none"
    if present and abs(found - present) > LARGE_VOLUME_ERROR * present:
        percent = round(100 * abs(found / present - 1))
        return f"volume of {{}} is too {'large' if found > present else 'small'} by {percent} %"
    return ""


def _make_label_row(label: str, scores: MeanScores, dice: Sequence[tuple[float, ExaminedCase]]) -> LabelRow:
    defined = [(value, case) for value, case in dice if not math.isnan(value)]
    worst = min(defined, key=lambda pair: (pair[0], pair[1].key), default=None)
    return LabelRow(
        label=label,
        cases=len(defined),
        cells=tuple(_make_mean_cell(name, scores) for name in SHOWN),
        lowest=NONE if worst is None else f"{worst[0]:.3f}",
        lowest_case="" if worst is None else worst[1].result.name,
        lowest_key="" if worst is None else worst[1].key,
    )


def _make_mean_cell(name: str, scores: MeanScores) -> MeanCell:
    value = getattr(scores, name)
    low, high = scores.intervals.get(name, (math.nan, math.nan))
    known = not math.isnan(low)
    bounded = METRICS[name].best == "highest" and known and not math.isnan(value)
    return MeanCell(
        text=format_metric(name, value),
        interval=f"{format_metric(name, low)} to {format_metric(name, high)}" if known else "",
        value=_sortable(name, value),
        left=low if bounded else None,
        width=high - low if bounded else None,
        middle=value if bounded else None,
    )


def _sortable(name: str, value: float) -> float:
    """Returns a number to sort by: what is undefined lies beyond the best."""
    if not math.isnan(value):
        return value
    return 2.0 if METRICS[name].best == "highest" else -1.0


def find_columns(labels: Sequence[str]) -> list[str]:
    """Returns the labels that have a column in the table of cases; none if there are too many."""
    return list(labels) if len(labels) <= MOST_COLUMNS else []
