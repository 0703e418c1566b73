"""How a fold learns, from top to bottom: train_fold, train_epoch, train_step."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from autoseg.data.loader import Batch, Batches
from autoseg.device import autocast, memory_named
from autoseg.errors import AutosegError
from autoseg.plan import TrainingSettings
from autoseg.reporting import Reporter, Task
from autoseg.targets import Targets
from autoseg.training.losses import Loss
from autoseg.training.optimization import learning_rate, set_learning_rate, update_average
from autoseg.training.progress import EpochReport
from autoseg.training.state import TrainState
from autoseg.training.truth import Truth

OnEpochEnd = Callable[[TrainState], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What stays the same from the first step of a fold to the last.

    Attributes:
        settings: From the plan, with the length that the user asked for.
        training: Augmented batches of the training cases.
        validation: Plain batches of the held-out cases, or of the training cases if none is held out; the same ones
            after every epoch.
        loss: What is minimized; knows what the outputs of the network stand for.
        device: Where the network is.
        workers: Threads that make batches.
    """

    settings: TrainingSettings
    training: Batches
    validation: Batches
    loss: Loss
    device: torch.device
    workers: int


def train_fold(state: TrainState, run: Run, reporter: Reporter, on_epoch_end: OnEpochEnd) -> None:
    """Trains until the epochs, or the seconds, of the settings are used up.

    Args:
        state: Where to go on from; changed in place.
        run: What to do.
        reporter: Shows the share of the training that is done, and one line per epoch.
        on_epoch_end: Called after each epoch, to save and draw.

    Raises:
        AutosegError: The loss is no longer a number, no training data come, or the device's memory is full.
    """
    advice = "stop other programs that use it, or plan again with less --memory"
    with reporter.task("training", total=1.0) as task, memory_named(run.device, advice):
        task.advance(progress(state, run.settings))
        while progress(state, run.settings) < 1:
            report = train_epoch(state, run, task)
            state.reports.append(report)
            reporter.say(describe_epoch(report))
            on_epoch_end(state)


def progress(state: TrainState, settings: TrainingSettings) -> float:
    """Share of the training that is done: of its seconds if they are limited, else of its steps."""
    if settings.budget_seconds is not None:
        return min(1.0, state.elapsed_seconds / settings.budget_seconds)
    return min(1.0, state.step / (settings.epochs * settings.steps_per_epoch))


def train_epoch(state: TrainState, run: Run, task: Task) -> EpochReport:
    """Trains for one epoch, or for what is left of the time, and measures the network on held-out patches."""
    started, elapsed_before = time.perf_counter(), state.elapsed_seconds
    first = state.step
    rate = learning_rate(progress(state, run.settings), run.settings)
    losses = []
    for batch in run.training.ahead(range(first, first + run.settings.steps_per_epoch), workers=run.workers):
        done = progress(state, run.settings)
        if done >= 1:
            break
        losses.append(train_step(state, batch, run))
        state.step += 1
        state.elapsed_seconds = elapsed_before + time.perf_counter() - started
        task.advance(progress(state, run.settings) - done)
    training_loss = float(torch.stack(losses).mean())
    if not math.isfinite(training_loss):
        raise AutosegError(
            f"the training loss became {training_loss} in epoch {len(state.reports)}",
            "lower training.learning_rate in plan.json, or look for extreme intensities with 'autoseg check'",
        )
    validation_loss, dice = measure(state.average, run)
    before = progress(state, run.settings)
    state.elapsed_seconds = elapsed_before + time.perf_counter() - started
    task.advance(progress(state, run.settings) - before)
    return EpochReport(
        epoch=len(state.reports),
        training_loss=training_loss,
        validation_loss=validation_loss,
        pseudo_dice=dict(zip(run.loss.targets.names, dice, strict=True)),
        learning_rate=rate,
        seconds=state.elapsed_seconds - elapsed_before,
        elapsed_seconds=state.elapsed_seconds,
    )


def train_step(state: TrainState, batch: Batch, run: Run) -> torch.Tensor:
    """One step of the optimizer; returns the loss, a scalar on the device."""
    set_learning_rate(state.optimizer, learning_rate(progress(state, run.settings), run.settings))
    images, labels = _to_device(batch, run.device)
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    with autocast(run.device):
        outputs = state.network(images)
    loss = run.loss(outputs, labels)
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    state.scaler.unscale_(state.optimizer)
    nn.utils.clip_grad_norm_(state.network.parameters(), run.settings.gradient_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not state.network:
        update_average(state.average.parameters(), state.network.parameters(), run.settings.average_decay, state.step)
    return loss.detach()


@torch.inference_mode()
def measure(network: nn.Module, run: Run) -> tuple[float, list[float]]:
    """Loss and pseudo Dice of each structure over the validation batches.

    Source: the reference method: voxels of all patches are pooled before Dice is taken. It follows the training well
    but is no substitute for the Dice of whole cases. A structure that occurs in no patch and no prediction gives NaN.
    """
    network.eval()
    losses, counts = [], torch.zeros(3, len(run.loss.targets.names), dtype=torch.int64)
    for batch in run.validation.ahead(range(run.settings.validation_steps), workers=run.workers):
        images, labels = _to_device(batch, run.device)
        with autocast(run.device):
            logits = network(images)
        losses.append(run.loss((logits,), labels))
        counts += _count(logits, labels, run.loss.targets).cpu()
    hits, predicted, present = counts.tolist()
    dice = [2 * hit / (p + r) if p + r else math.nan for hit, p, r in zip(hits, predicted, present, strict=True)]
    return float(torch.stack(losses).mean()), dice


def describe_epoch(report: EpochReport) -> str:
    """One line for the console."""
    dice = "  ".join(f"{name} {value:.3f}" for name, value in report.pseudo_dice.items())
    return (
        f"epoch {report.epoch}: loss {report.training_loss:.3f}, held out {report.validation_loss:.3f}, "
        f"pseudo Dice {dice} ({report.seconds:.1f} s)"
    )


def _count(logits: torch.Tensor, labels: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Voxels of each structure, shape (3, structures): in both, in the prediction, in the target."""
    counted = None if targets.ignore is None else labels != targets.ignore
    if not targets.exclusive:
        predicted, present = logits > 0, Truth.of(labels, targets).present
        predicted = predicted if counted is None else predicted & counted.unsqueeze(1)
        axes = (0, *range(2, logits.ndim))
        return torch.stack([found.sum(axes) for found in (predicted & present, predicted, present)])
    predicted = logits.argmax(dim=1)
    if counted is not None:
        predicted, labels = predicted * counted, labels * counted
    hits = torch.where(predicted == labels, labels, 0)
    return torch.stack([one.flatten().bincount(minlength=targets.outputs)[1:] for one in (hits, predicted, labels)])


def _to_device(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    at_once = device.type == "cuda"  # an Apple GPU may read the memory only when it has been given away again
    return batch.images.to(device, non_blocking=at_once), batch.labels.to(device, non_blocking=at_once)
