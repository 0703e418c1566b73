"""One fold on disk: begun or continued, and trained to its end."""

import shutil
from collections.abc import Mapping
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
from autoseg.lock import FILE_NAME as LOCK_NAME
from autoseg.lock import run_alone
from autoseg.network.making import make_network
from autoseg.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.memory import training_bytes
from autoseg.reporting import SILENT, Reporter
from autoseg.training.length import LengthRequest, settle_plan
from autoseg.training.loop import progress, train_fold
from autoseg.training.losses import Loss
from autoseg.training.origin import NOTHING_ASKED, Newcomer, OriginRequest, WeightsOrigin, check_origin, find_origin
from autoseg.training.own import check_presence, describe_limits
from autoseg.training.ranks import ALONE, Ranks, check_shares
from autoseg.training.record import open_record
from autoseg.training.run import Run
from autoseg.training.state import TrainState, pack_state, start_training, unpack_state
from autoseg.training.stopping import StopRequest, watch_for_stop
from autoseg.training.tracking import OpenTracker, TrackedFold
from autoseg.units import describe_duration, describe_memory
from autoseg.workspace import Fold, ModelFolder

NAMELESS = {"groups": None, "annotated": None}
"""What may name patients, whom no model should know, in the description of a dataset."""


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
        codes_folder: Of a cascade: where the former segmentations are; see `data.previous`.
        model: Where checkpoint and results go.
        device: Where the network is trained.
        augment_on_device: Whether that device changes the training patches, and not the threads that read them.
        origin: What its weights begin with, and which of them stay as they are.
        ranks: The processes that train it together.
    """

    dataset: Dataset
    plan: Plan
    configuration_name: ConfigurationName
    fold: Fold
    split: Split
    cases_folder: Path
    model: ModelFolder
    device: torch.device
    codes_folder: Path | None = None
    augment_on_device: bool = False
    origin: OriginRequest = NOTHING_ASKED
    ranks: Ranks = ALONE

    @property
    def configuration(self) -> Configuration:
        """The configuration to train."""
        return self.plan.configurations[self.configuration_name]

    @property
    def newcomer(self) -> Newcomer:
        """The fold as whoever looks for its first weights sees it."""
        return Newcomer(
            fold=self.fold,
            configuration=self.configuration,
            info=self.dataset.info,
            dataset=self.plan.dataset,
            cases=self.split.digest,
            checkpoint=self.model.checkpoint(self.fold),
        )

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


def settle_job(job: FoldJob, wanted: LengthRequest, *, restart: bool) -> FoldJob:
    """Finds out how a fold goes on, before anything is changed.

    Returns:
        The job, with the length of training that a begun fold was begun with, or is extended to.

    Raises:
        ModelError, UsageError: The fold was begun in another way, or its checkpoint is damaged; see `settle_plan` and
            `check_origin`. Or it is to be extended and not finished. Or the plan names what is not installed.
        ProblemsError: Preprocessed cases that it needs are damaged, each with its line.
    """
    check_presence(job.configuration, job.plan.training)
    open_stored(job.cases_folder, {*job.split.training, *job.split.validation})
    check_shares(job.ranks, job.configuration.batch_size)
    former = None if restart else job.load_former()
    if wanted.extend is not None and (former is None or not former.finished):
        what = f"fold {job.fold} of {job.configuration_name} is not trained to its end, so it cannot be extended"
        raise UsageError(what, "leave out --extend to train it to its end first")
    check_origin(job.origin, job.newcomer, None if former is None else WeightsOrigin.of(former))
    if former is None:
        return job
    if former.cases != job.split.digest:
        what = f"fold {job.fold} of {job.configuration_name} was begun with other cases than splits.json gives it now"
        raise ModelError(what, "restore splits.json, or add --restart to train the fold anew")
    plan = settle_plan(job.plan, former, job.configuration_name, length_was_given=wanted.is_given)
    if wanted.extend is not None:
        done = former.training
        plan = wanted.extend_from(plan, step=done["step"], elapsed_seconds=done["elapsed_seconds"])
    return replace(job, plan=plan)


def warn_of_memory(job: FoldJob, reporter: Reporter) -> None:
    """Says so if the GPU is too small for a step of training, as after an edit of plan.json, or if nobody knows."""
    for line in describe_limits(job.configuration, job.plan.training):
        reporter.say(line)
    available, one = gpu_memory_bytes(job.device), job.configuration
    needed = training_bytes(one.architecture, one.patch_size, one.batch_size)
    if one.network is None and available is not None and needed > available:
        reporter.say(
            f"a step of {job.configuration_name} takes about {describe_memory(needed)}, but {job.device} has "
            f"{describe_memory(available)}; if it runs out, plan with --memory {available // 10**9}GB, or lower "
            "batch_size or patch_size in plan.json"
        )


def train_to_end(
    job: FoldJob, reporter: Reporter, *, restart: bool, trackers: Mapping[str, OpenTracker] | None = None
) -> Checkpoint:
    """Trains a fold from its start, or from where it was left, and saves it after every epoch.

    Args:
        job: From `settle_job`.
        reporter: Shows progress and one line per epoch.
        restart: Forget what was trained and judged of this fold.
        trackers: From `find_trackers`.

    Raises:
        Stopped: The run was asked to stop. It is saved to the last step.
        UsageError: Another run trains this fold.
    """
    if not job.ranks.leads:
        return _train_along(job)
    with run_alone(job.model.fold(job.fold)):
        if restart:
            _forget(job.model.fold(job.fold))
        job.ranks.wait()
        state = _load_state(job, reporter)
        checkpoint = _checkpoint(job, state)
        if checkpoint.finished:
            reporter.say(f"fold {job.fold} is trained to its end; --restart would train it anew, --extend longer")
            return checkpoint
        shutil.rmtree(job.model.validation(job.fold), ignore_errors=True)  # scores of a fold that is extended
        tracked = TrackedFold(
            dataset=job.plan.dataset,
            model=job.model,
            fold=job.fold,
            settings=job.plan.training,
            epochs_done=len(state.reports),
        )
        with (
            watch_for_stop(job.model.stop_file(job.fold), job.ranks) as stop,
            open_record(tracked, trackers or {}, state.reports, reporter) as record,
        ):

            def save(state: TrainState) -> None:
                nonlocal checkpoint
                checkpoint = _checkpoint(job, state)
                save_checkpoint(checkpoint, job.model.checkpoint(job.fold))
                record.update(state.reports, finished=checkpoint.finished)

            train_fold(state, _make_run(job, stop), reporter, save)
            stop.check()
    return checkpoint


def _train_along(job: FoldJob) -> Checkpoint:
    """What a rank does that does not lead: the same, but it says and saves nothing."""
    job.ranks.wait()  # until the first one has made room
    state = _load_state(job, SILENT)
    checkpoint = _checkpoint(job, state)
    if not checkpoint.finished:
        with watch_for_stop(job.model.stop_file(job.fold), job.ranks) as stop:
            train_fold(state, _make_run(job, stop), SILENT, lambda _: None)
            stop.check()
    return checkpoint


def _forget(folder: Path) -> None:
    """Empties the folder of a fold, but for the lock of this run."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()


