"""Copies of batches to a CUDA GPU that run while the GPU calculates.

A copy has three steps. A thread that prepares a batch puts its tensors into one block of pinned memory. The loop starts
the copy of the block on a stream of its own, as soon as the batch is prepared. When the batch is used, the GPU, and not
the program, waits for the end of its copy. To every other device, batches are not copied ahead.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Generic, Self, TypeVar, cast

import torch

from autoseg.runtime.tensor_block import TensorBlock

T = TypeVar("T")


class CopyAhead(Generic[T]):
    """A batch that stays where it is: it is there already, or is copied to its device when a step needs it."""

    def __init__(self, batch: T) -> None:
        self._batch = batch

    def start(self) -> Self:
        """Starts the copy."""
        return self

    def finish(self) -> T:
        """Returns the batch for the work that follows."""
        return self._batch


class CudaCopyAhead(CopyAhead[T]):
    """The copy of a batch to a CUDA GPU.

    Args:
        batch: A structure of tensors on the CPU; see `tensor_block.map_tensors`.
        device: The GPU.
    """

    def __init__(self, batch: T, device: torch.device) -> None:
        self._device = device
        block = TensorBlock.pack(batch)
        self._block = replace(block, memory=block.memory.pin_memory())
        self._copied: tuple[torch.Tensor, torch.cuda.Event] | None = None

    def start(self) -> Self:
        """Starts the copy, on a stream of its own; the memory on the GPU belongs to that stream."""
        stream = _copy_stream(self._device)
        with torch.cuda.stream(stream):
            memory = self._block.memory.to(self._device, non_blocking=True)
            self._copied = memory, stream.record_event()
        return self

    def finish(self) -> T:
        """Returns the batch on the GPU.

        What the current stream does from now on waits for the copy, and the memory is kept until it is done.
        """
        if self._copied is None:
            self.start()
        memory, copied = cast(tuple[torch.Tensor, torch.cuda.Event], self._copied)
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        memory.record_stream(stream)
        return replace(self._block, memory=memory).unpack()


@lru_cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream of all copies to a GPU.

    There is only one, because torch keeps memory that was freed for the stream that it was allocated for.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def copy_ahead(batch: T, device: torch.device) -> CopyAhead[T]:
    """Prepares the copy of a batch to a device; called in the thread that has prepared the batch.

    Args:
        batch: A structure of tensors on the CPU; see `tensor_block.map_tensors`.
        device: The device.

    Example:
        >>> copy_ahead(torch.tensor(5), torch.device("cpu")).start().finish()
        tensor(5)
    """
    return CudaCopyAhead(batch, device) if device.type == "cuda" else CopyAhead(batch)
