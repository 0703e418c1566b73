"""The report of two runs on the same cases: what changed, in which label and in which case."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.names import compose
from autoseg.errors import AutosegError
from autoseg.evaluation.overlay import label_colour
from autoseg.evaluation.paired import FOREGROUND, Comparison, PairedScores
from autoseg.evaluation.repeats import mean_of_defined
from autoseg.evaluation.scores import METRICS
from autoseg.evaluation.summary import CaseResult, Summary
from autoseg.report.charts import Chart, Frame, Series, make_chart
from autoseg.report.held_out import MOST_PICTURES
from autoseg.report.model_report import PICTURE_BYTES
from autoseg.report.page import render_page
from autoseg.report.run_files import cases_by_name, draw_difference
from autoseg.report.score_rows import NONE, SHOWN, find_columns, format_metric
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads

SHOWN_CHANGES = 4
"""Cases among the worst changes, and among the best, at the top of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseChange:
    """A case of both runs.

    Attributes:
        name: Its name.
        results: Its scores in both runs.
        dice: Mean Dice of both runs, over the labels that are defined in both.
        labels: Name of each label to the change of its Dice; NaN if it is not defined in both.
        picture: Both segmentations, where they differ the most; empty if it was not drawn.
        problem: Why it could not be drawn.
    """

    name: str
    results: tuple[CaseResult, CaseResult]
    dice: tuple[float, float]
    labels: Mapping[str, float]
    picture: bytes = b""
    problem: str = ""

    @property
    def change(self) -> float:
        """Dice of the second run minus that of the first; NaN if no label is defined in both."""
        return self.dice[1] - self.dice[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScores:
    """A run: the folder of its summary, and the summary."""

    folder: Path
    summary: Summary


def make_comparison_page(
    comparison: Comparison, runs: Sequence[RunScores], dataset: Dataset | None, reporter: Reporter
) -> str:
    """Returns the page of two runs.

    Args:
        comparison: The two runs, compared.
        runs: The two runs.
        dataset: The dataset with the scans of the cases; None if it is not known, then there are no pictures.
        reporter: Shows progress.
    """
    labels = [label for label in runs[0].summary.mean if label in runs[1].summary.mean]
    changes = list_changes(runs, labels)
    if dataset is not None:
        changes = draw_changes(changes, runs, dataset, reporter)
    return render_comparison(comparison, changes, has_scans=dataset is not None)


def list_changes(runs: Sequence[RunScores], labels: Sequence[str]) -> list[CaseChange]:
    """Lists the cases of both runs, from the worst change to the best; cases without one come last.

    Args:
        runs: The two runs.
        labels: Labels of both.
    """
    first, second = ({compose(case.name): case for case in run.summary.cases} for run in runs)
    changes = [_compare((first[name], second[name]), labels) for name in first if name in second]
    return sorted(changes, key=lambda case: (math.isnan(case.change), 0 if math.isnan(case.change) else case.change))


def draw_changes(
    changes: Sequence[CaseChange], runs: Sequence[RunScores], dataset: Dataset, reporter: Reporter
) -> list[CaseChange]:
    """Draws the cases that changed the most, either way, as far as the page may grow.

    Args:
        changes: The cases.
        runs: The two runs.
        dataset: The dataset with their scans.
        reporter: Shows progress.

    Returns:
        The cases in the same order; those that cannot be drawn say why.
    """
    cases = cases_by_name(dataset)
    order = sorted(changes, key=lambda case: -abs(case.change) if not math.isnan(case.change) else 0.0)
    drawn = order[:MOST_PICTURES]

    def work(change: CaseChange) -> CaseChange:
        case = cases.get(compose(change.name))
        if case is None:
            return replace(change, problem=f"{dataset.name} has no such case")
        sources = [(run.folder, result) for run, result in zip(runs, change.results, strict=True)]
        return replace(change, picture=draw_difference(case, sources, dataset))

    results = map_in_threads(work, drawn, title="drawing cases", reporter=reporter)
    pictures: dict[str, CaseChange] = {}
    total = 0
    for change, result in zip(drawn, results, strict=True):
        shown = replace(change, problem=str(result)) if isinstance(result, AutosegError) else result
        total += len(shown.picture)
        pictures[change.name] = shown if total <= PICTURE_BYTES else replace(shown, picture=b"")
    return [pictures.get(change.name, change) for change in changes]


def render_comparison(comparison: Comparison, changes: Sequence[CaseChange], *, has_scans: bool) -> str:
    """Returns the page.

    Args:
        comparison: The two runs, compared.
        changes: Their cases, from `list_changes`.
        has_scans: Whether the scans were at hand; else the page says how to show them.
    """
    labels = list(dict.fromkeys(row.label for row in comparison.rows if row.label != FOREGROUND))
    shown = [change for change in changes if not math.isnan(change.change)]
    worse = [change for change in shown if change.change < 0]
    better = [change for change in reversed(shown) if change.change > 0]
    values: dict[str, Any] = {
        "title": "Comparison of two runs",
        "comparison": comparison,
        "rows": [_describe_row(row) for row in comparison.rows if row.label != FOREGROUND or len(labels) > 1],
        "labels": labels,
        "columns": find_columns(labels) if len(labels) > 1 else [],
        "structures": [(label, label_colour(number)) for number, label in enumerate(labels, start=1)],
        "changes": changes,
        "details": {change.name: _make_details(change) for change in changes},
        "worse": worse[:SHOWN_CHANGES],
        "better": better[:SHOWN_CHANGES],
        "count_of": {"worse": len(worse), "better": len(better)},
        "overall": next((row for row in comparison.rows if row.metric == "dice"), None),
        "chart_of": _draw_scatter(shown),
        "has_scans": has_scans,
        "pictures": sum(bool(change.picture) for change in changes),
        "undefined": NONE,
    }
    return render_page("comparison.html", values)


def _compare(results: tuple[CaseResult, CaseResult], labels: Sequence[str]) -> CaseChange:
    first, second = (result.scores for result in results)
    changes = {label: second[label].dice - first[label].dice for label in labels}
    defined = [label for label, change in changes.items() if not math.isnan(change)]
    means = [mean_of_defined(scores[label].dice for label in defined) for scores in (first, second)]
    return CaseChange(name=results[0].name, results=results, dice=(means[0], means[1]), labels=changes)


def _describe_row(row: PairedScores) -> dict[str, Any]:
    """Returns the texts of a row, and whether its interval lies on one side of zero."""
    metric = METRICS[row.metric]
    low, high = row.interval
    sign = {"highest": 1, "lowest": -1, "zero": -1}[metric.best]
    verdict = ""
    if low > 0 or high < 0:
        verdict = "better" if (low > 0) == (sign > 0) else "worse"
    return {
        "label": row.label,
        "metric": metric.title,
        "first": format_metric(row.metric, row.first),
        "second": format_metric(row.metric, row.second),
        "difference": _signed(row.metric, row.difference),
        "interval": NONE if math.isnan(low) else f"{_signed(row.metric, low)} to {_signed(row.metric, high)}",
        "p": NONE if math.isnan(row.p_value) else f"{row.p_value:.2g}",
        "counts": (row.wins, row.losses, row.ties),
        "verdict": verdict,
    }


def _signed(metric: str, value: float) -> str:
    text = format_metric(metric, value)
    return text if text == NONE or value <= 0 else f"+{text}"


def _make_details(change: CaseChange) -> str:
    """Returns the scores of each label in both runs as JSON, as the script of the page reads them."""
    titles = ["label", *(f"{METRICS[name].title}, {run}" for name in SHOWN for run in "AB")]
    rows = [
        [
            label,
            *(format_metric(name, getattr(result.scores[label], name)) for name in SHOWN for result in change.results),
        ]
        for label in change.labels
    ]
    return json.dumps({"titles": titles, "rows": rows}, ensure_ascii=False)


def _draw_scatter(changes: Sequence[CaseChange]) -> Chart | None:
    points = [change.dice for change in changes]
    low = min((value for point in points for value in point), default=0.0)
    frame = Frame(
        x_title="mean Dice of A",
        y_title="mean Dice of B",
        x_range=(low, 1.0),
        y_range=(low, 1.0),
        dots=True,
        diagonal=True,
    )
    names = [f"{change.name}: {change.dice[0]:.3f}, {change.dice[1]:.3f}" for change in changes]
    return make_chart("Dice of each case in both runs", [Series(name="cases", points=points, names=names)], frame)
