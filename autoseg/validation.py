"""Trained folds, judged on the cases that they never saw, one fold at a time and then all together."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.artifact import atomic_folder
from autoseg.checkpoint import Checkpoint
from autoseg.data.previous import base_of, split_previous
from autoseg.data.store import StoredCase
from autoseg.dataset import Case, Dataset
from autoseg.errors import DatasetError
from autoseg.evaluation.overlay import draw_overlay
from autoseg.evaluation.rules import find_rules
from autoseg.evaluation.summary import CaseResult, Summary, evaluate_case, summarize
from autoseg.folds import FoldJob
from autoseg.imageio import read_image, read_label_map
from autoseg.inference.case import make_segmenter, show_previous
from autoseg.inference.results import load_result, save_result
from autoseg.postprocessing import NO_RULES, PostprocessingRules
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.reporting import Reporter
from autoseg.scans import result_ending
from autoseg.targets import Targets
from autoseg.workspace import Fold, ModelFolder


def is_validated(model: ModelFolder, fold: Fold) -> bool:
    """Whether a fold was judged; its scores come last and go with it, so they are never those of other weights."""
    return (model.validation(fold) / "summary.json").is_file()


def judge(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter) -> None:
    """Validates a fold, unless it holds nothing out or is validated already, and says how good it is.

    Of several ranks the first one does that, and the others wait.
    """
    if job.ranks.leads and job.split.validation and not is_validated(job.model, job.fold):
        scores = validate(job, checkpoint, reporter)
        reporter.say(f"fold {job.fold}: mean Dice of whole held-out cases {scores.foreground_mean.dice:.4f}")
    job.ranks.wait()


def validate(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter) -> Summary:
    """Segments the held-out cases whole and compares them with their labels.

    Writes a segmentation of each in the file type of its image, or a folder of masks, summary.json and summary.csv, and
    pictures of the worst and of the median case, all at once when all are done.

    Args:
        job: The fold.
        checkpoint: Its weights.
        reporter: Shows progress.

    Returns:
        The scores, before postprocessing.
    """
    segmenter = make_segmenter([checkpoint], NO_RULES, job.device)
    targets = job.dataset.info.targets
    cases = job.dataset.only(job.split.validation).cases
    results: list[CaseResult] = []
    with atomic_folder(job.model.validation(job.fold)) as folder, reporter.task("validating", len(cases)) as task:
        for case in cases:
            prediction = segmenter.predict_preprocessed(_load(job, case.name), on_progress=task.advance)
            path, segmentation, known = save_result(prediction, folder / (case.name + result_ending(case)))
            result = evaluate_case(
                case.name,
                read_label_map(_label(case)),
                segmentation,
                known,
                reference_file=_label(case).name,
                prediction_file=path.name,
            )
            results.append(result.without(job.dataset.info.unknown_in(case.name)))
        summary = summarize(results, targets.names)
        summary.write(folder)
        ranked = summary.ranked()
        for word, name in {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2]}.items():
            case = next(case for case in cases if case.name == name)
            _draw_case(case, folder, f"overlay_{word}.png", summary, targets)
    return summary


def _load(job: FoldJob, name: str) -> PreprocessedCase:
    """A preprocessed case; of a cascade, with the former segmentation, made when it was held out, as channels."""
    stored = StoredCase.open(job.cases_folder, name)
    prepared = PreprocessedCase(image=stored.load()[0], label=None, record=stored.record)
    if job.codes_folder is None:
        return prepared
    targets = job.dataset.info.targets
    codes = StoredCase.open(job.codes_folder, name).load_label()
    return show_previous(prepared, split_previous(codes, base_of(targets)), targets)


def conclude(dataset: Dataset, model: ModelFolder) -> tuple[PostprocessingRules, Summary]:
    """Pools the held-out cases of all validated folds: writes the postprocessing that helps, and the pooled summary.

    The rules go into postprocessing.json, where prediction finds them; the scores are those before postprocessing.
    """
    targets = dataset.info.targets
    validated = [fold for fold in model.trained_folds() if is_validated(model, fold)]
    summaries = {fold: Summary.load(model.validation(fold) / "summary.json") for fold in validated}
    references = {case.name: _label(case) for case in dataset.cases}

    def pairs() -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer], Targets]]:
        for fold, summary in summaries.items():
            for result in summary.cases:
                prediction, known = load_result(model.validation(fold) / result.prediction_file, targets)
                yield read_label_map(references[result.name]).array, prediction.array, known

    rules = find_rules(pairs(), targets)
    rules.save(model.postprocessing)
    pooled = summarize([result for summary in summaries.values() for result in summary.cases], targets.names)
    pooled.write(model.path)
    return rules, pooled


def _draw_case(case: Case, folder: Path, picture: str, summary: Summary, targets: Targets) -> None:
    """Draws the overlay of one evaluated case into the folder of its segmentation."""
    result = next(result for result in summary.cases if result.name == case.name)
    prediction, known = load_result(folder / result.prediction_file, targets)
    draw_overlay(
        folder / picture,
        read_image(case.images),
        read_label_map(_label(case)),
        prediction,
        title=case.name if math.isnan(result.mean_dice) else f"{case.name}: mean Dice {result.mean_dice:.3f}",
        targets=known,
    )


def _label(case: Case) -> Path:
    if case.label is None:
        raise DatasetError(f"case {case.name!r} has no label", "only labelled cases can be trained on or judged")
    return case.label
