"""One fold on disk: begun or resumed, trained to its end, and saved after every epoch."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from autoseg.dataloading.component_sampling import ComponentSampling
from autoseg.dataloading.loader import Batches, open_cases
from autoseg.dataloading.patch import find_beyond
from autoseg.dataloading.sampling import PatchSource
from autoseg.dataloading.shapes import ShapeMaker
from autoseg.dataloading.threads import count_loader_threads
from autoseg.models.build import make_network
from autoseg.models.checkpoint import NAMELESS, Checkpoint, save_checkpoint
from autoseg.models.training_statistics import save_training_statistics
from autoseg.preprocessing.store import open_stored
from autoseg.runtime.device import needs_scaling
from autoseg.runtime.lock import FILE_NAME as LOCK_NAME
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.training.checkpoint_writer import open_checkpoint_writer
from autoseg.training.fold_job import FoldJob
from autoseg.training.initial_weights import InitialWeights
from autoseg.training.initialization import find_initial_weights
from autoseg.training.loop import is_finished, train_fold
from autoseg.training.losses import Loss
from autoseg.training.memory_limit import correct_estimate, limit_micro_batches
from autoseg.training.monitoring.log_files import open_log_files
from autoseg.training.monitoring.progress import EpochReport
from autoseg.training.monitoring.tracking import TrackedFold
from autoseg.training.state import Run, TrainState, pack_state, start_training, unpack_state
from autoseg.training.stopping import NO_REASON, StopRequest
from autoseg.training.taught_cases import open_taught_cases
from autoseg.training.watchdog import watch_for_stop


@contextmanager
def hold_fold(job: FoldJob, reporter: Reporter) -> Iterator[StopRequest]:
    """Keeps other runs away from a fold while it is trained and validated, and watches for requests to stop.

    Args:
        job: The fold.
        reporter: Told that a request was heard.

    Raises:
        UsageError: Another run trains this fold.
    """
    alone = run_alone(job.model.fold(job.fold)) if job.ranks.is_main else nullcontext()
    with alone, watch_for_stop(job.model.stop_file(job.fold), job.ranks, reporter) as stop:
        yield stop


def train_to_end(job: FoldJob, stop: StopRequest, reporter: Reporter) -> Checkpoint:
    """Trains a fold from its start, or from where it was stopped, and saves it after every epoch.

    Checkpoints and log files are written beside the training, by a thread; see `checkpoint_writer`. They are on disk
    when the training ends, for whatever reason, except that of a process that is killed.

    Args:
        job: The fold, from `make_jobs`.
        stop: The request to stop, from `hold_fold`.
        reporter: Shows progress and one line per epoch.

    Returns:
        The checkpoint of the trained fold.

    Raises:
        Stopped: The run was asked to stop. It is saved to the last step.
    """
    if not job.ranks.is_main:
        return _train_on_other_rank(job, stop)
    reporter.say(job.describe())
    if job.restart:
        _empty(job.model.fold(job.fold))
    job.ranks.barrier()
    state, checkpoint = _begin_or_resume(job, reporter)
    if state is None:
        reporter.say(f"fold {job.fold} was trained elsewhere, to its end; --restart would train it anew")
        return checkpoint
    if checkpoint.finished:
        reporter.say(f"fold {job.fold} is trained to its end; --restart would train it anew, --extend longer")
        return _on_cpu(checkpoint)
    save_training_statistics(job.folders.fingerprint, job.dataset.info, job.model.training_statistics)
    shutil.rmtree(job.model.validation(job.fold), ignore_errors=True)  # scores of a fold that is extended
    return _train_and_save(job, state, stop, reporter)


def _train_and_save(job: FoldJob, state: TrainState, stop: StopRequest, reporter: Reporter) -> Checkpoint:
    """Trains a state to its end, and writes it and the log files after every epoch; returns the last checkpoint."""
    tracked = TrackedFold(
        dataset=job.plan.dataset,
        model=job.model,
        fold=job.fold,
        settings=job.plan.training,
        epochs_done=len(state.reports),
    )
    checkpoint = _make_checkpoint(job, state)
    with open_log_files(tracked, job.trackers, state.reports, reporter) as log_files:
        stop.at_end.append(log_files.close)

        def write(written: Checkpoint, reports: Sequence[EpochReport]) -> None:
            save_checkpoint(written, job.checkpoint)
            log_files.update(reports, finished=written.finished)

        with open_checkpoint_writer(write) as writer:

            def save(state: TrainState) -> None:
                nonlocal checkpoint
                with stop.guarded():
                    checkpoint = writer.save(_make_checkpoint(job, state), state.reports)
                    if checkpoint.finished or stop.find_reason() != NO_REASON:
                        writer.wait()
                    if state.measured_bytes:
                        correct_estimate(job, state.measured_bytes, reporter)
                        state.measured_bytes.clear()

            train_fold(state, _make_run(job, stop), reporter, save)
        stop.check()
    return checkpoint


def _train_on_other_rank(job: FoldJob, stop: StopRequest) -> Checkpoint:
    """Trains a fold as `train_to_end` does, on a rank that is not the main one: it reports and saves nothing."""
    job.ranks.barrier()  # until the main rank has emptied the folder
    state, checkpoint = _begin_or_resume(job, SILENT)
    if state is None:
        return checkpoint
    if not checkpoint.finished:
        train_fold(state, _make_run(job, stop), SILENT, lambda _: None)
        stop.check()
    return _on_cpu(_make_checkpoint(job, state))


def _on_cpu(checkpoint: Checkpoint) -> Checkpoint:
    """Returns a checkpoint for prediction, with its weights on the CPU."""
    return replace(checkpoint, weights={name: value.cpu() for name, value in checkpoint.weights.items()})


def _empty(folder: Path) -> None:
    """Empties the folder of a fold, except for the lock of this run."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()


