"""The training loop, from top to bottom: train_fold, train_epoch, train_step."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import torch
from torch import nn

from autoseg.dataloading.batch import Batch
from autoseg.errors import Stopped
from autoseg.imaging.label_encoding import TargetLabels
from autoseg.imaging.targets import Targets
from autoseg.planning.patch_growth import PatchStage
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.device import autocast
from autoseg.runtime.full_memory import memory_named
from autoseg.runtime.reporting import Reporter, Task
from autoseg.training.ground_truth import GroundTruth, merge_unknown
from autoseg.training.memory_trial import advise_on_memory, fill_gradients
from autoseg.training.monitoring.gpu_usage import GpuUsage
from autoseg.training.monitoring.health import (
    SILENT_SECONDS,
    STEPS_BETWEEN_LOOKS,
    check_losses,
    check_weights,
    describe_stall,
    find_alarms,
)
from autoseg.training.monitoring.progress import EpochReport, describe_epoch
from autoseg.training.optimization import (
    copy_buffers,
    count_falls,
    learning_rate,
    set_learning_rate,
    share_done,
    update_average,
)
from autoseg.training.plugin_checks import seed_layers, try_out
from autoseg.training.state import OpenEpoch, Run, TrainState
from autoseg.training.step import move_batch

Save = Callable[[TrainState], None]


def train_fold(state: TrainState, run: Run, reporter: Reporter, save: Save) -> None:
    """Trains until the epochs, or the seconds, of the settings are used up.

    Args:
        state: The state to go on from; changed in place.
        run: Batches, loss and settings.
        reporter: Shows the share of the training that is done, one line per epoch, and warnings.
        save: Called after each epoch, and when the run was asked to stop in the middle of one, in that case perhaps in
            another thread, while a step is running; see `watchdog`. All weights and losses of the state that it gets
            are finite.

    Raises:
        Stopped: The run was asked to stop; `save` was called.
        AutosegError: The loss is no longer a number, no training data come, or the device's memory is full.
        UsageError: A network, loss or transform that is not built in does not keep to its interface.
    """

    def save_checked() -> None:
        check_numbers(state)
        save(state)

    with (
        run.stop.saving_by(save_checked),
        reporter.task("training", total=1.0) as task,
        memory_named(run.device, advise_on_memory(run.ranks)),
    ):
        try_out(state.network, run)
        task.advance(progress(state, run.settings))
        while not is_finished(state, run.settings):
            try:
                report = train_epoch(state, run, reporter, task)
            except Stopped:
                save_checked()
                raise
            with run.stop.guarded():
                state.reports.append(report)
                state.epoch = OpenEpoch()
            for line in (describe_epoch(report), *find_alarms(state.reports)):
                reporter.say(line)
            save(state)


def progress(state: TrainState, settings: TrainingSettings) -> float:
    """Returns the share of the training that is done: of its seconds if they are limited, else of its steps."""
    return share_done(settings, state.step, state.elapsed_seconds)


def is_finished(state: TrainState, settings: TrainingSettings) -> bool:
    """Returns whether all steps are done, and the last epoch has been measured on held-out patches as well."""
    return progress(state, settings) >= 1 and not state.epoch.losses


def train_epoch(state: TrainState, run: Run, reporter: Reporter, task: Task) -> EpochReport:
    """Trains for one epoch, or for the rest of it or of the time, and measures the network on held-out patches."""
    started, elapsed_before = time.perf_counter(), state.elapsed_seconds
    epoch, gpu_usage = state.epoch, GpuUsage(run.device)
    if not epoch.losses:
        epoch.learning_rate, epoch.began_at_seconds = current_rate(state, run.settings), elapsed_before
    for batch in remaining_batches(state, run, reporter):
        run.stop.check()
        done = progress(state, run.settings)
        train_step(state, batch, run, reporter)
        if len(epoch.losses) % STEPS_BETWEEN_LOOKS == 0:
            check_losses(epoch.losses, len(state.reports))
            gpu_usage.sample()
        state.elapsed_seconds = run.ranks.broadcast_float(elapsed_before + time.perf_counter() - started)
        task.advance(progress(state, run.settings) - done)
        if progress(state, run.settings) >= 1:
            break
    check_numbers(state)
    trained_seconds = elapsed_before + time.perf_counter() - started - epoch.began_at_seconds
    validation_loss, dice = measure(state.average, run)
    before = progress(state, run.settings)
    state.elapsed_seconds = run.ranks.broadcast_float(elapsed_before + time.perf_counter() - started)
    task.advance(progress(state, run.settings) - before)
    return EpochReport(
        epoch=len(state.reports),
        training_loss=float(torch.stack(epoch.losses).mean()),
        validation_loss=validation_loss,
        pseudo_dice=dict(zip(run.loss.targets.names, dice, strict=True)),
        learning_rate=epoch.learning_rate,
        seconds=state.elapsed_seconds - epoch.began_at_seconds,
        elapsed_seconds=state.elapsed_seconds,
        patches_per_second=epoch.patches / trained_seconds,
        waiting_share=min(1.0, epoch.waited_seconds / trained_seconds),
        device_memory_bytes=gpu_usage.memory_bytes,
        device_utilization=gpu_usage.utilization,
    )


def remaining_batches(state: TrainState, run: Run, reporter: Reporter) -> Iterator[Batch]:
    """Yields the remaining batches of the epoch, each with the patches of the progress that the training has then.

    Adds the time that was spent waiting for the threads that prepare them to the epoch.
    """

    def on_wait(seconds: int, work: str) -> None:
        if run.ranks.alone:  # several ranks stop together, between two steps
            run.stop.check()
        if seconds == SILENT_SECONDS:
            reporter.say(describe_stall(seconds, work))

    def on_waited(seconds: float) -> None:
        state.epoch.waited_seconds += seconds

    if progress(state, run.settings) >= 1:
        return
    end = state.step + run.settings.steps_per_epoch - len(state.epoch.losses)
    while state.step < end:
        stage = current_stage(state, run)
        batches = run.training.at_stage(stage).ahead(
            range(state.step, end), workers=run.workers, device=run.device, on_wait=on_wait, on_waited=on_waited
        )
        with closing(batches):
            while state.step < end and current_stage(state, run) == stage:
                yield next(batches)


def current_stage(state: TrainState, run: Run) -> PatchStage:
    """Returns patch and batch of the next step."""
    timed = run.settings.budget_seconds is not None
    return run.training.configuration.stage_at(progress(state, run.settings), timed=timed)


def check_numbers(state: TrainState) -> None:
    """Makes sure that weights and losses are finite, before the state is saved.

    Raises:
        AutosegError: A weight, or a loss of the running epoch, is no longer a number.
    """
    if state.epoch.losses:
        check_losses(state.epoch.losses, len(state.reports))
    check_weights(state.network, len(state.reports))


def train_step(state: TrainState, batch: Batch, run: Run, reporter: Reporter) -> torch.Tensor:
    """Takes one step of the optimizer, and counts it; returns the loss, a scalar on the device.

    Until its gradients are complete, the step changes nothing of the state but the buffers of the network, which are
    kept; so it can be given up at any time. What follows is guarded from being saved when it is half done.
    """
    set_learning_rate(state.optimizer, current_rate(state, run.settings))
    state.network.train()
    seed_layers(state, run)
    state.keep_buffers()
    patches = current_stage(state, run).batch_size
    loss = fill_gradients(state, batch, run, reporter)
    with run.stop.guarded():
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), run.settings.gradient_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not state.network:
            decay = run.settings.average_decay
            update_average(state.average.parameters(), state.network.parameters(), decay, state.step)
            copy_buffers(state.average, state.network)
        state.count_step(loss, patches)
    return loss


def current_rate(state: TrainState, settings: TrainingSettings) -> float:
    """Returns the learning rate of the next step, by the progress and, for a "plateau", by the losses so far."""
    falls = 0
    if settings.schedule == "plateau":
        steps = settings.steps_per_epoch
        ends = [share_done(settings, (report.epoch + 1) * steps, report.elapsed_seconds) for report in state.reports]
        losses = [report.training_loss for report in state.reports]
        falls = count_falls(list(zip(ends, losses, strict=True)), settings.plateau_share)
    return learning_rate(progress(state, settings), settings, falls)


@torch.inference_mode()
def measure(network: nn.Module, run: Run) -> tuple[float, list[float]]:
    """Returns the loss, and the pseudo Dice of each structure, over the validation batches.

    Source: the reference method: voxels of all patches are pooled before Dice is calculated. It follows the training
    well but is no substitute for the Dice of whole cases. It is NaN for a structure that occurs in no patch and no
    prediction.
    """
    network.eval()
    losses, counts = [], torch.zeros(3, len(run.loss.targets.names), dtype=torch.int64)
    on_wait = (lambda *_: run.stop.check()) if run.ranks.alone else None  # several ranks stop between two batches
    numbers = range(run.settings.validation_steps)
    for batch in run.validation.ahead(numbers, workers=run.workers, device=run.device, on_wait=on_wait):
        run.stop.check()
        moved = move_batch(batch, run.device)
        with autocast(run.device):
            logits = network(moved.images)
        losses.append(run.loss((logits,), moved.labels, moved.unknown, moved.shapes))
        counts += _count(logits, moved, run.loss.targets).cpu()
    hits, predicted, present = run.ranks.all_reduce(counts).tolist()
    dice = [2 * hit / (p + r) if p + r else math.nan for hit, p, r in zip(hits, predicted, present, strict=True)]
    return float(run.ranks.all_reduce(torch.stack(losses).mean())), dice


def _count(logits: torch.Tensor, batch: Batch, targets: Targets) -> torch.Tensor:
    """Returns numbers of voxels of each structure, shape (3, structures): in both, in the prediction, in the target.

    Voxels that were not labelled, and structures that were not annotated, do not count.
    """
    labels, unknown = batch.labels, batch.unknown
    counted = None if targets.ignore is None else labels != targets.ignore
    if not targets.exclusive:
        predicted, present = logits > 0, GroundTruth.of(TargetLabels(labels), targets).present
        predicted = predicted if counted is None else predicted & counted.unsqueeze(1)
        if unknown is not None:
            predicted = predicted & ~unknown.reshape(*unknown.shape, *[1] * (logits.ndim - 2))
        axes = (0, *range(2, logits.ndim))
        return torch.stack([mask.sum(axes) for mask in (predicted & present, predicted, present)])
    if unknown is not None:
        logits = merge_unknown(logits.float(), unknown)
    predicted = logits.argmax(dim=1)
    if counted is not None:
        predicted, labels = predicted * counted, labels * counted
    hits = torch.where(predicted == labels, labels, 0)
    return torch.stack(
        [classes.flatten().bincount(minlength=targets.outputs)[1:] for classes in (hits, predicted, labels)]
    )
