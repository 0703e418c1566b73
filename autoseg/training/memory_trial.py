"""A step that fits into the memory of the device: tried again in smaller micro-batches until it does."""

from dataclasses import replace
from math import prod
from typing import cast

import torch

from autoseg.dataloading.batch import Batch
from autoseg.runtime.compiler import describe_fallback
from autoseg.runtime.device import (
    forget_peak,
    free_cached_memory,
    gpu_memory_within_reach,
    peak_bytes,
    random_state,
    restore_random_state,
    tells_when_full,
)
from autoseg.runtime.full_memory import is_memory_full
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.units import describe_memory
from autoseg.training.compilation import choose_forward, wrap_network
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.state import Forward, Run, TrainState
from autoseg.training.step import accumulate_gradients

VALUES_PER_WEIGHT = 2
"""Largest number of values that an optimizer keeps for each weight: two running means, or one momentum."""


def fill_gradients(state: TrainState, batch: Batch, run: Run, reporter: Reporter) -> torch.Tensor:
    """Puts the gradients of the loss of a batch into the weights, scaled by the scaler of the state.

    If the memory of the device runs out, or a compiled network fails, the step is tried again: in micro-batches of half
    the size, down to single patches, or with the uncompiled network. What works is kept for the following steps, and
    reported once. A failed attempt leaves nothing behind: neither gradients nor draws of random numbers.

    Several ranks cannot do so in the middle of a step, where they wait for each other. Before the first step each finds
    out by itself what fits; see `_try_alone`. If the memory of one of them runs out after that, the run ends.

    Args:
        state: Its gradients are replaced.
        batch: The patches of this rank, on the CPU or on the device.
        run: The loss, the device and the ranks.
        reporter: Told about attempts that failed.

    Returns:
        The loss, a scalar on the device.

    Raises:
        RuntimeError: Torch's own error, if not even a single patch fits.
    """
    if state.plain_forward is None:
        state.plain_forward = wrap_network(state, run)
        _try_alone(state, batch, run, reporter)
    start, random_numbers = _resolve_size(state, batch, run), random_state(run.device)
    size, failed_size, available_bytes = start, start, None
    while True:
        try:
            state.optimizer.zero_grad(set_to_none=True)
            if state.forward is None:
                state.forward = choose_forward(state.plain_forward, run)
            loss = accumulate_gradients(state.forward, batch, run, state.scaler, micro_batch_size=size)
            break
        except Exception as error:
            if is_memory_full(error) and size > 1 and run.ranks.alone:
                size, failed_size = (size + 1) // 2, size
            elif state.forward is not state.plain_forward:
                state.forward = state.plain_forward
                reporter.say(describe_fallback(error))
            else:
                raise
        # Only after the handler, because the error holds on to the feature maps of the attempt.
        state.optimizer.zero_grad(set_to_none=True)
        free_cached_memory(run.device)
        forget_peak(run.device)
        available_bytes = gpu_memory_within_reach(run.device)
        restore_random_state(run.device, random_numbers)
    if size < start:
        state.micro_batch_size = max(1, size // _count_in_full_patch(batch, run))
        whole = len(batch.images)
        reporter.say(_describe_micro_batches(run, size, whole, available_bytes))
        least_bytes = {_largest_part(whole, failed_size): available_bytes}
        least_bytes[_largest_part(whole, size)] = peak_bytes(run.device)
        state.note_memory(least_bytes if _count_in_full_patch(batch, run) == 1 else {})
    return loss


def _try_alone(state: TrainState, batch: Batch, run: Run, reporter: Reporter) -> None:
    """Lets each of several ranks take its share of a step alone, in as many micro-batches as its memory needs.

    No rank waits for another in that trial, so a full memory is handled as in a single process. Nothing of the trial is
    kept but the size of a micro-batch, and the memory that was measured; in the following steps all ranks make as many
    parts as the one that needs most, see `split_batch`. What the optimizer will keep from its first step on is reserved
    during the trial; the buckets in which the gradients are averaged are allocated already.
    """
    if run.ranks.alone or not tells_when_full(run.device):
        return
    if run.training.configuration.patch_growth:
        batch = run.training.make(state.step)  # of full size, which the first steps have not yet
    trial = replace(state, forward=cast(Forward, state.network), plain_forward=cast(Forward, state.network))
    alone = replace(run, ranks=ALONE, loss=replace(run.loss, ranks=ALONE))
    start, random_numbers = _resolve_size(state, batch, run), random_state(run.device)
    buffers = [buffer.clone() for buffer in state.network.buffers()]
    weights = sum(values.numel() for values in state.network.parameters())
    reserved = torch.empty(0 if state.optimizer.state else VALUES_PER_WEIGHT * weights, device=run.device)
    fill_gradients(trial, batch, alone, SILENT)
    del reserved
    state.optimizer.zero_grad(set_to_none=True)
    for buffer, saved in zip(state.network.buffers(), buffers, strict=True):
        buffer.copy_(saved)
    free_cached_memory(run.device)
    restore_random_state(run.device, random_numbers)
    state.micro_batch_size = trial.micro_batch_size
    patches = len(batch.images)
    before, parts = (
        run.ranks.all_reduce_max(-(-patches // size)) for size in (start, _resolve_size(state, batch, run))
    )
    if parts > before:
        reporter.say(_describe_shares(run, -(-patches // parts)))


def _resolve_size(state: TrainState, batch: Batch, run: Run) -> int:
    """Returns the number of patches at once: all, or as many as the settings or an earlier step allow.

    The limits are for patches of the full size; of the smaller ones that training may begin with, as many more are
    allowed as have the same number of voxels.
    """
    limits, smaller = (run.settings.micro_batch_size, state.micro_batch_size), _count_in_full_patch(batch, run)
    return min([len(batch.images), *(limit * smaller for limit in limits if limit is not None)])


def _count_in_full_patch(batch: Batch, run: Run) -> int:
    """Returns how many patches of a batch have at most the voxels of a patch of full size."""
    return max(1, run.training.configuration.patch_voxels // prod(batch.images.shape[2:]))


def _largest_part(patches: int, size: int) -> int:
    """Returns the number of patches in the largest part of a batch that is split into parts of at most `size`."""
    return -(-patches // -(-patches // size))


def advise_on_memory(ranks: Ranks) -> str:
    """Returns what to do if a step no longer fits into the memory that it fitted into before."""
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


def _describe_micro_batches(run: Run, size: int, patches: int, available_bytes: int | None) -> str:
    configuration = run.training.configuration
    estimate = f"plan.json estimates {describe_memory(configuration.estimated_bytes)}"
    if configuration.is_foreign:
        estimate = "no estimate knows this network"
    available = "" if available_bytes is None else f", and {describe_memory(available_bytes)} could be had"
    return (
        f"the memory of the device {run.device} is too small for a step of {patches} patches at once "
        f"({estimate}{available}); from now on each step takes {size} at a time and adds up their gradients"
    )
