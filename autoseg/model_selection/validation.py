"""Validation of trained folds on the cases that they held out: one fold at a time, then pooled over all folds."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.scan_images import read_scan
from autoseg.datasets.scans import check_values, result_ending
from autoseg.evaluation.morphology_search import find_morphology
from autoseg.evaluation.overlay import draw_overlay
from autoseg.evaluation.postprocessing_search import find_rules
from autoseg.evaluation.scores import Measures
from autoseg.evaluation.summary import CaseResult, SegmentedCase, Summary, score_case, summarize, summary_file
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_files import load_result, save_result
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.model_selection.calibration_fit import save_calibration
from autoseg.model_selection.calibration_voxels import keep_voxels
from autoseg.model_selection.held_out_cases import label_file, load_preprocessed, pair_with_label
from autoseg.model_selection.kept_cases import KeptCases
from autoseg.model_selection.missing_channels import score_missing_channels
from autoseg.models.checkpoint import Checkpoint
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import SILENT, Reporter, Task, log_line
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.training.fold_job import FoldJob
from autoseg.training.stopping import NEVER, StopRequest
from autoseg.workspace import Fold, ModelFolder, overlay_name


def is_validated(model: ModelFolder, fold: Fold) -> bool:
    """Tells whether a fold is validated.

    The scores are written last and removed together with the segmentations, so they always belong to the weights beside
    them.
    """
    return summary_file(model.validation(fold)).is_file()


def list_validated_folds(model: ModelFolder) -> list[Fold]:
    """Returns the folds that are trained and validated, without "all"."""
    return [fold for fold in model.trained_folds() if is_validated(model, fold)]


def validate_fold(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter, stop: StopRequest = NEVER) -> None:
    """Validates a fold and reports its mean Dice, unless it holds no case out or is validated already.

    Args:
        job: The fold.
        checkpoint: Its weights.
        reporter: Shows progress and the mean Dice.
        stop: The request to stop.

    Raises:
        Stopped: The run was asked to stop. The cases that were segmented by then are kept for the next run.
    """
    if job.split.validation and not job.ranks.broadcast(is_validated(job.model, job.fold)):
        reporter = reporter if job.ranks.is_main else SILENT
        summary = segment_held_out(job, checkpoint, reporter, stop)
        reporter.say(f"fold {job.fold}: mean Dice of whole held-out cases {summary.foreground_mean.dice:.4f}")
    if job.split.validation and job.ranks.is_main:
        for channel, dice in score_missing_channels(job, checkpoint, reporter, stop).items():
            reporter.say(f"fold {job.fold}: without {channel} it is {dice:.4f}")


def segment_held_out(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter, stop: StopRequest = NEVER) -> Summary:
    """Segments the held-out cases of a fold as a whole and scores them.

    Writes the segmentation of each case in the file type of its image, or as a folder of masks; summary.json and
    summary.csv; and pictures of the worst and of the median case. All of them appear at once when all are written; the
    cases that an earlier run has segmented are not segmented again, see `kept_cases`. With several ranks, each rank
    segments its share of the cases.

    Args:
        job: The fold.
        checkpoint: Its weights.
        reporter: Shows progress.
        stop: The request to stop.

    Returns:
        The scores before postprocessing.

    Raises:
        Stopped: The run was asked to stop.
    """
    segmenter = make_segmenter([checkpoint], NO_RULES, job.device)
    targets, ranks, kept = job.dataset.info.targets, job.ranks, KeptCases(job=job, model=segmenter.digest)
    cases = job.dataset.only(job.split.validation).cases
    results = ranks.broadcast(kept.load(cases) if ranks.is_main else {})
    if results:
        reporter.say(f"{len(results)} of {len(cases)} held-out cases were segmented by an earlier run")
    own_cases = [case for case in cases if case.name not in results][ranks.number :: ranks.count]
    with reporter.task("validating", len(own_cases) + len(results)) as task:
        task.advance(len(results))

        def segment_and_keep(case: Case) -> CaseResult:
            result = _segment_and_score(case, job, segmenter, kept.folder, _StoppableTask(task, stop))
            kept.save(case, result)
            log_line(reporter, f"validating: {case.name} is segmented")
            return result

        shares = ranks.all_gather([segment_and_keep(case) for case in own_cases])
        results |= {result.name: result for share in shares for result in share}
        summary = summarize([results[case.name] for case in cases], targets.names)
        if ranks.is_main:
            _write_summary(summary, cases, kept.folder, targets)
            kept.move_to(job.model.validation(job.fold))
    return summary


@dataclass(frozen=True, slots=True)
class _StoppableTask:
    """A task that ends with an error when the run was asked to stop."""

    task: Task
    stop: StopRequest

    def advance(self, units: float = 1) -> None:
        """Advances the task.

        Raises:
            Stopped: The run was asked to stop.
        """
        self.stop.check_alone()
        self.task.advance(units)


def validate_masks(dataset: Dataset, masks: Mapping[str, Path], folder: Path, reporter: Reporter) -> Summary:
    """Copies segmentations of held-out cases that another program made, and scores them.

    Args:
        dataset: The dataset with the labels of the cases.
        masks: Name of a case to the label map of its segmentation.
        folder: Empty folder for the validation of a fold; the same files are written as by `segment_held_out`.
        reporter: Shows progress.

    Returns:
        The scores before postprocessing.

    Raises:
        ProblemsError: A label map cannot be read, lies on another grid than the label of its case or holds values that
            dataset.json does not name; each has its line.
    """
    targets, cases = dataset.info.targets, dataset.only(masks).cases

    def score_and_copy(case: Case) -> CaseResult:
        reference, path = read_label_map(label_file(case)), masks[case.name]
        segmentation = read_label_map(path)
        check_values([path], [segmentation], targets)
        result = score_case(pair_with_label(case, (path, segmentation, targets), dataset.info, reference=reference))
        shutil.copyfile(path, folder / path.name)
        return result

    results = results_or_raise(map_in_threads(score_and_copy, cases, title="judging", reporter=reporter))
    summary = summarize(results, targets.names)
    _write_summary(summary, cases, folder, targets)
    return summary


def _write_summary(summary: Summary, cases: Sequence[Case], folder: Path, targets: Targets) -> None:
    """Writes the scores beside the segmentations, and pictures of the worst and of the median case."""
    summary.write(folder)
    ranked = summary.ranked()
    for rank, name in {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2]}.items():
        case = next(case for case in cases if case.name == name)
        _draw_case(case, folder, overlay_name(rank), summary, targets)


def _segment_and_score(case: Case, job: FoldJob, segmenter: Segmenter, folder: Path, task: Task) -> CaseResult:
    """Segments a case into a folder, keeps some of its voxels for calibration, and scores it.

    The centreline Dice is measured if the loss has a term of skeletons.
    """
    info = job.dataset.info
    preprocessed = load_preprocessed(case.name, info.targets, job.cases_folder, job.cascade_labels_folder)
    prediction = segmenter.predict_preprocessed(preprocessed, on_progress=task.advance)
    keep_voxels(prediction.logits, job.cases_folder, info, case.name, folder)
    segmentation = save_result(prediction, folder / (case.name + result_ending(case)))
    measures = Measures(centrelines=job.plan.training.loss.skeleton_weight > 0)
    result = score_case(pair_with_label(case, segmentation, info), measures)
    return result.model_copy(update={"agreement": prediction.agreement.score})


def pool_validation(
    dataset: Dataset, model: ModelFolder, reporter: Reporter = SILENT
) -> tuple[PostprocessingRules, Summary]:
    """Pools the held-out cases of all validated folds.

    Writes the postprocessing rules that improve the Dice into postprocessing.json and the temperatures that calibrate
    probabilities into calibration.json, where prediction finds them, and the scores before postprocessing into
    summary.json and summary.csv of the model's folder. Runs that train other folds do so one after the other, so the
    last one to finish pools all of them.

    Args:
        dataset: The dataset with the labels of the cases.
        model: Folder of a trained configuration.
        reporter: Told whom this run waits for.

    Returns:
        The rules, and the scores before postprocessing.
    """
    targets = dataset.info.targets
    with run_alone(model.path, waiting=reporter.say):
        validated = list_validated_folds(model)
        summaries = {fold: Summary.load(summary_file(model.validation(fold))) for fold in validated}
        results = [(model.validation(fold), result) for fold, summary in summaries.items() for result in summary.cases]
        rules = find_rules_for(dataset, results)
        rules.save(model.postprocessing)
        save_calibration([(folder, result.name) for folder, result in results], targets, model)
        pooled = summarize([result for _, result in results], targets.names)
        pooled.write(model.path)
    return rules, pooled


def find_rules_for(
    dataset: Dataset, results: Sequence[tuple[Path, CaseResult]], reporter: Reporter = SILENT
) -> PostprocessingRules:
    """Finds the postprocessing rules that improve the segmentations of held-out cases.

    Args:
        dataset: The dataset with the labels of the cases.
        results: For each case, the folder that holds its segmentation, and its scores.
        reporter: Shows progress.
    """
    with reporter.task("postprocessing", len(results)) as task:
        return find_rules(_read_each(dataset, results, task), dataset.info.targets)


def find_morphology_for(
    dataset: Dataset, results: Sequence[tuple[Path, CaseResult]], rules: PostprocessingRules, reporter: Reporter
) -> PostprocessingRules:
    """Adds the morphology that improves the segmentations of held-out cases to rules; see `find_rules_for`."""
    with reporter.task("morphology", len(results)) as task:
        return find_morphology(_read_each(dataset, results, task), rules, dataset.info.targets)


def _read_each(dataset: Dataset, results: Sequence[tuple[Path, CaseResult]], task: Task) -> Iterator[SegmentedCase]:
    """Reads the segmentations of held-out cases, each with its label, one after the other."""
    targets = dataset.info.targets
    cases = {case.name: case for case in dataset.cases}
    for folder, result in results:
        path = folder / result.prediction_file
        yield pair_with_label(cases[result.name], (path, *load_result(path, targets)), dataset.info)
        task.advance()


def _draw_case(case: Case, folder: Path, picture: str, summary: Summary, targets: Targets) -> None:
    """Draws the overlay of one scored case into the folder of its segmentation."""
    result = next(result for result in summary.cases if result.name == case.name)
    prediction, result_targets = load_result(folder / result.prediction_file, targets)
    draw_overlay(
        folder / picture,
        read_scan(case),
        read_label_map(label_file(case)),
        prediction,
        title=case.name if math.isnan(result.mean_dice) else f"{case.name}: mean Dice {result.mean_dice:.3f}",
        targets=result_targets,
    )
