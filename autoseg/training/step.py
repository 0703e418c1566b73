"""The gradients of a step: of a whole batch, in as many parts as the memory of the device allows."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from itertools import pairwise
from typing import cast

import torch

from autoseg.dataloading.batch import Batch
from autoseg.errors import UsageError
from autoseg.networks.default_unet import UNet
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.device import (
    autocast,
    compiles_well,
    copy_to,
    forget_peak,
    free_cached_memory,
    gpu_memory_within_reach,
    is_memory_full,
    peak_bytes,
    random_state,
    restore_random_state,
    tells_when_full,
)
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.units import describe_memory
from autoseg.training.plugin_checks import find_idle
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.state import Forward, Run, TrainState

MOST_MEANS = 2
"""Numbers that an optimizer keeps for each weight: two running means, or one momentum."""

LONG_SECONDS, LONG_STEPS = 600, 2500
"""Decision: a tenth of it would go into compiling otherwise; the steps are those of ten usual epochs."""


def fill_gradients(state: TrainState, batch: Batch, run: Run, reporter: Reporter) -> torch.Tensor:
    """Puts the gradients of the loss of a batch into the weights, scaled by the state's scaler.

    If the memory of the device runs out, or a compiled network fails, the step is tried again: in micro-batches of half
    the size, down to single patches, or with the network as it is. What was found to work is kept for the steps to
    come, and said once. Nothing of a failed attempt is left: neither gradients nor draws of random numbers.

    Several ranks cannot do so in the middle of a step, where they wait for each other. Each finds out by itself before
    the first one what fits; see `_try_alone`. A memory that runs out after that ends the run.

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
    if state.plain_forward is None:
        state.plain_forward = _join_ranks(state, run)
        _try_alone(state, batch, run, reporter)
    start, draws = _resolve_size(state, batch, run), random_state(run.device)
    size, failed, there, whole = start, start, None, len(batch.images)
    while True:
        try:
            state.optimizer.zero_grad(set_to_none=True)
            loss = _add_gradients(state, batch, run, size)
            break
        except Exception as error:
            if is_memory_full(error) and size > 1 and run.ranks.alone:
                size, failed = (size + 1) // 2, size
            elif state.forward is not state.plain_forward:
                state.forward = state.plain_forward
                reporter.say(_describe_plain(error))
            else:
                raise
        # Only here, since the error holds on to the feature maps of the attempt.
        state.optimizer.zero_grad(set_to_none=True)
        free_cached_memory(run.device)
        forget_peak(run.device)
        there = gpu_memory_within_reach(run.device)
        restore_random_state(run.device, draws)
    if size < start:
        state.micro_batch_size = size
        reporter.say(_describe_parts(run, size, there))
        known = {_in_a_part(whole, failed): there, _in_a_part(whole, size): peak_bytes(run.device)}
        run.note_memory({patches: least for patches, least in known.items() if least is not None})
    return loss


def _try_alone(state: TrainState, batch: Batch, run: Run, reporter: Reporter) -> None:
    """Lets each of several ranks take its share of a step alone, in as many parts as its memory asks for.

    Nobody waits for anybody in that trial, so a memory that runs out is met as it is by a single process. Nothing of it
    is left but the size of a part; in the steps to come all make as many parts as the one that needs most, see
    `split_batch`. What the optimizer will keep from its first step on is reserved meanwhile; what adds up the gradients
    is there already.
    """
    if run.ranks.alone or not tells_when_full(run.device):
        return
    trial = replace(state, forward=cast(Forward, state.network), plain_forward=cast(Forward, state.network))
    alone = replace(run, ranks=ALONE, loss=replace(run.loss, ranks=ALONE))
    start, draws = _resolve_size(state, batch, run), random_state(run.device)
    buffers = [values.clone() for values in state.network.buffers()]
    weights = sum(values.numel() for values in state.network.parameters())
    reserved = torch.empty(0 if state.optimizer.state else MOST_MEANS * weights, device=run.device)
    fill_gradients(trial, batch, alone, SILENT)
    del reserved
    state.optimizer.zero_grad(set_to_none=True)
    for values, kept in zip(state.network.buffers(), buffers, strict=True):
        values.copy_(kept)
    free_cached_memory(run.device)
    restore_random_state(run.device, draws)
    state.micro_batch_size = trial.micro_batch_size
    patches = len(batch.images)
    before, parts = (run.ranks.find_largest(-(-patches // size)) for size in (start, _resolve_size(state, batch, run)))
    if parts > before:
        reporter.say(_describe_shares(run, -(-patches // parts)))


def _resolve_size(state: TrainState, batch: Batch, run: Run) -> int:
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
        state.forward = _choose_forward(cast(Forward, state.plain_forward), run)
    losses, parts = [], list(split_batch(batch, size, run.ranks))
    for number, part in enumerate(parts, start=1):
        moved = move_batch(part, run.device)
        with run.ranks.without_all_reduce(state.forward) if number < len(parts) else nullcontext():
            with autocast(run.device):
                outputs = state.forward(moved.images)
            loss = run.loss(outputs, moved.labels, moved.unknown) * _share_of_batch(part, batch, run.ranks)
            state.scaler.scale(run.ranks.undo_mean(loss)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return run.ranks.all_reduce(torch.stack(losses).sum())


def _share_of_batch(part: Batch, batch: Batch, ranks: Ranks) -> float:
    """Patches of a micro-batch, of all ranks, over those of the batch."""
    if len(part.images) == len(batch.images):
        return 1.0
    patches, whole = ranks.all_reduce(torch.tensor([len(part.images), len(batch.images)])).tolist()
    return float(patches / whole)


def _in_a_part(patches: int, size: int) -> int:
    """Patches of the largest part, if so many are split into parts of at most `size`."""
    return -(-patches // -(-patches // size))


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
        return cast(Forward, run.ranks.wrap_ddp(state.network, find_idle(state.network, run)))
    architecture = run.training.configuration.architecture
    coarsest = len(architecture.stages) - 2
    idle = [f"heads.{coarsest}"] if architecture.deep_supervision and coarsest > 0 else []  # its loss does not count
    return cast(Forward, run.ranks.wrap_ddp(state.network, idle))


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


def advise_on_memory(ranks: Ranks) -> str:
    """What to do if not even what fitted before fits any more."""
    if ranks.alone:
        return "stop other programs that use it, or plan again with less --memory"
    return (
        "stop other programs that use it, or set a smaller micro_batch_size in plan.json, and run the same command "
        "again: it goes on after the last epoch"
    )


def _describe_shares(run: Run, size: int) -> str:
    patches = run.training.configuration.batch_size
    return (
        f"the memory of a device is too small for its share of a step of {patches} patches at once; from now "
        f"on each of the {run.ranks.count} processes takes {size} at a time and adds up their gradients"
    )


def _describe_parts(run: Run, size: int, found: int | None) -> str:
    configuration = run.training.configuration
    estimate = f"plan.json estimates {describe_memory(configuration.estimated_bytes)}"
    if configuration.is_foreign:
        estimate = "no estimate knows this network"
    beside = "" if found is None else f", and {describe_memory(found)} could be had"
    return (
        f"the memory of the device {run.device} is too small for a step of {configuration.batch_size} patches at once "
        f"({estimate}{beside}); from now on each step takes {size} at a time and adds up their gradients"
    )
