"""Tensors on a device of torch, behind the interface of `arrays.Arrays`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.runtime.copy_ahead import copy_ahead
from autoseg.runtime.deferred_read import read_later
from autoseg.runtime.device import copy_to, free_gpu_memory

FULL_BYTES = 4


@dataclass(frozen=True, slots=True)
class TorchArrays:
    """Tensors on a device.

    Attributes:
        device: The device.
    """

    device: torch.device

    def start_copy(self, patches: NDArray[np.float32]) -> Callable[[], Tensor]:
        """Starts to copy a batch, which on a CUDA GPU runs beside its work."""
        copying = copy_ahead(torch.from_numpy(patches), self.device).start()
        return lambda: copying.finish().to(self.device)

    def copy(self, array: NDArray[Any]) -> Tensor:
        """Copies an array to the device."""
        return copy_to(torch.from_numpy(array), self.device)

    def allocate(self, shape: Sequence[int]) -> Tensor | None:
        """Returns zeros on a CUDA GPU that keeps as much memory again for tiles and for what follows."""
        if self.device.type == "cuda" and 2 * FULL_BYTES * prod(shape) < free_gpu_memory(self.device):
            return torch.zeros(tuple(shape), device=self.device)
        return None

    def wrap(self, array: NDArray[Any]) -> Tensor:
        """Returns the array as a tensor on the CPU."""
        return torch.from_numpy(array)

    def separate_maps(self, logits: Tensor) -> Tensor:
        """Returns a contiguous tensor; see `Arrays.separate_maps`."""
        return logits.contiguous()

    def add_weighted(self, target: Tensor, logits: Tensor, weights: Tensor) -> None:
        """Adds logits times weights on the device of the target."""
        logits, weights = logits.to(target.device), weights.to(target.device)
        if target.dtype == torch.float32 and target.device.type != "cpu":
            target.addcmul_(logits, weights)
            return
        for target_map, tile_map in zip(target, logits, strict=True):  # of one class at a time, whose weights stay near
            if target_map.dtype == torch.float32:
                target_map.addcmul_(tile_map.float(), weights)
            else:
                target_map.copy_(target_map.float().addcmul_(tile_map, weights))

    def read_sum(self, logits: Tensor) -> Callable[[], float]:
        """Starts to sum up logits, and to copy the sum to the CPU."""
        read = read_later(logits.sum(dtype=torch.float32))
        return lambda: float(read())
