"""The same resampling with torch, on the device where an image or its logits are; see `resampling`, `label_resampling`.

A GPU multiplies whole matrices faster than it would look for mixed cells, so here every output is resampled everywhere,
one after the other: only one, and the best so far, are in memory at the size that is wanted.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing.resampling import IMAGE_ORDER, resampling_matrix, separate_axis

VOLUMES_HELD = 6
"""Float32 volumes of the wanted size that an election holds at most, with the masks between them."""


def resample_image_on(
    device: torch.device, image: NDArray[np.float32], spacing_mm: Vector, shape: Shape, target_spacing_mm: Vector
) -> NDArray[np.float32]:
    """Resamples an image by cubic splines on a device; see `resample_image`, to which it is equal within rounding."""
    if image.shape[1:] == shape:
        return image
    separate = separate_axis(spacing_mm, target_spacing_mm)
    result = np.empty((len(image), *shape), dtype=np.float32)
    for channel, target in zip(image, result, strict=True):
        volume = torch.from_numpy(np.ascontiguousarray(channel)).to(device)
        target[...] = _resample(volume, shape, separate).cpu().numpy()
    return result


def elect_resampled_on_device(
    logits: Tensor, spacing_mm: Vector, shape: Shape, target_spacing_mm: Vector, *, exclusive: bool
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Who is elected after linear interpolation of all logits, on their device; see `elect_resampled`.

    Args:
        logits: Shape (outputs, z, y, x).
        spacing_mm: Of the logits.
        shape: Wanted (z, y, x).
        target_spacing_mm: Of the result.
        exclusive: Whether the outputs are classes, of which the highest wins, or regions, of which the last positive
            one does.

    Returns:
        The wanted shape, uint8, or int16 if there are more than 255 outputs; in the memory of the CPU.
    """
    volumes = _interpolate_each(logits, shape, separate_axis(spacing_mm, target_spacing_mm))
    dtype = torch.uint8 if len(logits) <= 255 else torch.int16
    best = next(volumes).clone() if exclusive else None
    winner = torch.zeros(shape, dtype=dtype, device=logits.device)
    for number, values in enumerate(volumes, start=1):
        wins = values > (0 if best is None else best)
        winner.masked_fill_(wins, number)
        if best is not None:
            torch.maximum(best, values, out=best)
    elected: NDArray[np.uint8] | NDArray[np.int16] = winner.cpu().numpy()
    return elected


def has_room_for(logits: Tensor, shape: Shape) -> bool:
    """Whether the memory of their device holds what an election at this shape needs."""
    if logits.device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(logits.device)
    return VOLUMES_HELD * 4 * int(np.prod(shape)) < free


def _interpolate_each(logits: Tensor, shape: Shape, separate: int | None) -> Iterator[Tensor]:
    """Each output at the wanted shape; linear, but nearest along an axis that keeps slices apart."""
    near = None if separate is None else _nearest(logits.shape[1 + separate], shape[separate], logits.device)
    for volume in logits:
        chosen = volume if near is None or separate is None else volume.index_select(separate, near)
        # without aligned corners it is what scipy calls a grid: border to border, the outermost voxel beyond it
        grown = F.interpolate(chosen.float()[None, None], size=shape, mode="trilinear", align_corners=False)
        yield grown[0, 0]


def _resample(volume: Tensor, shape: Shape, separate: int | None) -> Tensor:
    """One channel by cubic splines, clipped to its range, or to that of each slice where slices are kept apart."""
    if separate is not None:
        volume = volume.index_select(separate, _nearest(volume.shape[separate], shape[separate], volume.device))
    axes = [axis for axis in range(3) if axis != separate]
    low, high = volume.amin(axes, keepdim=True), volume.amax(axes, keepdim=True)
    for axis in sorted(axes, key=lambda axis: shape[axis] / volume.shape[axis]):  # those that shrink come first
        if volume.shape[axis] != shape[axis]:
            matrix = torch.from_numpy(resampling_matrix(volume.shape[axis], shape[axis], IMAGE_ORDER).copy())
            volume = torch.tensordot(matrix.to(volume), volume, dims=([1], [axis])).movedim(0, axis)
    return torch.minimum(torch.maximum(volume, low), high)


def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    """The nearest of `old` slices for each new one."""
    return torch.from_numpy(resampling_matrix(old, new, 0).argmax(axis=1)).to(device)
