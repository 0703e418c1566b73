"""The gradients of a step: of a whole batch, in as many parts as the memory of the device allows."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from itertools import pairwise
from typing import cast

import torch

from autoseg.data.loader import Batch
from autoseg.device import (
    autocast,
    compiles_well,
    copy_to,
    free_cached_memory,
    gpu_memory_within_reach,
    is_memory_full,
    random_state,
    restore_random_state,
)
from autoseg.errors import UsageError
from autoseg.network.unet import UNet
from autoseg.reporting import Reporter
from autoseg.settings import TrainingSettings
from autoseg.training.losses import supervision_weights
from autoseg.training.own import find_idle
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.run import Run
from autoseg.training.state import Forward, TrainState
from autoseg.units import describe_memory

LONG_SECONDS, LONG_STEPS = 600, 2500
"""Decision: a tenth of it would go into compiling otherwise; the steps are those of ten usual epochs."""


def fill_gradients(state: TrainState, batch: Batch, run: Run, reporter: Reporter) -> torch.Tensor:
    """Puts the gradients of the loss of a batch into the weights, scaled by the state's scaler.

    If the memory of the device runs out, or a compiled network fails, the step is tried again: in micro-batches of half
    the size, down to single patches, or with the network as it is. What was found to work is kept for the steps to
    come, and said once. Nothing of a failed attempt is left: neither gradients nor draws of random numbers. Several
    ranks take the same parts at the same time, so there the memory of one that runs out ends the run.

    Args:
        state: Its gradients are replaced.
        batch: On the CPU.
        run: What to minimize, and where.
        reporter: Told about what did not work.

    Returns:
        The loss, a scalar on the device.

    Raises:
        RuntimeError: Torch's own, if not even a single patch fits.
    """
    start, draws = _settle_size(state, batch, run), random_state(run.device)
    size = start
    while True:
        try:
            state.optimizer.zero_grad(set_to_none=True)
            loss = _add_gradients(state, batch, run, size)
            break
        except Exception as error:
            if is_memory_full(error) and size > 1 and run.ranks.alone:
                size = (size + 1) // 2
            elif state.forward is not state.plain_forward:
                state.forward = state.plain_forward
                reporter.say(_describe_plain(error))
            else:
                raise
        # Only here, since the error holds on to the feature maps of the attempt.
        state.optimizer.zero_grad(set_to_none=True)
        free_cached_memory(run.device)
        restore_random_state(run.device, draws)
    if size < start:
        state.micro_batch_size = size
        reporter.say(_describe_parts(state, run, size))
    return loss


def _settle_size(state: TrainState, batch: Batch, run: Run) -> int:
    """Patches at once: all, or as many as the settings or a former step say."""
    limits = (run.settings.micro_batch_size, state.micro_batch_size)
    return min([len(batch.images), *(limit for limit in limits if limit is not None)])


def _add_gradients(state: TrainState, batch: Batch, run: Run, size: int) -> torch.Tensor:
    """Adds up the gradients of micro-batches, each weighted by its share of the patches; returns the loss.

    So a loss that is a mean over patches has the gradient of the whole batch. A loss that pools the voxels of several
    patches has not: batch Dice, top-k, and means over the voxels that were labelled, or weighted by class. It pools
    those of each micro-batch instead. Those of all ranks that learn from the batch are one micro-batch together.
    """
    if state.forward is None:
        state.plain_forward = _join_ranks(state, run)
        state.forward = _choose_forward(state.plain_forward, run)
    losses, parts = [], list(split_batch(batch, size, run.ranks))
    for number, part in enumerate(parts, start=1):
        moved = move_batch(part, run.device)
        with run.ranks.keep_apart(state.forward) if number < len(parts) else nullcontext():
            with autocast(run.device):
                outputs = state.forward(moved.images)
            loss = run.loss(outputs, moved.labels, moved.unknown) * _share_of_batch(part, batch, run.ranks)
            state.scaler.scale(run.ranks.undo_mean(loss)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return run.ranks.add_up(torch.stack(losses).sum())


def _share_of_batch(part: Batch, batch: Batch, ranks: Ranks) -> float:
    """Patches of a micro-batch, of all ranks, over those of the batch."""
    if len(part.images) == len(batch.images):
        return 1.0
    patches, whole = ranks.add_up(torch.tensor([len(part.images), len(batch.images)])).tolist()
    return float(patches / whole)


def split_batch(batch: Batch, size: int, ranks: Ranks = ALONE) -> Iterator[Batch]:
    """Gives the patches of a batch in order, at most `size` at a time, in parts as even as can be.

    All ranks make equally many parts, of which none is empty.

    Raises:
        UsageError: A rank has too few patches for that.
    """
    patches = len(batch.images)
    parts = ranks.find_largest(-(-patches // size))
    if ranks.find_largest(parts - patches) > 0:
        what = f"{ranks.count} processes cannot share a batch evenly in micro-batches of {size}"
        raise UsageError(
            what, f"raise batch_size to a multiple of {ranks.count}, or micro_batch_size to 2, in plan.json"
        )
    ends = [-(-patches * number // parts) for number in range(parts + 1)]
    for start, end in pairwise(ends):
        yield replace(batch, **{name: value[start:end] for name, value in _tensors(batch).items()})


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Copies a batch to a device."""
    return replace(batch, **{name: copy_to(value, device) for name, value in _tensors(batch).items()})


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """The fields of a batch with something for each patch."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def _join_ranks(state: TrainState, run: Run) -> Forward:
    """The network, as part of its ranks if there are others."""
    if not run.ranks.alone and not isinstance(state.network, UNet):
        return cast(Forward, run.ranks.join(state.network, find_idle(state.network, run)))
    architecture = run.training.configuration.architecture
    weights = supervision_weights(len(architecture.stages) - 1 if architecture.deep_supervision else 1)
    idle = [f"heads.{level}" for level, weight in enumerate(weights) if weight == 0]
    return cast(Forward, run.ranks.join(state.network, idle))


def _choose_forward(plain: Forward, run: Run) -> Forward:
    """The network itself, or a form of it compiled for patches of one size, which leaves weights and names alone."""
    wanted = run.settings.compile
    if wanted == "on" or (wanted == "auto" and compiles_well(run.device) and _is_long(run.settings)):
        return cast(Forward, torch.compile(plain, dynamic=False))
    return plain


def _is_long(settings: TrainingSettings) -> bool:
    """Whether a training lasts so long that the minute of compiling is soon made up for."""
    if settings.budget_seconds is not None:
        return settings.budget_seconds >= LONG_SECONDS
    return settings.epochs * settings.steps_per_epoch >= LONG_STEPS


def _describe_plain(error: Exception) -> str:
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the network runs uncompiled, which is slower, because compiling it failed: {cause}"


def _describe_parts(state: TrainState, run: Run, size: int) -> str:
    configuration, found = run.training.configuration, gpu_memory_within_reach(run.device)
    estimate = f"plan.json estimates {describe_memory(configuration.estimated_bytes)}"
    if not isinstance(state.network, UNet):
        estimate = "no estimate knows this network"
    beside = "" if found is None else f", and {describe_memory(found)} could be had"
    return (
        f"the memory of the device {run.device} is too small for a step of {configuration.batch_size} patches at once "
        f"({estimate}{beside}); from now on each step takes {size} at a time and adds up their gradients"
    )
