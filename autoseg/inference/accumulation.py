"""Where the logits of a whole image are summed up: on the GPU, in the memory of the CPU, or in a file on the disk.

They are by far the largest array of a prediction: 117 classes at 400 x 273 x 273 voxels are 14 GB. Whether they fit is
known before the first tile is added, so that nothing is killed for want of memory in the middle of the work.
"""

import os
import shutil
import tempfile
from math import prod

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import AutosegError
from autoseg.runtime.arrays import Array, Device, arrays_on
from autoseg.runtime.machine import free_memory_bytes, release_freed_memory
from autoseg.runtime.units import describe_memory

FULL_BYTES, HALF_BYTES = 4, 2

SHARE_OF_FREE_MEMORY = 0.5
"""Share of the free memory that logits may take. Decision: the other half is for tiles and for what follows."""

LARGE_BYTES = 2**30

ZEROS_AT_ONCE = 2**24


def logits_bytes(outputs: int, voxels: int) -> int:
    """Returns the memory in bytes that the logits of an image take in full precision.

    Example:
        >>> logits_bytes(outputs=3, voxels=1000)
        12000
    """
    return FULL_BYTES * outputs * voxels


def allocate_logits(shape: tuple[int, ...], device: Device) -> Array:
    """Returns zeros, to which the logits of tiles are added.

    Args:
        shape: Shape (outputs, z, y, x).
        device: Device of the network.

    Returns:
        On the device if it is a CUDA GPU that keeps as much memory again for tiles and for what follows, else on the
        CPU; float32 if half of its free memory is enough, else float16, in memory or in a file without a name.
        Decision: float16 has ten times the precision of the bfloat16 in which networks calculate.

    Raises:
        AutosegError: Neither memory nor disk hold them.
    """
    values, arrays = prod(shape), arrays_on(device)
    on_device = arrays.allocate(shape)
    if on_device is not None:
        return on_device
    if HALF_BYTES * values > LARGE_BYTES:
        release_freed_memory()
    free = free_memory_bytes()
    available = None if free is None else SHARE_OF_FREE_MEMORY * free
    if available is None or FULL_BYTES * values <= available:
        return arrays.wrap(np.zeros(shape, dtype=np.float32))
    if HALF_BYTES * values <= available:
        return arrays.wrap(np.zeros(shape, dtype=np.float16))
    return arrays.wrap(_allocate_on_disk(shape))


def _allocate_on_disk(shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Returns float16 zeros in a file without a name, which vanishes with the array, also after `kill -9`."""
    needed, folder = HALF_BYTES * prod(shape), tempfile.gettempdir()
    what = f"the scores of this image take {describe_memory(needed)}, for which neither memory nor {folder} has room"
    advice = "close other programs, or point TMPDIR to a folder on a larger disk"
    if needed > shutil.disk_usage(folder).free:
        raise AutosegError(what, advice)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), needed)
            mapped = np.memmap(file, dtype=np.float16, mode="r+", shape=shape)
    except OSError as error:
        raise AutosegError(what, advice) from error
    return mapped


def _reserve(file: int, size: int) -> None:
    """Reserves the blocks of a file now: a disk that is full later would end the program without a message."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(ZEROS_AT_ONCE)
    for start in range(0, size, ZEROS_AT_ONCE):
        os.write(file, zeros[: size - start])
