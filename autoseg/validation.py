"""Trained folds, judged on the cases that they never saw, one fold at a time and then all together."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.artifact import atomic_folder
from autoseg.checkpoint import Checkpoint
from autoseg.data.store import StoredCase
from autoseg.dataset import Case, Dataset
from autoseg.errors import DatasetError
from autoseg.evaluation.overlay import draw_overlay
from autoseg.evaluation.rules import find_rules
from autoseg.evaluation.summary import CaseResult, Summary, evaluate_case, summarize
from autoseg.folds import FoldJob
from autoseg.imageio import read_image, read_label_map, write_label_map
from autoseg.inference.case import make_segmenter
from autoseg.postprocessing import NO_RULES, PostprocessingRules
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.reporting import Reporter
from autoseg.scans import result_ending
from autoseg.workspace import Fold, ModelFolder


def is_validated(model: ModelFolder, fold: Fold) -> bool:
    """Whether a fold was judged; its scores come last and go with it, so they are never those of other weights."""
    return (model.validation(fold) / "summary.json").is_file()


def validate(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter) -> Summary:
    """Segments the held-out cases whole and compares them with their labels.

    Writes a segmentation of each in the file type of its image, summary.json and summary.csv, and pictures of the worst
    and of the median case, all at once when all are done.

    Args:
        job: The fold.
        checkpoint: Its weights.
        reporter: Shows progress.

    Returns:
        The scores, before postprocessing.
    """
    segmenter = make_segmenter([checkpoint], NO_RULES, job.device)
    labels = job.dataset.info.foreground
    cases = job.dataset.only(job.split.validation).cases
    results: list[CaseResult] = []
    with atomic_folder(job.model.validation(job.fold)) as folder, reporter.task("validating", len(cases)) as task:
        for case in cases:
            stored = StoredCase.open(job.cases_folder, case.name)
            image, _ = stored.load()
            prepared = PreprocessedCase(image=image, label=None, record=stored.record)
            segmentation = segmenter.predict_preprocessed(prepared, on_progress=task.advance).segmentation()
            path = folder / (case.name + result_ending(case))
            write_label_map(path, segmentation)
            results.append(
                evaluate_case(
                    case.name,
                    read_label_map(_label(case)),
                    segmentation,
                    labels,
                    reference_file=_label(case).name,
                    prediction_file=path.name,
                )
            )
        summary = summarize(results, labels)
        summary.write(folder)
        ranked = summary.ranked()
        for word, name in {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2]}.items():
            case = next(case for case in cases if case.name == name)
            _draw_case(case, folder, f"overlay_{word}.png", summary, labels)
    return summary


def conclude(dataset: Dataset, model: ModelFolder) -> tuple[PostprocessingRules, Summary]:
    """Pools the held-out cases of all validated folds: writes the postprocessing that helps, and the pooled summary.

    The rules go into postprocessing.json, where prediction finds them; the scores are those before postprocessing.
    """
    labels = dataset.info.foreground
    validated = [fold for fold in model.trained_folds() if is_validated(model, fold)]
    summaries = {fold: Summary.load(model.validation(fold) / "summary.json") for fold in validated}
    references = {case.name: _label(case) for case in dataset.cases}

    def pairs() -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
        for fold, summary in summaries.items():
            for result in summary.cases:
                prediction = model.validation(fold) / result.prediction_file
                yield read_label_map(references[result.name]).array, read_label_map(prediction).array

    rules = find_rules(pairs(), labels)
    rules.save(model.postprocessing)
    pooled = summarize([result for summary in summaries.values() for result in summary.cases], labels)
    pooled.write(model.path)
    return rules, pooled


def _draw_case(case: Case, folder: Path, picture: str, summary: Summary, labels: dict[str, int]) -> None:
    """Draws the overlay of one evaluated case into the folder of its segmentation."""
    result = next(result for result in summary.cases if result.name == case.name)
    draw_overlay(
        folder / picture,
        read_image(case.images),
        read_label_map(_label(case)),
        read_label_map(folder / result.prediction_file),
        title=case.name if math.isnan(result.mean_dice) else f"{case.name}: mean Dice {result.mean_dice:.3f}",
        labels=labels,
    )


def _label(case: Case) -> Path:
    if case.label is None:
        raise DatasetError(f"case {case.name!r} has no label", "only labelled cases can be trained on or judged")
    return case.label
