"""One fold on disk: begun or continued, and trained to its end."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autoseg.data.loader import Batches, count_loader_threads, open_cases
from autoseg.data.splits import Split
from autoseg.data.store import open_stored
from autoseg.dataset import Dataset
from autoseg.device import gpu_memory_bytes, needs_scaling
from autoseg.errors import ModelError, UsageError
from autoseg.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.memory import training_bytes
from autoseg.reporting import Reporter
from autoseg.training.loop import Run, progress, train_fold
from autoseg.training.losses import Loss
from autoseg.training.progress import draw_progress, write_progress
from autoseg.training.state import TrainState, pack_state, start_training, unpack_state
from autoseg.units import describe_duration, describe_memory
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

    def load_former(self) -> Checkpoint | None:
        """The checkpoint that an earlier run of this fold left, if there is one."""
        path = self.model.checkpoint(self.fold)
        return load_checkpoint(path) if path.is_file() else None

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
    """The plan with another length of training; what is None is left as it is, but a number of epochs ends a budget.

    Raises:
        UsageError: There is not even one epoch.
    """
    if epochs is not None and epochs < 1:
        raise UsageError(f"training takes at least one epoch, not {epochs}", "choose another number with --epochs")
    changes: dict[str, float | None] = {}
    if epochs is not None:
        changes = {"epochs": epochs, "budget_seconds": None}
    if budget_seconds is not None:
        changes["budget_seconds"] = budget_seconds
    training = plan.training.model_validate({**plan.training.model_dump(), **changes})
    return plan.model_copy(update={"training": training})


def settle_job(job: FoldJob, *, restart: bool, length_was_given: bool) -> FoldJob:
    """Finds out how a fold goes on, before anything is changed.

    Returns:
        The job, with the length of training that a begun fold was begun with.

    Raises:
        ModelError, UsageError: The fold was begun in another way, or its checkpoint is damaged; see `settle_plan`.
        ProblemsError: Preprocessed cases that it needs are damaged, each with its line.
    """
    open_stored(job.cases_folder, {*job.split.training, *job.split.validation})
    former = None if restart else job.load_former()
    if former is None:
        return job
    if former.cases != job.split.digest:
        what = f"fold {job.fold} of {job.configuration_name} was begun with other cases than splits.json gives it now"
        raise ModelError(what, "restore splits.json, or add --restart to train the fold anew")
    return replace(job, plan=settle_plan(job.plan, former, job.configuration_name, length_was_given=length_was_given))


def warn_of_memory(job: FoldJob, reporter: Reporter) -> None:
    """Says so if the GPU is too small for a step of training, as after an edit of plan.json or on another machine."""
    available, one = gpu_memory_bytes(job.device), job.configuration
    needed = training_bytes(one.architecture, one.patch_size, one.batch_size)
    if available is not None and needed > available:
        reporter.say(
            f"a step of {job.configuration_name} takes about {describe_memory(needed)}, but {job.device} has "
            f"{describe_memory(available)}; if it runs out, plan with --memory {available // 10**9}GB, or lower "
            "batch_size or patch_size in plan.json"
        )


def train_to_end(job: FoldJob, reporter: Reporter, *, restart: bool) -> Checkpoint:
    """Trains a fold from its start, or from where it was left, and saves it after every epoch.

    Args:
        job: From `settle_job`.
        reporter: Shows progress and one line per epoch.
        restart: Forget what was trained and judged of this fold.
    """
    if restart and job.model.fold(job.fold).exists():
        shutil.rmtree(job.model.fold(job.fold))
    former = job.load_former()
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


def _make_run(job: FoldJob) -> Run:
    settings = job.plan.training
    held_out = job.split.validation or job.split.training  # fold "all" holds nothing out and watches its own cases
    stored = open_stored(job.cases_folder, {*job.split.training, *held_out})
    cases = dict(zip(stored, open_cases(list(stored.values())), strict=True))
    batches = [
        Batches(
            cases=[cases[name] for name in names],
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
        loss=Loss(targets=job.dataset.info.targets, settings=settings.loss, batch_dice=job.configuration.batch_dice),
        device=job.device,
        workers=count_loader_threads(job.device),
    )


def _checkpoint(job: FoldJob, state: TrainState) -> Checkpoint:
    return Checkpoint(
        plan=job.plan,
        info=job.dataset.info.model_copy(update={"groups": None}),  # may name patients, whom no model should know
        configuration_name=job.configuration_name,
        fold=job.fold,
        cases=job.split.digest,
        weights=state.weights,
        finished=progress(state, job.plan.training) >= 1,
        training=pack_state(state),
    )