def _load_state(job: FoldJob, reporter: Reporter) -> TrainState:
    """The state that an earlier run left, or a new one."""
    former = job.load_former()
    origin = find_origin(job.origin, job.newcomer, job.seed) if former is None else WeightsOrigin.of(former)
    for line in origin.lines:
        reporter.say(line)
    state = start_training(
        make_network(job.configuration, job.seed),
        job.plan.training,
        job.device,
        scaled=needs_scaling(job.device),
        origin=origin,
    )
    if former is not None:
        unpack_state(state, former.training, former.weights)
    job.ranks.check_same(state.step, str(job.model.checkpoint(job.fold)))
    return state


def _make_run(job: FoldJob, stop: StopRequest) -> Run:
    settings = job.plan.training
    held_out = job.split.validation or job.split.training  # fold "all" holds nothing out and watches its own cases
    stored = open_stored(job.cases_folder, {*job.split.training, *held_out})
    codes = [] if job.codes_folder is None else list(open_stored(job.codes_folder, stored).values())
    cases = dict(zip(stored, open_cases(list(stored.values()), codes), strict=True))
    info = job.dataset.info
    unknown = {name: tuple(one in info.unknown_in(name) for one in info.targets.names) for name in cases}
    batches = [
        Batches(
            cases=[cases[name] for name in names],
            configuration=job.configuration,
            foreground_fraction=settings.foreground_fraction,
            seed=(job.seed, number),
            augmented=augmented,
            finished_on=job.device if job.augment_on_device else None,
            unknown=[unknown[name] for name in names] if any(map(any, unknown.values())) else (),
            previous=None if job.codes_folder is None else info.targets,
            share=(job.ranks.number, job.ranks.count),
        )
        for number, (names, augmented) in enumerate([(job.split.training, True), (held_out, False)])
    ]
    return Run(
        settings=settings,
        training=batches[0],
        validation=batches[1],
        loss=Loss(
            targets=job.dataset.info.targets,
            settings=settings.loss,
            batch_dice=job.configuration.batch_dice,
            ranks=job.ranks,
        ),
        device=job.device,
        workers=max(1, count_loader_threads(job.device) // job.ranks.here),
        stop=stop,
        ranks=job.ranks,
    )


def _checkpoint(job: FoldJob, state: TrainState) -> Checkpoint:
    return Checkpoint(
        plan=job.plan,
        info=job.dataset.info.model_copy(update=NAMELESS),
        configuration_name=job.configuration_name,
        fold=job.fold,
        cases=job.split.digest,
        weights=state.weights,
        finished=progress(state, job.plan.training) >= 1,
        training=pack_state(state),
    )
