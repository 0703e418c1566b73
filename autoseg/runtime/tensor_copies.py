"""Copies of tensors on the CPU, made again and again in the same memory."""

from collections.abc import Hashable
from typing import Any, TypeVar

import torch

from autoseg.runtime.device import wait_for

Content = TypeVar("Content")


class TensorCopies:
    """Memory of the CPU for copies of the tensors in a value, such as the state of a training.

    Memory for tensors of a CUDA GPU is pinned, so that all of them are copied at the full speed of the bus.

    Example:
        >>> copies, weight = TensorCopies(), torch.ones(2)
        >>> copied = copies.take({"weight": weight, "step": 3})
        >>> weight += 1
        >>> copied
        {'weight': tensor([1., 1.]), 'step': 3}
    """

    def __init__(self) -> None:
        self._copies: list[torch.Tensor] = []

    def take(self, content: Content) -> Content:
        """Copies a value of dictionaries, lists and tuples, whose tensors are copied and whose other parts are shared.

        The copies of the value that was taken before are overwritten. Tensors that share their memory share it in the
        copy, too, so that a file holds their values once.

        Args:
            content: The value, with tensors on any device.

        Returns:
            The copy, with tensors on the CPU.
        """
        copying = _Copying(self._copies)
        copied = copying.copy(content)
        self._copies = copying.copies
        for device in copying.busy:
            wait_for(device)
        return copied  # type: ignore[no-any-return]


class _Copying:
    """One copy of a value.

    Attributes:
        copies: The copies so far, in the order of the value.
        busy: The CUDA GPUs whose tensors are still being copied.
    """

    def __init__(self, memory: list[torch.Tensor]) -> None:
        self._memory = memory
        self._by_place: dict[Hashable, torch.Tensor] = {}
        self.copies: list[torch.Tensor] = []
        self.busy: set[torch.device] = set()

    def copy(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._copy_tensor(value.detach())
        if isinstance(value, dict):
            return {name: self.copy(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self.copy, value))
        return value

    def _copy_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        memory = tensor.untyped_storage()._cdata  # as torch.save tells which tensors share it
        place = (memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if place in self._by_place:
            return self._by_place[place].detach()
        copied = self._find_memory(tensor)
        copied.copy_(tensor, non_blocking=tensor.is_cuda)
        if tensor.is_cuda:
            self.busy.add(tensor.device)
        self.copies.append(copied)
        self._by_place[place] = copied
        return copied

    def _find_memory(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the memory that the same tensor had before, or new memory in the same order."""
        number = len(self.copies)
        if number < len(self._memory):
            former = self._memory[number]
            if (former.shape, former.stride(), former.dtype) == (tensor.shape, tensor.stride(), tensor.dtype):
                return former
        return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
