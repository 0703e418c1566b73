"""Where the logits of a whole image are summed up: on the GPU, in the memory of the CPU, or in a file on the disk.

They are by far the largest array of a prediction: 117 classes at 400 x 273 x 273 voxels are 14 GB. Whether they fit is
known before the first tile is added, so that nothing is killed for want of memory in the middle of the work.
"""

import os
import shutil
import tempfile
from math import prod

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import AutosegError
from autoseg.runtime.device import free_gpu_memory
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


def allocate_logits(shape: tuple[int, ...], device: torch.device) -> Tensor:
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
    values = prod(shape)
    if device.type == "cuda" and 2 * FULL_BYTES * values < free_gpu_memory(device):
        return torch.zeros(shape, device=device)
    if HALF_BYTES * values > LARGE_BYTES:
        release_freed_memory()
    free = free_memory_bytes()
    available = None if free is None else SHARE_OF_FREE_MEMORY * free
    if available is None or FULL_BYTES * values <= available:
        return torch.zeros(shape)
    if HALF_BYTES * values <= available:
        return torch.zeros(shape, dtype=torch.float16)
    return _allocate_on_disk(shape)


def add_weighted(target: Tensor, logits: Tensor, weights: Tensor) -> None:
    """Adds the logits of a tile to a part of the logits of an image, in place.

    Example:
        >>> target = torch.ones(1, 2)
        >>> add_weighted(target, torch.tensor([[10.0, 20.0]]), torch.tensor([0.5, 0.25]))
        >>> target.tolist()
        [[6.0, 6.0]]

    Args:
        target: Part (outputs, *tile) of the logits of an image, float32 or float16.
        logits: Logits of the tile, (outputs, *tile).
        weights: Weight of each voxel, (*tile).
    """
    logits, weights = logits.to(target.device), weights.to(target.device)
    if target.dtype == torch.float32:
        target.addcmul_(logits, weights)
        return
    for target_map, tile_map in zip(target, logits, strict=True):  # sums in float32, of one class at a time
        target_map.copy_(target_map.float().addcmul_(tile_map, weights))


def _allocate_on_disk(shape: tuple[int, ...]) -> Tensor:
    """Returns float16 zeros in a file without a name, which vanishes with the tensor, also after `kill -9`."""
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
    return torch.from_numpy(mapped)


def _reserve(file: int, size: int) -> None:
    """Reserves the blocks of a file now: a disk that is full later would end the program without a message."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(ZEROS_AT_ONCE)
    for start in range(0, size, ZEROS_AT_ONCE):
        os.write(file, zeros[: size - start])
