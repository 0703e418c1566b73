"""Arrays of numpy and tensors of torch under the same names, so that predictions need torch only where a network does.

Code that is written for both calls the functions of `namespace(array)`, which has the names of the Python array API
standard, such as `flip`, `concat` and `stack`. `Arrays` is what differs: how arrays get to the device of the networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array of numpy or a tensor of torch."""


@dataclass(frozen=True, slots=True)
class NumpyDevice:
    """The CPU where a runtime other than torch calculates; it stands where torch has a device.

    Example:
        >>> str(NumpyDevice())
        'cpu'
    """

    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


Device = Any
"""A `NumpyDevice` or a device of torch: both have a `type`, such as "cpu" or "cuda"."""


def namespace(array: Array) -> Any:
    """Returns the functions for an array, by the names of the array API standard.

    Example:
        >>> namespace(np.zeros(2)).concat([np.zeros(1), np.ones(1)]).tolist()
        [0.0, 1.0]
    """
    return array_api_compat.array_namespace(array)


def as_numpy(array: Array) -> NDArray[Any]:
    """Returns an array of numpy, or a tensor in the memory of the CPU, as an array of numpy that shares its memory.

    Example:
        >>> as_numpy(np.ones(2)).tolist()
        [1.0, 1.0]
    """
    return np.asarray(array)


def device_of(array: Array) -> Device:
    """Returns the device on which an array is.

    Example:
        >>> device_of(np.ones(2)).type
        'cpu'
    """
    return NumpyDevice() if isinstance(array, np.ndarray) else array.device


def bring_to_cpu(array: Array) -> NDArray[Any]:
    """Returns an array of numpy with the values of an array on any device."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu())


def move_like(array: Array, other: Array) -> Array:
    """Returns an array on the device of another one."""
    return array if isinstance(array, np.ndarray) else array.to(other.device)


class Arrays(Protocol):
    """How arrays get to the device of the networks, and numbers back."""

    def start_copy(self, patches: NDArray[np.float32]) -> Callable[[], Array]:
        """Starts to copy a batch to the device; returns a function that waits for it and returns it."""

    def copy(self, array: NDArray[Any]) -> Array:
        """Copies an array of numpy to the device."""

    def allocate(self, shape: Sequence[int]) -> Array | None:
        """Returns float32 zeros in the device's own memory, if it has room to spare; None to take that of the CPU."""

    def wrap(self, array: NDArray[Any]) -> Array:
        """Returns an array in the memory of the CPU as the kind of array that is calculated with, sharing memory."""

    def separate_maps(self, logits: Array) -> Array:
        """Returns logits (n, outputs, *patch) with each map in a block of memory of its own."""

    def add_weighted(self, target: Array, logits: Array, weights: Array) -> None:
        """Adds logits (outputs, *tile) times weights (*tile) to a part of the logits of an image, in place."""

    def read_sum(self, logits: Array) -> Callable[[], float]:
        """Starts to sum up logits; returns a function that waits for the sum and returns it."""


class NumpyArrays:
    """Arrays of numpy, which are where they are needed already."""

    def start_copy(self, patches: NDArray[np.float32]) -> Callable[[], Array]:
        """Returns a function that returns the batch."""
        return lambda: patches

    def copy(self, array: NDArray[Any]) -> Array:
        """Returns the array."""
        return array

    def allocate(self, shape: Sequence[int]) -> None:
        """Returns None: the memory is that of the CPU."""

    def wrap(self, array: NDArray[Any]) -> Array:
        """Returns the array."""
        return array

    def separate_maps(self, logits: Array) -> Array:
        """Returns a contiguous array; see `Arrays.separate_maps`."""
        return np.ascontiguousarray(logits)

    def add_weighted(self, target: Array, logits: Array, weights: Array) -> None:
        """Adds logits times weights; sums are made in float32, also where the target has half precision."""
        for target_map, tile_map in zip(target, logits, strict=True):  # one class at a time, for the memory
            np.add(target_map, tile_map * weights, out=target_map, casting="same_kind")

    def read_sum(self, logits: Array) -> Callable[[], float]:
        """Returns a function that returns the sum."""
        total = float(logits.sum(dtype=np.float32))
        return lambda: total


def arrays_on(device: Device) -> Arrays:
    """Returns how arrays get to a device.

    Example:
        >>> arrays_on(NumpyDevice()).copy(np.ones(1)).tolist()
        [1.0]
    """
    if isinstance(device, NumpyDevice):
        return NumpyArrays()
    arrays: Arrays = import_module("autoseg.runtime.torch_arrays").TorchArrays(device)  # only where torch is
    return arrays
