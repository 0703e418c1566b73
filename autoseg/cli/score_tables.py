"""Tables of scores: the worst cases, means with confidence intervals, and the comparison of two runs.

Tables fit into 100 columns, and into 80 columns for a few labels with short names.
"""

import math
from textwrap import fill
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from autoseg.cli.terminal import console, print_whole
from autoseg.evaluation.paired import FOREGROUND
from autoseg.evaluation.repeats import describe_repeats
from autoseg.evaluation.scores import METRICS
from autoseg.runtime.reporting import list_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoseg.evaluation.paired import Comparison, PairedScores
    from autoseg.evaluation.summary import MeanScores, Summary

MOST_CASES = 20
MOST_COLUMNS = 6
WIDEST = 100
INTERVAL_WIDTH = 23  # of "0.877 (0.861 to 0.892)"
LABEL_WIDTH = 18  # longer names are wrapped
HEADING_WIDTH = 8  # longer headings are wrapped
TITLE_WIDTH = 18  # of "volume error, mm3"

# Metrics in tables with a row for each label. The first is shown with its interval; all are in the files.
SHORT = ("dice", "iou", "nsd", "hd95_mm", "assd_mm", "lesion_f1", "relative_volume_error")


def print_scores(summary: "Summary", *, title: str) -> None:
    """Prints Dice for each case and label, worst case first, and the means of all metrics.

    If there are too many labels for the columns of a table, each label has a row of means.
    """
    if len(summary.mean) <= MOST_COLUMNS:
        print_whole(_case_table(summary, title))
    shown = [*summary.mean.items(), *([(FOREGROUND, summary.foreground_mean)] if len(summary.mean) > 1 else [])]
    width = TITLE_WIDTH + sum(max(INTERVAL_WIDTH, len(name)) + 1 for name, _ in shown)
    print_whole(_metric_rows(summary, shown) if width <= WIDEST else _label_rows(summary, shown, title))
    foreground = summary.foreground_mean
    dice, iou = (_number(metric, getattr(foreground, metric)) for metric in ("dice", "iou"))
    console.print(f"mean foreground Dice {dice}, IoU {iou}")
    if summary.repeats:
        console.print(describe_repeats(summary.repeats))


def print_comparison(comparison: "Comparison") -> None:
    """Prints a row for each metric and label; with many labels, those of the foreground and Dice of each label."""
    console.print(f"A: {comparison.first}")
    console.print(f"B: {comparison.second}")
    for run, names in (("A", comparison.only_first), ("B", comparison.only_second)):
        if names:
            console.print(f"left out, since only {run} has them: {list_names(names)}")
    labels = list(dict.fromkeys(row.label for row in comparison.rows))
    labels = labels[1:] if len(labels) == 2 else labels  # one label is its own foreground
    table = _table(f"{_name_count(len(comparison.cases))} of both runs")
    table.add_column("")
    for heading in ("A", "B", "B minus A (95 % CI)", "p", "B better", "worse", "same"):
        table.add_column(heading, justify="right")
    if len(labels) <= MOST_COLUMNS + 1:
        for label in labels:
            _add_section(table, label, [row for row in comparison.rows if row.label == label], comparison.tolerance_mm)
    else:
        foreground = [row for row in comparison.rows if row.label == FOREGROUND]
        _add_section(table, FOREGROUND, foreground, comparison.tolerance_mm)
        table.add_section()
        for row in comparison.rows:
            if row.metric == "dice" and row.label != FOREGROUND:
                table.add_row(f"Dice of {row.label}", *_cells(row))
    print_whole(table)
    console.print("p: Wilcoxon's signed-rank test, for each row alone; volume errors without their sign")


def _case_table(summary: "Summary", title: str) -> Table:
    """Returns a table with a row per case and a column per label; of many cases, only the worst are listed."""
    count, shown = len(summary.cases), summary.ranked_cases()[:MOST_CASES]
    part = f", the worst {len(shown)} of {count}" if len(shown) < count else ""
    table = _table(f"{title}: Dice{part}", show_footer=True)
    table.add_column("case", footer="mean", overflow="fold")
    for label, mean in summary.mean.items():
        table.add_column(label, justify="right", footer=_number("dice", mean.dice), overflow="fold")
    for case in shown:
        table.add_row(case.name, *(_number("dice", case.scores[label].dice) for label in summary.mean))
    return table


def _metric_rows(summary: "Summary", shown: "Sequence[tuple[str, MeanScores]]") -> Table:
    """Returns a table of means and intervals with a row per metric and a column per label; empty rows are left out."""
    table = _table(f"means over {_count_cases(summary)} (95 % confidence intervals)")
    table.add_column("")
    for name, _ in shown:
        table.add_column(name, justify="right")
    for metric in METRICS:
        if not all(math.isnan(getattr(mean, metric)) for _, mean in shown):
            table.add_row(_title(metric, summary.tolerance_mm), *(_with_interval(metric, mean) for _, mean in shown))
    return table


def _label_rows(summary: "Summary", shown: "Sequence[tuple[str, MeanScores]]", title: str) -> Table:
    """Returns a table with a row per label and a column per metric; Dice is shown with its interval."""
    table = _table(f"{title}: means over {_count_cases(summary)} (95 % CI; all of them in summary.json)")
    table.add_column("label", overflow="fold", min_width=min(LABEL_WIDTH, max(len(name) for name, _ in shown)))
    for metric in SHORT:
        heading = fill(_title(metric, summary.tolerance_mm), HEADING_WIDTH)
        table.add_column(heading, justify="right", no_wrap=metric == "dice")
    for name, mean in shown:
        if name == FOREGROUND:
            table.add_section()
        others = (_number(metric, getattr(mean, metric)) for metric in SHORT[1:])
        table.add_row(name, _with_interval("dice", mean), *others)
    return table


def _add_section(table: Table, label: str, rows: "Sequence[PairedScores]", tolerance_mm: float) -> None:
    table.add_section()
    table.add_row(label, style="bold")
    for row in rows:
        table.add_row(f"  {_title(row.metric, tolerance_mm)}", *_cells(row))


def _cells(row: "PairedScores") -> tuple[str, ...]:
    first, second, difference, low, high = (
        _number(row.metric, value) for value in (row.first, row.second, row.difference, *row.interval)
    )
    p_value = "–" if math.isnan(row.p_value) else "< 0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"  # noqa: RUF001
    interval = "" if math.isnan(row.interval[0]) else f" ({low} to {high})"
    return first, second, difference + interval, p_value, str(row.wins), str(row.losses), str(row.ties)


def _table(title: str, *, show_footer: bool = False) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_footer=show_footer,
    )


def _title(metric: str, tolerance_mm: float) -> str:
    at = f" at {tolerance_mm:g} mm" if metric == "nsd" and not math.isnan(tolerance_mm) else ""
    return METRICS[metric].title + at


def _with_interval(metric: str, mean: "MeanScores") -> str:
    low, high = mean.intervals.get(metric, (math.nan, math.nan))
    interval = "" if math.isnan(low) else f" ({_number(metric, low)} to {_number(metric, high)})"
    return _number(metric, getattr(mean, metric)) + interval


def _number(metric: str, value: float) -> str:
    shown = METRICS[metric]
    return "–" if math.isnan(value) else f"{value * shown.scale:z.{shown.digits}f}"  # noqa: RUF001


def _count_cases(summary: "Summary") -> str:
    """Returns the number of cases, each of which may have been judged several times."""
    return _name_count(len({case.name for case in summary.cases}))


def _name_count(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"
