"""Trained folds, judged on the cases that they never saw, one fold at a time and then all together."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.scans import check_values, result_ending
from autoseg.errors import DatasetError
from autoseg.evaluation.overlay import draw_overlay
from autoseg.evaluation.postprocessing_search import HeldOut, find_rules
from autoseg.evaluation.summary import CaseResult, Summary, evaluate_case, summarize
from autoseg.imaging.files import read_image, read_label_map
from autoseg.imaging.label_encoding import CascadeCodes, code_base, decode_previous
from autoseg.imaging.label_files import load_result, save_result
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.inference.segmenter import Segmenter, make_segmenter, show_previous
from autoseg.models.checkpoint import Checkpoint
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.reporting import SILENT, Reporter, Task
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.training.fold_job import FoldJob
from autoseg.workspace import Fold, ModelFolder


def is_validated(model: ModelFolder, fold: Fold) -> bool:
    """Whether a fold was judged; its scores come last and go with it, so they are never those of other weights."""
    return (model.validation(fold) / "summary.json").is_file()


def judge(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter) -> None:
    """Validates a fold, unless it holds nothing out or is validated already, and says how good it is."""
    if job.split.validation and not job.ranks.broadcast(is_validated(job.model, job.fold)):
        reporter = reporter if job.ranks.is_main else SILENT
        scores = validate(job, checkpoint, reporter)
        reporter.say(f"fold {job.fold}: mean Dice of whole held-out cases {scores.foreground_mean.dice:.4f}")


def validate(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter) -> Summary:
    """Segments the held-out cases whole and compares them with their labels.

    Writes a segmentation of each in the file type of its image, or a folder of masks, summary.json and summary.csv, and
    pictures of the worst and of the median case, all at once when all are done. Several ranks share the cases.

    Args:
        job: The fold.
        checkpoint: Its weights.
        reporter: Shows progress.

    Returns:
        The scores, before postprocessing.
    """
    segmenter = make_segmenter([checkpoint], NO_RULES, job.device)
    targets, ranks = job.dataset.info.targets, job.ranks
    cases = job.dataset.only(job.split.validation).cases
    own = cases[ranks.number :: ranks.count]
    with _folder_of_all(job) as folder, reporter.task("validating", len(own)) as task:
        shares = ranks.all_gather([_judge_case(case, job, segmenter, folder, task) for case in own])
        results = {result.name: result for share in shares for result in share}
        summary = summarize([results[case.name] for case in cases], targets.names)
        if ranks.is_main:
            _describe(summary, cases, folder, targets)
    return summary


def validate_masks(dataset: Dataset, masks: Mapping[str, Path], folder: Path, reporter: Reporter) -> Summary:
    """Takes over segmentations of held-out cases that another program made, and compares them with their labels.

    Args:
        dataset: Whose labels judge them.
        masks: Case to its label map.
        folder: Of the validation of a fold; empty, it gets what `validate` writes.
        reporter: Shows progress.

    Returns:
        The scores, before postprocessing.

    Raises:
        ProblemsError: A label map cannot be read, lies on another grid than the label of its case or holds values that
            dataset.json does not name; each has its line.
    """
    targets, cases = dataset.info.targets, dataset.only(masks).cases

    def judge_one(case: Case) -> CaseResult:
        reference, path = read_label_map(label_file(case)), masks[case.name]
        segmentation = read_label_map(path)
        check_values([path], [segmentation], targets)
        files = (label_file(case).name, path.name)
        result = evaluate_case(case.name, reference, segmentation, targets, files=files)
        shutil.copyfile(path, folder / path.name)
        return result.without(dataset.info.unannotated_in(case.name))

    results = results_or_raise(map_in_threads(judge_one, cases, title="judging", reporter=reporter))
    summary = summarize(results, targets.names)
    _describe(summary, cases, folder, targets)
    return summary


def _describe(summary: Summary, cases: Sequence[Case], folder: Path, targets: Targets) -> None:
    """Writes the scores beside the segmentations, and pictures of the worst and of the median case."""
    summary.write(folder)
    ranked = summary.ranked()
    for word, name in {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2]}.items():
        case = next(case for case in cases if case.name == name)
        _draw_case(case, folder, f"overlay_{word}.png", summary, targets)


@contextmanager
def _folder_of_all(job: FoldJob) -> Iterator[Path]:
    """A folder to which all ranks write; the first one makes it, and puts it in its place when all is there."""
    place = job.model.validation(job.fold)
    if job.ranks.is_main:
        with atomic_folder(place) as folder:
            job.ranks.broadcast(folder.name)
            yield folder
    else:
        yield place.with_name(job.ranks.broadcast(""))


def _judge_case(case: Case, job: FoldJob, segmenter: Segmenter, folder: Path, task: Task) -> CaseResult:
    """Segments a case into a folder, and compares it with its label."""
    targets = job.dataset.info.targets
    prepared = load_prepared(case.name, targets, job.cases_folder, job.cascade_labels_folder)
    prediction = segmenter.predict_preprocessed(prepared, on_progress=task.advance)
    path, segmentation, known = save_result(prediction, folder / (case.name + result_ending(case)))
    result = evaluate_case(
        case.name,
        read_label_map(label_file(case)),
        segmentation,
        known,
        files=(label_file(case).name, path.name),
    )
    return result.without(job.dataset.info.unannotated_in(case.name))


def load_prepared(name: str, targets: Targets, cases: Path, codes: Path | None) -> PreprocessedCase:
    """A preprocessed case; of a cascade, with the former segmentation, made when it was held out, as channels.

    Args:
        name: Of the case.
        targets: Of the dataset.
        cases: Where its image is.
        codes: Of a cascade: where the former segmentations are; see `data.previous`.
    """
    stored = StoredCase.open(cases, name)
    prepared = PreprocessedCase(image=stored.load()[0], label=None, record=stored.record)
    if codes is None:
        return prepared
    labels_and_former = StoredCase.open(codes, name).load_label()
    return show_previous(prepared, decode_previous(CascadeCodes(labels_and_former), code_base(targets)), targets)


def pool_validation(dataset: Dataset, model: ModelFolder) -> tuple[PostprocessingRules, Summary]:
    """Pools the held-out cases of all validated folds: writes the postprocessing that helps, and the pooled summary.

    The rules go into postprocessing.json, where prediction finds them; the scores are those before postprocessing.
    """
    targets = dataset.info.targets
    validated = [fold for fold in model.trained_folds() if is_validated(model, fold)]
    summaries = {fold: Summary.load(model.validation(fold) / "summary.json") for fold in validated}
    judged = [(model.validation(fold), result) for fold, summary in summaries.items() for result in summary.cases]
    rules = find_rules_for(dataset, judged)
    rules.save(model.postprocessing)
    pooled = summarize([result for _, result in judged], targets.names)
    pooled.write(model.path)
    return rules, pooled


def find_rules_for(
    dataset: Dataset, judged: Sequence[tuple[Path, CaseResult]], reporter: Reporter = SILENT
) -> PostprocessingRules:
    """Finds the postprocessing that helps segmentations of held-out cases.

    Args:
        dataset: Where their labels are.
        judged: The folder that holds the segmentation of each, and its scores.
        reporter: Shows progress.
    """
    targets = dataset.info.targets
    references = {case.name: label_file(case) for case in dataset.cases}

    def read_each() -> Iterator[HeldOut]:
        for folder, result in judged:
            prediction, known = load_result(folder / result.prediction_file, targets)
            yield HeldOut(
                reference=read_label_map(references[result.name]).array,
                prediction=prediction,
                targets=known,
                unknown=dataset.info.unannotated_in(result.name),
            )
            task.advance()

    with reporter.task("postprocessing", len(judged)) as task:
        return find_rules(read_each(), targets)


def _draw_case(case: Case, folder: Path, picture: str, summary: Summary, targets: Targets) -> None:
    """Draws the overlay of one evaluated case into the folder of its segmentation."""
    result = next(result for result in summary.cases if result.name == case.name)
    prediction, known = load_result(folder / result.prediction_file, targets)
    draw_overlay(
        folder / picture,
        read_image(case.images),
        read_label_map(label_file(case)),
        prediction,
        title=case.name if math.isnan(result.mean_dice) else f"{case.name}: mean Dice {result.mean_dice:.3f}",
        targets=known,
    )


def label_file(case: Case) -> Path:
    """The label map of a case, which it must have."""
    if case.label is None:
        raise DatasetError(f"case {case.name!r} has no label", "only labelled cases can be trained on or judged")
    return case.label
