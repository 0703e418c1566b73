"""All tensors of a structure in one block of memory, so that a single copy brings them to a device."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from math import prod
from typing import Any, Generic, TypeVar, cast

import torch

T = TypeVar("T")

ALIGNMENT_BYTES = 256
"""Each tensor of a block begins at a multiple of this. Source: the alignment of memory that CUDA allocates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """The place of one tensor in a block.

    Attributes:
        start: Index of its first byte.
        shape: Shape of the tensor.
        dtype: Type of its numbers.
    """

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def stop(self) -> int:
        """Index after its last byte."""
        return self.start + prod(self.shape) * self.dtype.itemsize

    def find_in(self, memory: torch.Tensor) -> torch.Tensor:
        """Returns the tensor in a block, as a view."""
        return memory[self.start : self.stop].view(self.dtype).view(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBlock(Generic[T]):
    """The tensors of a structure, one after the other.

    Attributes:
        memory: The bytes of all tensors, uint8.
        layout: The structure, with the place of each tensor instead of the tensor.

    Example:
        >>> block = TensorBlock.pack((torch.tensor([1, 2]), None, torch.tensor([[0.5]])))
        >>> block.unpack()
        (tensor([1, 2]), None, tensor([[0.5000]]))
    """

    memory: torch.Tensor
    layout: Any

    @classmethod
    def pack(cls, structure: T) -> "TensorBlock[T]":
        """Copies all tensors of a structure into one block; see `map_tensors` for what a structure is."""
        slots: list[tuple[_Slot, torch.Tensor]] = []

        def place(tensor: torch.Tensor) -> _Slot:
            end = slots[-1][0].stop if slots else 0
            start = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            slots.append((_Slot(start=start, shape=tuple(tensor.shape), dtype=tensor.dtype), tensor))
            return slots[-1][0]

        layout = map_tensors(structure, place)
        memory = torch.empty(slots[-1][0].stop if slots else 0, dtype=torch.uint8)
        for slot, tensor in slots:
            slot.find_in(memory).copy_(tensor)
        return cls(memory=memory, layout=layout)

    def unpack(self) -> T:
        """Returns the structure; its tensors are views of the block, on the device of the block."""
        return cast(T, _replace(self.layout, _Slot, lambda slot: slot.find_in(self.memory)))


def map_tensors(structure: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Returns a structure with changed tensors.

    Args:
        structure: A tensor, or a tuple or an instance of a dataclass whose entries are structures in turn; everything
            else stays as it is.
        change: Called with each tensor, always in the same order.

    Example:
        >>> map_tensors((torch.tensor(2), "two"), lambda tensor: tensor + 1)
        (tensor(3), 'two')
    """
    return _replace(structure, torch.Tensor, change)


def _replace(structure: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Returns a structure in which each leaf of a kind is replaced by what `change` returns for it."""
    if isinstance(structure, kind):
        return change(structure)
    if isinstance(structure, tuple):
        return tuple(_replace(entry, kind, change) for entry in structure)
    if is_dataclass(structure) and not isinstance(structure, type):
        names = [entry.name for entry in fields(structure) if entry.init]
        return replace(structure, **{name: _replace(getattr(structure, name), kind, change) for name in names})
    return structure
