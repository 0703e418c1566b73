"""One fold on disk: begun or continued, trained, and judged on the cases that it never saw."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.artifact import atomic_folder
from autoseg.checkpoint import Checkpoint, save_checkpoint
from autoseg.data.loader import Batches, count_loader_threads, open_cases
from autoseg.data.splits import Split
from autoseg.data.store import StoredCase, open_stored
from autoseg.dataset import Case, Dataset
from autoseg.device import needs_scaling
from autoseg.errors import ModelError, UsageError
from autoseg.evaluation.overlay import draw_overlay
from autoseg.evaluation.rules import find_rules
from autoseg.evaluation.summary import CaseResult, Summary, evaluate_case, summarize
from autoseg.imageio import read_image, read_label_map, write_label_map
from autoseg.inference.case import make_segmenter
from autoseg.plan import Configuration, ConfigurationName, Plan
from autoseg.postprocessing import NO_RULES, PostprocessingRules
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.reporting import Reporter
from autoseg.training.loop import Run, progress, train_fold
from autoseg.training.progress import draw_progress, write_progress
from autoseg.training.state import TrainState, pack_state, start_training, unpack_state
from autoseg.units import describe_duration
from autoseg.workspace import Fold, ModelFolder

SECONDS_BETWEEN_PICTURES = 30.0
"""Drawing the curves takes about a second, a short epoch not much more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldJob:
    """A fold to train: what, from which cases, where to, on which device.

    Attributes:
        dataset: The raw dataset, whose labels judge the result.
        plan: With the length of training that was asked for.
        configuration_name: Which configuration of the plan.
        fold: Which fold.
        split: Its cases.
        cases_folder: The preprocessed cases.
        model: Where checkpoint and results go.
        device: Where the network is trained.
    """

    dataset: Dataset
    plan: Plan
    configuration_name: ConfigurationName
    fold: Fold
    split: Split
    cases_folder: Path
    model: ModelFolder
    device: torch.device

    @property
    def configuration(self) -> Configuration:
        """The configuration to train."""
        return self.plan.configurations[self.configuration_name]

    def describe(self) -> str:
        """One line for people: how much is learned from what, on which device."""
        training = self.plan.training
        length = (
            f"for {describe_duration(training.budget_seconds)}"
            if training.budget_seconds is not None
            else f"for {training.epochs} epochs of {training.steps_per_epoch} steps"
        )
        held_out = f"{len(self.split.validation)} held out" if self.split.validation else "none held out"
        return (
            f"{self.configuration_name}, fold {self.fold}: {len(self.split.training)} cases, {held_out}, "
            f"{length} on {self.device}"
        )

    @property
    def seed(self) -> int:
        """Differs between folds; "all" counts as one more."""
        return self.plan.training.seed + (100 if self.fold == "all" else int(self.fold))


def settle_plan(plan: Plan, former: Checkpoint, name: ConfigurationName, *, length_was_given: bool) -> Plan:
    """The plan by which a begun fold goes on.

    Args:
        plan: As it stands now, with the length of training that was asked for, if any.
        former: The checkpoint of the fold.
        name: The configuration.
        length_was_given: Whether the user asked for a number of epochs or a budget.

    Returns:
        `plan`, or, if no length was given, `plan` with the length of the begun run.

    Raises:
        ModelError: The fold was begun by another plan.
        UsageError: The fold was begun with another length.
    """
    anew = "add --restart to train it anew"
    begun = former.plan.training
    if not length_was_given:
        plan = replace_length(plan, epochs=begun.epochs, budget_seconds=begun.budget_seconds)
    same = (plan.configurations[name], plan.axis_order) == (former.configuration, former.plan.axis_order)
    settings = plan.training.model_copy(update={"epochs": begun.epochs, "budget_seconds": begun.budget_seconds})
    if not same or settings != begun:
        raise ModelError(f"fold {former.fold} of {name} was begun by another plan.json", f"restore that, or {anew}")
    if plan.training != begun:
        raise UsageError(
            f"fold {former.fold} of {name} was begun with another length of training",
            f"leave out --epochs and --budget to go on, or {anew}",
        )
    return plan


def replace_length(plan: Plan, *, epochs: int | None, budget_seconds: float | None) -> Plan:
    """The plan with another length of training; what is None is left as it is, but a number of epochs ends a budget."""
    changes: dict[str, float | None] = {}
    if epochs is not None:
        changes = {"epochs": epochs, "budget_seconds": None}
    if budget_seconds is not None:
        changes["budget_seconds"] = budget_seconds
    training = plan.training.model_validate({**plan.training.model_dump(), **changes})
    return plan.model_copy(update={"training": training})


