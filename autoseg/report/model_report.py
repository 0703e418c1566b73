"""The report of trained configurations: how they learned, how good they are, and where they fail."""

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.evaluation.overlay import label_colour
from autoseg.evaluation.repeats import describe_repeats
from autoseg.evaluation.scores import METRICS
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.models.best_model import BestModel
from autoseg.models.calibration import Calibration, load_calibration
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.model_card import write_card
from autoseg.models.model_facts import HeldOutScores, MemberFacts, ModelFacts
from autoseg.planning.plan import Plan
from autoseg.report.calibration_charts import draw_calibration
from autoseg.report.charts import Chart
from autoseg.report.confusion import Confusion, summarize_confusion
from autoseg.report.curves import draw_curves
from autoseg.report.error_pictures import ERRORS
from autoseg.report.failure_score import FailureScore, judge_agreement
from autoseg.report.held_out import CaseKey, ExaminedCase, examine_cases
from autoseg.report.histograms import Histogram, make_histogram
from autoseg.report.markdown import read_blocks
from autoseg.report.model_runs import ModelRun, count_states
from autoseg.report.page import render_page
from autoseg.report.score_rows import SHOWN, LabelRow, find_columns, make_case_row, make_label_rows
from autoseg.report.viewer import ViewedCase, Viewer, make_viewer
from autoseg.runtime.reporting import Reporter

PICTURE_BYTES = 10 * 2**20
"""Bytes of all pictures of a page. Decision: a page of 15 MB still opens at once and fits into an e-mail."""

WORST = 8
"""Cases at the top of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What a report says about the trained configurations of a dataset.

    Attributes:
        runs: The configurations, the best first.
        cases: The held-out cases of all of them, the worst first; pictures that would make the page too large are
            empty.
        best: What `find_best` decided, if it ran.
        card: Text of the model card; empty if nothing is trained to its end.
    """

    runs: Sequence[ModelRun]
    cases: Sequence[ExaminedCase]
    best: BestModel | None
    card: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """What a page shows of a configuration: its scores, curves, distributions, confusions and warnings."""

    run: ModelRun
    label_rows: Sequence[LabelRow]
    curves: Sequence[Chart]
    histograms: Sequence[Histogram]
    confusion: Confusion | None
    failure_score: FailureScore | None
    calibration: Calibration | None
    reliability: Sequence[Chart]
    repeats: str


def examine_model(
    dataset: Dataset,
    runs: Sequence[ModelRun],
    best: BestModel | None,
    reporter: Reporter,
    known: MutableMapping[CaseKey, ExaminedCase] | None = None,
) -> ModelReport:
    """Reads every held-out case once, and writes the model card.

    Args:
        dataset: The dataset with the scans and labels.
        runs: The configurations, from `model_runs.find_runs`.
        best: What `find_best` decided, if it ran.
        reporter: Shows progress.
        known: See `held_out.examine_cases`; a page that is written again and again passes the same mapping.
    """
    cases = examine_cases(dataset, runs, reporter, known)
    return ModelReport(runs=runs, cases=_limit_pictures(cases), best=best, card=_write_card(dataset, runs, best))


def make_model_viewer(
    viewed: Sequence[ViewedCase], info: DatasetInfo, report: ModelReport, reporter: Reporter
) -> Viewer | None:
    """Makes the viewer of a report; the worst cases get room in the page first."""
    return make_viewer(
        viewed,
        info.targets.structures,
        first=[case.key for case in report.cases],
        other_bytes=sum(len(case.picture) for case in report.cases),
        reporter=reporter,
    )


