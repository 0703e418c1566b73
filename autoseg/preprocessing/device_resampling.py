"""Resampling by torch, on the device where an image or its logits are; see `resampling` and `label_resampling`.

A GPU multiplies whole matrices faster than it could search for mixed cells, so here every output is resampled
everywhere, one after the other: only one of them, and the best so far, are in memory at the new size.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing.resampling import IMAGE_ORDER, Order, resampling_matrix, separate_axis
from autoseg.runtime.device import free_cached_memory, free_gpu_memory
from autoseg.runtime.full_memory import is_memory_full

T = TypeVar("T")

VOLUMES_HELD = 6
"""Number of float32 volumes of the new size that `resample_and_choose_on_device` holds at most, with its masks."""


def resample_image_on(
    device: torch.device,
    image: NDArray[np.float32],
    spacing_mm: Vector,
    shape: Shape,
    target_spacing_mm: Vector,
    order: Order = IMAGE_ORDER,
) -> NDArray[np.float32]:
    """Resamples an image on a device by splines, cubic ones unless another order is given.

    Args:
        device: Where to resample.
        image: Shape (c, z, y, x).
        spacing_mm: Spacing of the image, (z, y, x).
        shape: Shape of the result, (z, y, x).
        target_spacing_mm: Spacing of the result; with `spacing_mm` it decides whether slices are kept apart.
        order: Order of the splines.

    Returns:
        The image that `resample_image` returns, within rounding, in the memory of the CPU.

    Example:
        >>> image = np.ones((1, 1, 1, 2), dtype=np.float32)
        >>> resample_image_on(torch.device("cpu"), image, (1.0, 1.0, 1.0), (1, 1, 3), (1.0, 1.0, 0.667)).shape
        (1, 1, 1, 3)
    """
    if image.shape[1:] == shape:
        return image
    separate = separate_axis(spacing_mm, target_spacing_mm)
    result = np.empty((len(image), *shape), dtype=np.float32)
    for channel, target in zip(image, result, strict=True):
        volume = torch.from_numpy(np.ascontiguousarray(channel)).to(device)
        target[...] = _resample(volume, shape, separate, order).cpu().numpy()
    return result


def resample_and_choose_on_device(
    logits: Tensor, spacing_mm: Vector, shape: Shape, target_spacing_mm: Vector, *, exclusive: bool
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Interpolates all logits linearly and chooses an output at each voxel, on the device of the logits.

    Args:
        logits: Shape (outputs, z, y, x).
        spacing_mm: Spacing of the logits, (z, y, x).
        shape: Shape of the result, (z, y, x).
        target_spacing_mm: Spacing of the result; with `spacing_mm` it decides whether slices are kept apart.
        exclusive: Whether the outputs are classes, of which the highest logit is chosen, or regions, of which the last
            positive one is.

    Returns:
        The numbers that `resample_and_choose` returns, uint8, or int16 if there are more than 255 outputs; in the
        memory of the CPU.

    Example:
        >>> logits = torch.tensor([[[[1.0, 1.0]]], [[[0.0, 4.0]]]])
        >>> spacings = (1.0, 1.0, 1.0), (1.0, 1.0, 0.5)
        >>> resample_and_choose_on_device(logits, spacings[0], (1, 1, 4), spacings[1], exclusive=True).tolist()
        [[[0, 0, 1, 1]]]
    """
    volumes = _interpolate_each(logits, shape, separate_axis(spacing_mm, target_spacing_mm))
    dtype = torch.uint8 if len(logits) <= 255 else torch.int16
    best = next(volumes).clone() if exclusive else None
    chosen = torch.zeros(shape, dtype=dtype, device=logits.device)
    for number, values in enumerate(volumes, start=1):
        is_better = values > (0 if best is None else best)
        chosen.masked_fill_(is_better, number)
        if best is not None:
            torch.maximum(best, values, out=best)
    result: NDArray[np.uint8] | NDArray[np.int16] = chosen.cpu().numpy()
    return result


def resample_image_if_it_fits(
    device: torch.device,
    image: NDArray[np.float32],
    spacing_mm: Vector,
    shape: Shape,
    target_spacing_mm: Vector,
    order: Order = IMAGE_ORDER,
) -> NDArray[np.float32] | None:
    """Returns what `resample_image_on` returns, or None if the memory of the device is full."""
    return _unless_full(device, lambda: resample_image_on(device, image, spacing_mm, shape, target_spacing_mm, order))


def choose_if_it_fits(
    logits: Tensor, spacing_mm: Vector, shape: Shape, target_spacing_mm: Vector, *, exclusive: bool
) -> NDArray[np.uint8] | NDArray[np.int16] | None:
    """Returns what `resample_and_choose_on_device` returns, or None if the memory of the device does not hold it."""
    if not fits_in_memory(logits, shape):
        return None
    return _unless_full(
        logits.device,
        lambda: resample_and_choose_on_device(logits, spacing_mm, shape, target_spacing_mm, exclusive=exclusive),
    )


def fits_in_memory(logits: Tensor, shape: Shape) -> bool:
    """Returns whether the memory of the device of the logits holds what `resample_and_choose_on_device` needs."""
    if logits.device.type != "cuda":
        return True
    return VOLUMES_HELD * 4 * int(np.prod(shape)) < free_gpu_memory(logits.device)


def _unless_full(device: torch.device, calculate: Callable[[], T]) -> T | None:
    """Returns what a function calculates on a device, or None if the memory of the device is full.

    Other programs, and other threads of this one, use the memory as well, so only the attempt tells.
    """
    try:
        return calculate()
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
    free_cached_memory(device)  # only after the handler, because the error holds on to the volumes of the attempt
    return None


def _interpolate_each(logits: Tensor, shape: Shape, separate: int | None) -> Iterator[Tensor]:
    """Yields each output at the new shape: linear, but nearest along an axis that keeps slices apart."""
    near = None if separate is None else _nearest(logits.shape[1 + separate], shape[separate], logits.device)
    for volume in logits:
        slices = volume if near is None or separate is None else volume.index_select(separate, near)
        # without aligned corners it is scipy's grid mode: from border to border, the outermost voxel repeated beyond
        resampled = F.interpolate(slices.float()[None, None], size=shape, mode="trilinear", align_corners=False)
        yield resampled[0, 0]


def _resample(volume: Tensor, shape: Shape, separate: int | None, order: Order) -> Tensor:
    """Resamples a channel by splines, clipped to its range, or to that of each slice if slices are kept apart."""
    if separate is not None:
        volume = volume.index_select(separate, _nearest(volume.shape[separate], shape[separate], volume.device))
    axes = [axis for axis in range(3) if axis != separate]
    low, high = volume.amin(axes, keepdim=True), volume.amax(axes, keepdim=True)
    for axis in sorted(axes, key=lambda axis: shape[axis] / volume.shape[axis]):  # axes that shrink come first
        if volume.shape[axis] != shape[axis]:
            matrix = torch.from_numpy(resampling_matrix(volume.shape[axis], shape[axis], order).copy())
            volume = torch.tensordot(matrix.to(volume), volume, dims=([1], [axis])).movedim(0, axis)
    return torch.minimum(torch.maximum(volume, low), high)


def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    """Returns the index of the nearest of `old` slices for each of `new` slices."""
    return torch.from_numpy(resampling_matrix(old, new, 0).argmax(axis=1)).to(device)
