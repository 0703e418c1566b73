"""The gradients of one step: the loss of a batch, backwards, in micro-batches that are added up."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from itertools import pairwise
from typing import cast

import torch
from torch import nn

from autoseg.dataloading.batch import Batch
from autoseg.errors import UsageError
from autoseg.runtime.device import autocast, copy_to
from autoseg.training.cuda_graphs import begin_micro_batch, captures_graphs
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.state import Forward, Run


def accumulate_gradients(
    forward: Forward, batch: Batch, run: Run, scaler: torch.amp.GradScaler, *, micro_batch_size: int
) -> torch.Tensor:
    """Adds the gradients of the loss of a batch to the weights, micro-batch by micro-batch.

    Each micro-batch is weighted by its share of the patches, so a loss that is a mean over patches has the gradient of
    the whole batch. A loss that pools the voxels of several patches has not: batch Dice, top-k, and means over the
    voxels that were labelled, or weighted by class. It pools those of each micro-batch instead. The micro-batches that
    all ranks process at the same time count as one.

    Args:
        forward: The network, as `TrainState.forward` has it.
        batch: The patches of this rank, on the CPU or on the device.
        run: The loss, the device and the ranks.
        scaler: Scales the loss before the gradients are calculated.
        micro_batch_size: Largest number of patches that are processed at once.

    Returns:
        The loss of the batch of all ranks, a scalar on the device, without a gradient.
    """
    losses, parts, in_graphs = [], list(split_batch(batch, micro_batch_size, run.ranks)), captures_graphs(run)
    for number, part in enumerate(parts, start=1):
        moved = move_batch(part, run.device)
        if in_graphs:
            begin_micro_batch(cast(nn.Module, forward), number)
        with run.ranks.without_all_reduce(forward) if number < len(parts) else nullcontext():
            with autocast(run.device):
                outputs = forward(moved.images)
            loss = run.loss(outputs, moved.labels, moved.unknown, moved.shapes, moved.soft)
            loss = loss * _share_of_batch(part, batch, run.ranks)
            scaler.scale(run.ranks.scale_for_ddp(loss)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return run.ranks.all_reduce(torch.stack(losses).sum())


def _share_of_batch(part: Batch, batch: Batch, ranks: Ranks) -> float:
    """Returns the number of patches of a micro-batch, over all ranks, divided by that of the whole batch."""
    patches, whole = len(part.images), len(batch.images)
    if patches < whole and not ranks.alone:
        patches, whole = ranks.all_reduce(torch.tensor([patches, whole])).tolist()
    return patches / whole


def split_batch(batch: Batch, size: int, ranks: Ranks = ALONE) -> Iterator[Batch]:
    """Yields the patches of a batch in order, at most `size` at a time, in parts as even as possible.

    All ranks make equally many parts, of which none is empty.

    Raises:
        UsageError: A rank has too few patches for that.
    """
    patches = len(batch.images)
    parts = ranks.all_reduce_max(-(-patches // size))
    if ranks.all_reduce_max(parts - patches) > 0:
        raise UsageError(
            f"{ranks.count} processes cannot share a batch evenly in micro-batches of {size}",
            f"raise batch_size to a multiple of {ranks.count}, or micro_batch_size to 2, in plan.json",
        )
    ends = [-(-patches * number // parts) for number in range(parts + 1)]
    for start, end in pairwise(ends):
        yield replace(batch, **{name: value[start:end] for name, value in _tensors(batch).items()})


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Copies a batch to a device, unless it is there already."""
    return replace(batch, **{name: copy_to(value, device) for name, value in _tensors(batch).items()})


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Returns the fields of a batch that hold something for each patch, by name."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