def render_model_report(
    name: str, info: DatasetInfo, report: ModelReport, viewer: Viewer | None = None, served_by: str = ""
) -> str:
    """Returns the page of a report.

    Args:
        name: Name of the dataset.
        info: The content of dataset.json.
        report: What was found.
        viewer: Shows the volumes of a held-out case; None if there are none.
        served_by: The command that serves the page with all volumes.
    """
    structures = list(info.targets.structures)
    plans = {run.plan.model_dump_json(): run.plan for run in report.runs}
    values: dict[str, Any] = {
        "title": f"{name}: model",
        "dataset": name,
        "report": report,
        "structures": [(structure, label_colour(number)) for number, structure in enumerate(structures, start=1)],
        "columns": find_columns(structures),
        "metrics": [METRICS[metric].title for metric in SHOWN],
        "views": [_view(run, report.cases, info) for run in report.runs],
        "rows": [make_case_row(case) for case in report.cases],
        "worst": WORST,
        "errors": ERRORS,
        "states": count_states(report.runs),
        "has_agreement": any(not math.isnan(case.result.agreement) for case in report.cases),
        "several": len(report.runs) > 1,
        "reasons_of_plan": _list_reasons(list(plans.values())),
        "card": read_blocks(report.card),
        "pictures": sum(bool(case.picture) for case in report.cases),
        "viewer": viewer,
        "served_by": served_by,
    }
    return render_page("model.html", values)


def _view(run: ModelRun, cases: Sequence[ExaminedCase], info: DatasetInfo) -> RunView:
    own = [case for case in cases if case.member == run.member]
    drawn = {
        label: make_histogram(f"Dice of {label}", [case.result.scores[label].dice for case in own])
        for label in find_columns(info.targets.names)
    }
    volumes = [scores.reference_volume_mm3 for case in own for scores in case.result.scores.values()]
    matrices = [case.confusion for case in own if case.confusion is not None]
    calibration = load_calibration(run.model)
    return RunView(
        run=run,
        calibration=calibration,
        reliability=[] if calibration is None else draw_calibration(calibration),
        label_rows=make_label_rows(run.summary, own) if run.summary else (),
        curves=draw_curves(run),
        histograms=[histogram for histogram in drawn.values() if histogram is not None],
        confusion=summarize_confusion(matrices, info.targets, planes=all(map(math.isnan, volumes))),
        failure_score=judge_agreement([case.result for case in own]),
        repeats=describe_repeats(run.summary.repeats) if run.summary and run.summary.repeats else "",
    )


def _limit_pictures(cases: Sequence[ExaminedCase]) -> list[ExaminedCase]:
    """Removes the pictures that would make the page too large; the worst cases keep theirs."""
    kept, total = [], 0
    for case in cases:
        total += len(case.picture)
        kept.append(case if total <= PICTURE_BYTES else replace(case, picture=b""))
    return kept


def _list_reasons(plans: Sequence[Plan]) -> Mapping[str, Sequence[str]]:
    """Returns the reasons of each plan, by its title."""
    if len(plans) == 1:
        return {"": plans[0].why}
    return {f"plan {number}": plan.why for number, plan in enumerate(plans, start=1)}


def _write_card(dataset: Dataset, runs: Sequence[ModelRun], best: BestModel | None) -> str:
    """Writes the card of what predicts: the choice of `find_best`, else the best configuration that is trained."""
    trained = {run.member: run for run in runs if run.model.trained_folds()}
    chosen = [trained[name] for name in (best.configurations if best else ()) if name in trained]
    chosen = chosen or list(trained.values())[:1]
    if not chosen:
        return ""
    members = [_gather_member(run) for run in chosen]
    facts = ModelFacts(
        name=dataset.name,
        members=members,
        scores=members[0].scores if len(members) == 1 else None,
        rules=best.rules if best else members[0].rules,
        cases=len(dataset.cases),
    )
    return write_card(facts)


def _gather_member(run: ModelRun) -> MemberFacts:
    folds, rules = run.model.trained_folds(), run.model.postprocessing
    return MemberFacts(
        name=run.member,
        checkpoint=load_checkpoint(run.model.checkpoint(folds[0])),
        folds=folds,
        scores=None if run.summary is None else HeldOutScores.of(run.summary),
        rules=PostprocessingRules.load(rules) if rules.is_file() else NO_RULES,
    )