def train_to_end(job: FoldJob, former: Checkpoint | None, reporter: Reporter) -> Checkpoint:
    """Trains a fold from its start, or from where `former` left it, and saves it after every epoch."""
    settings = job.plan.training
    scaled = needs_scaling(job.device)
    state = start_training(job.configuration.architecture, settings, job.device, job.seed, scaled=scaled)
    if former is not None:
        unpack_state(state, former.training, former.weights)
    checkpoint = _checkpoint(job, state)
    if checkpoint.finished:
        reporter.say(f"fold {job.fold} is trained to its end; --restart would train it anew")
        return checkpoint

    drawn_at = -SECONDS_BETWEEN_PICTURES

    def save(state: TrainState) -> None:
        nonlocal checkpoint, drawn_at
        checkpoint = _checkpoint(job, state)
        save_checkpoint(checkpoint, job.model.checkpoint(job.fold))
        write_progress(job.model.progress(job.fold, "csv"), state.reports)
        if checkpoint.finished or state.elapsed_seconds - drawn_at > SECONDS_BETWEEN_PICTURES:
            draw_progress(job.model.progress(job.fold, "png"), state.reports)
            drawn_at = state.elapsed_seconds

    train_fold(state, _make_run(job), reporter, save)
    return checkpoint


def validate(job: FoldJob, checkpoint: Checkpoint, reporter: Reporter) -> Summary:
    """Segments the held-out cases whole and compares them with their labels.

    Writes CASE.nii.gz for each, summary.json and summary.csv, and pictures of the worst and of the median case, all at
    once when all are done.
    """
    segmenter = make_segmenter([checkpoint], NO_RULES, job.device)
    labels = job.dataset.info.foreground
    cases = [case for case in job.dataset.cases if case.name in set(job.split.validation)]
    ending = job.dataset.info.file_ending
    results: list[CaseResult] = []
    with atomic_folder(job.model.validation(job.fold)) as folder, reporter.task("validating", len(cases)) as task:
        for case in cases:
            stored = StoredCase.open(job.cases_folder, case.name)
            image, _ = stored.load()
            prepared = PreprocessedCase(image=image, label=None, record=stored.record)
            segmentation = segmenter.segment_preprocessed(prepared, on_progress=task.advance)
            write_label_map(folder / (case.name + ending), segmentation)
            results.append(
                evaluate_case(
                    case.name,
                    read_label_map(_label(case)),
                    segmentation,
                    labels,
                    reference_file=_label(case).name,
                    prediction_file=case.name + ending,
                )
            )
        summary = summarize(results, labels)
        save_summary(summary, folder)
        ranked = summary.ranked()
        for word, name in {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2]}.items():
            case = next(case for case in cases if case.name == name)
            draw_case(case, folder / (name + ending), folder / f"overlay_{word}.png", summary, labels)
    return summary


def save_summary(summary: Summary, folder: Path) -> None:
    """Writes summary.json and the same as a table, summary.csv."""
    summary.save(folder / "summary.json")
    summary.save_csv(folder / "summary.csv")


def draw_case(case: Case, segmentation: Path, picture: Path, summary: Summary, labels: dict[str, int]) -> None:
    """Draws the overlay of one evaluated case."""
    result = next(result for result in summary.cases if result.name == case.name)
    draw_overlay(
        picture,
        read_image(case.images),
        read_label_map(_label(case)),
        read_label_map(segmentation),
        title=f"{case.name}: mean Dice {result.mean_dice:.3f}" if result.mean_dice == result.mean_dice else case.name,
        labels=labels,
    )


def conclude(dataset: Dataset, model: ModelFolder) -> tuple[PostprocessingRules, Summary]:
    """Pools the held-out cases of all validated folds: writes the postprocessing that helps, and the pooled summary.

    The rules go into postprocessing.json, where prediction finds them; the scores are those before postprocessing.
    """
    labels = dataset.info.foreground
    validated = [fold for fold in model.trained_folds() if (model.validation(fold) / "summary.json").is_file()]
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
    save_summary(pooled, model.path)
    return rules, pooled


def _make_run(job: FoldJob) -> Run:
    settings = job.plan.training
    held_out = job.split.validation or job.split.training  # fold "all" holds nothing out and watches its own cases
    stored = open_stored(job.cases_folder, {*job.split.training, *held_out})
    batches = [
        Batches(
            cases=open_cases([stored[name] for name in names]),
            configuration=job.configuration,
            foreground_fraction=settings.foreground_fraction,
            seed=(job.seed, number),
            augmented=augmented,
        )
        for number, (names, augmented) in enumerate([(job.split.training, True), (held_out, False)])
    ]
    return Run(
        settings=settings,
        training=batches[0],
        validation=batches[1],
        batch_dice=job.configuration.batch_dice,
        labels=tuple(job.dataset.info.foreground),
        device=job.device,
        workers=count_loader_threads(job.device),
    )


def _checkpoint(job: FoldJob, state: TrainState) -> Checkpoint:
    return Checkpoint(
        plan=job.plan,
        info=job.dataset.info,
        configuration_name=job.configuration_name,
        fold=job.fold,
        weights=state.weights,
        finished=progress(state, job.plan.training) >= 1,
        training=pack_state(state),
    )


def _label(case: Case) -> Path:
    if case.label is None:
        raise ModelError(f"case {case.name!r} has no label", "only labelled cases can be trained on or judged")
    return case.label
