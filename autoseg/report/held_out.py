"""Held-out cases of trained folds, each read once: what was taken for what, and a picture of the errors."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import Case, Dataset
from autoseg.errors import AutosegError
from autoseg.evaluation.summary import CaseResult, summary_file
from autoseg.imaging.image_files import read_image
from autoseg.imaging.label_files import load_result
from autoseg.model_selection.held_out_cases import pair_with_label
from autoseg.models.best_model import MemberName
from autoseg.report.confusion import count_confusion
from autoseg.report.error_pictures import ComparedMaps, draw_errors
from autoseg.report.model_runs import ModelRun
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads
from autoseg.workspace import Fold

MOST_PICTURES = 400
"""Cases of a configuration, from the worst, of which a picture is drawn. Decision: those that follow are good ones, and
nobody looks at so many."""

CaseKey = tuple[MemberName, Fold, str, int]
"""Configuration, fold and name of a case, and when its fold was validated, in nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedCase:
    """A held-out case of a fold.

    Attributes:
        member: The configuration.
        fold: The fold that held it out.
        result: Its scores.
        picture: Its errors, see `error_pictures.draw_errors`; empty if it was not drawn.
        confusion: See `confusion.count_confusion`; None if the files could not be read.
        problem: Why they could not be.
    """

    member: MemberName
    fold: Fold
    result: CaseResult
    picture: bytes = b""
    confusion: NDArray[np.float64] | None = None
    problem: str = ""

    @property
    def key(self) -> str:
        """What tells the case from those of other configurations and folds, in a page."""
        return f"{self.member} {self.fold} {self.result.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A case to read: its scores, its files, and whether a picture is drawn."""

    run: ModelRun
    fold: Fold
    result: CaseResult
    case: Case | None
    draws: bool

    @property
    def name(self) -> str:
        """Name of the case, for messages."""
        return self.result.name


def examine_cases(
    dataset: Dataset,
    runs: Sequence[ModelRun],
    reporter: Reporter,
    known: MutableMapping[CaseKey, ExaminedCase] | None = None,
) -> list[ExaminedCase]:
    """Reads the held-out cases of all folds; what cannot be read is listed with the reason, and ends nothing.

    Args:
        dataset: The dataset with the scans and labels of the cases.
        runs: The trained configurations.
        reporter: Shows progress.
        known: What earlier calls examined, which is not read again; new cases are added.

    Returns:
        The cases, from the worst to the best mean Dice; those whose Dice is undefined come last.
    """
    known = {} if known is None else known
    tasks = {key: task for run in runs for key, task in _list_tasks(dataset, run).items()}
    new = {key: task for key, task in tasks.items() if key not in known}

    def work(task: _Task) -> ExaminedCase:
        return _examine(task, dataset)

    results = map_in_threads(work, list(new.values()), title="reading held-out cases", reporter=reporter)
    for (key, task), result in zip(new.items(), results, strict=True):
        known[key] = _say_problem(task, result) if isinstance(result, AutosegError) else result
    return sorted((known[key] for key in tasks), key=_rank)


def _list_tasks(dataset: Dataset, run: ModelRun) -> Mapping[CaseKey, _Task]:
    cases = {case.name: case for case in dataset.cases}
    drawn = set(run.summary.ranked()[:MOST_PICTURES]) if run.summary else set()
    tasks = {}
    for fold, result in run.cases:
        validated_at = summary_file(run.model.validation(fold)).stat().st_mtime_ns
        tasks[run.member, fold, result.name, validated_at] = _Task(
            run=run, fold=fold, result=result, case=cases.get(result.name), draws=result.name in drawn
        )
    return tasks


def _examine(task: _Task, dataset: Dataset) -> ExaminedCase:
    run, case, info = task.run, task.case, dataset.info
    if case is None:
        return _say_problem(task, f"the dataset has no case {task.name!r} any more")
    path = run.model.validation(task.fold) / task.result.prediction_file
    segmented = pair_with_label(case, (path, *load_result(path, info.targets)), info)
    picture = b""
    if task.draws:
        maps = ComparedMaps(
            reference=segmented.reference, predictions=[segmented.prediction], targets=segmented.targets
        )
        picture = draw_errors(read_image(case.images, case.time_point), maps)
    return ExaminedCase(
        member=run.member,
        fold=task.fold,
        result=task.result,
        picture=picture,
        confusion=count_confusion(segmented),
    )


def _say_problem(task: _Task, problem: AutosegError | str) -> ExaminedCase:
    return ExaminedCase(member=task.run.member, fold=task.fold, result=task.result, problem=str(problem))


def _rank(case: ExaminedCase) -> tuple[bool, float, str, str, str]:
    dice = case.result.mean_dice
    undefined = bool(np.isnan(dice))
    return undefined, 0.0 if undefined else dice, case.result.name, case.member, str(case.fold)