def _begin_or_resume(job: FoldJob, reporter: Reporter) -> tuple[TrainState | None, Checkpoint]:
    """Loads the state that an earlier run saved, or makes a new one.

    The loaded checkpoint is not kept, because its weights and momentum would stay in memory beside those of the state.

    Returns:
        The state and its checkpoint; no state if the fold was trained elsewhere, to its end, and holds only weights.
    """
    saved = job.load_checkpoint()
    if saved is not None and not saved.training:
        return None, saved
    initial_weights = find_initial_weights(job) if saved is None else InitialWeights.of(saved)
    for line in initial_weights.lines:
        reporter.say(line)
    state = start_training(
        make_network(job.configuration, job.seed),
        job.plan.training,
        job.device,
        scaled=needs_scaling(job.device),
        initial_weights=initial_weights,
    )
    if saved is not None:
        unpack_state(state, saved.training, saved.weights)
    limit_micro_batches(job, state, reporter)
    job.ranks.check_same_step(state.step, str(job.checkpoint))
    return state, _make_checkpoint(job, state)


def _make_run(job: FoldJob, stop: StopRequest) -> Run:
    """Opens the preprocessed cases, and puts together what stays the same during the training of a fold."""
    settings, info = job.plan.training, job.dataset.info
    held_out = job.split.validation or job.split.training  # fold "all" holds nothing out, and measures its own cases
    stored = open_stored(job.cases_folder, {*job.split.training, *held_out})
    codes = [] if job.cascade_labels_folder is None else list(open_stored(job.cascade_labels_folder, stored).values())
    cases = dict(zip(stored, open_cases(list(stored.values()), codes), strict=True))
    beyond = find_beyond(job.configuration, info.targets)
    unannotated = {
        name: tuple(structure in info.unannotated_in(name) for structure in info.targets.names) for name in cases
    }
    taught = open_taught_cases(job)
    cases |= taught.unlabelled
    unannotated |= dict.fromkeys(taught.unlabelled, taught.unannotated)
    training = (*job.split.training, *taught.unlabelled)
    batches = [
        Batches(
            cases=[cases[name] for name in names],
            configuration=job.configuration,
            foreground_fraction=settings.foreground_fraction,
            seed=(job.seed, number),
            augmented=augmented,
            augmentation_device=job.device if job.augment_on_device else None,
            unknown=[unannotated[name] for name in names] if any(map(any, unannotated.values())) else (),
            previous=None if job.cascade_labels_folder is None else info.targets,
            beyond=beyond,
            shapes=ShapeMaker.of(settings.loss, info.targets),
            soft=[taught.soft[name] for name in names] if augmented and taught.soft else (),
            components=_sample_components(job, [cases[name] for name in names]) if augmented else None,
            share=(job.ranks.number, job.ranks.count),
        )
        for number, (names, augmented) in enumerate([(training, True), (held_out, False)])
    ]
    return Run(
        settings=settings,
        training=batches[0],
        validation=batches[1],
        loss=Loss(
            targets=info.targets if beyond is None else info.targets.with_ignore,
            settings=settings.loss,
            batch_dice=job.configuration.batch_dice,
            ranks=job.ranks,
            auxiliary_outputs=job.configuration.auxiliary_outputs,
            soft_weight=0.0 if settings.distillation is None else settings.distillation.weight,
        ),
        device=job.device,
        workers=max(1, count_loader_threads(job.device) // job.ranks.local_size),
        stop=stop,
        ranks=job.ranks,
    )


def _sample_components(job: FoldJob, cases: Sequence[PatchSource]) -> ComponentSampling | None:
    """Returns what draws patches on foreground from connected components, if the plan says so.

    Decision: only training patches are drawn so, and validation patches as ever, so that their Dice compares.
    """
    if job.plan.training.foreground_sampling == "voxels":
        return None
    is_cascade = job.cascade_labels_folder is not None
    return ComponentSampling(cases=cases, targets=job.dataset.info.targets, is_cascade=is_cascade)


def _make_checkpoint(job: FoldJob, state: TrainState) -> Checkpoint:
    """Returns the checkpoint of a state, with the tensors of the state, which are on its device and will change."""
    return Checkpoint(
        plan=job.plan,
        info=job.dataset.info.model_copy(update=NAMELESS),
        configuration_name=job.configuration_name,
        fold=job.fold,
        cases=job.split.digest,
        weights=state.weights,
        finished=is_finished(state, job.plan.training),
        training=pack_state(state),
    )
