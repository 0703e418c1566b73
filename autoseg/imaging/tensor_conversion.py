"""Tensors of torch, and MONAI's tensors with an affine, as arrays and back. Neither package is imported here.

A tensor exists only where torch has been imported, and is recognised by that. MONAI's `MetaTensor` has the order
(channel, x, y, z) and an affine in the frame right, anterior, superior (RAS), unless its metadata say LPS.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import LEFT_AND_BACK, check_straight, grid_of_affine
from autoseg.imaging.converted_image import ConvertedImage, as_volume
from autoseg.imaging.geometry import Geometry, Volume

NAME = "the MetaTensor"


def is_tensor(image: object) -> bool:
    """Returns whether an object is a tensor of torch.

    Example:
        >>> is_tensor(np.zeros(3))
        False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def has_affine(image: object) -> bool:
    """Returns whether a tensor is one of MONAI's, which say where their voxels lie."""
    return is_tensor(image) and hasattr(image, "affine") and hasattr(image, "meta")


def to_array(tensor: Any) -> NDArray[np.generic]:
    """Returns the values of a tensor on any device as an array.

    Values in formats that numpy does not have, such as bfloat16, become float32.

    Raises:
        ImageError: The tensor holds no values.
    """
    import torch  # noqa: PLC0415 - loaded already, since there is a tensor

    if tensor.device.type == "meta":
        raise ImageError("a tensor on the device 'meta' holds no values", "give one that does")
    plain = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = plain.as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg()
    try:
        return np.asarray(plain.numpy())
    except TypeError:  # numpy has no such format
        return np.asarray(plain.to(torch.float32).numpy())


def to_tensor(array: NDArray[np.generic], like: Any) -> Any:
    """Returns an array as a tensor on the device of another one."""
    import torch  # noqa: PLC0415 - loaded already, since there is a tensor

    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)


def convert_meta_tensor(image: Any) -> ConvertedImage:
    """Converts a tensor of MONAI, (x, y, z) or (c, x, y, z), or for a plane (x, y) or (c, x, y).

    Results have the axes of the image, with one channel if it has an axis of channels, or one for each of several maps;
    its affine, its metadata and its device.

    Raises:
        ImageError: Its shape or its affine are not those of an image; transforms wait for being applied; or its voxels
            cannot be taken, see `as_volume`.
    """
    if getattr(image, "pending_operations", None):
        raise ImageError(f"{NAME} has transforms that were not applied", "call monai.transforms.ApplyPending first")
    array, axes = to_array(image), _count_axes(image)
    if array.ndim not in (axes, axes + 1):
        what = f"{NAME} of shape {array.shape} is no image of {axes} axes"
        raise ImageError(what, "give one image (c, x, y, z) at a time, such as batch[0]")
    has_channels = array.ndim == axes + 1
    full = array.reshape((1,) * (not has_channels) + array.shape + (1,) * (3 - axes))
    voxels = full.transpose(0, 3, 2, 1)
    geometry = _place(_affine_of(image), voxels.shape[1:], axes)
    give_back = partial(_give_back, image, array.shape[-axes:], has_channels)
    first = "its first axis, before x" if has_channels else "an axis before x, which it does not have"
    return ConvertedImage(volume=as_volume(voxels, geometry, name=NAME), give_back=give_back, channels_are=first)


def _give_back(image: Any, shape: tuple[int, ...], has_channels: bool, result: Volume) -> Any:
    """Returns maps as a tensor of MONAI; see `convert_meta_tensor`."""
    maps = result.array if result.array.ndim == 4 else result.array[np.newaxis]
    maps = maps.transpose(0, 3, 2, 1).reshape(len(maps), *shape)
    single = result.array.ndim == 3 and not has_channels
    return type(image)(to_tensor(maps[0] if single else maps, image), meta=dict(image.meta))


def _count_axes(image: Any) -> int:
    """Returns how many axes of a tensor of MONAI are in space: as its reader noted, else by the size of its affine."""
    noted = image.meta.get("spatial_shape")
    axes = tuple(image.affine.shape)[-1] - 1 if noted is None else len(noted)
    return min(3, max(2, axes))


def _place(affine: NDArray[np.float64], shape: Sequence[int], axes: int) -> Geometry:
    """Returns the grid (z, y, x) of an image; a plane lies in no particular way, as planes from other files do."""
    grid = check_straight(grid_of_affine(affine, shape, name=NAME), name=NAME)
    if axes == 3:
        return grid
    _, y, x = grid.spacing_mm
    return Geometry(shape=grid.shape, spacing_mm=(max(y, x), y, x))


def _affine_of(image: Any) -> NDArray[np.float64]:
    """Returns the matrix (4, 4) of a tensor of MONAI in the frame right, anterior, superior."""
    given = to_array(image.affine).astype(np.float64)
    size = given.shape[-1] - 1
    if given.ndim != 2 or given.shape[0] != given.shape[1] or size not in (2, 3):
        raise ImageError(f"the affine of {NAME} has the shape {given.shape}", "give it a matrix of 4 x 4")
    affine = np.eye(4)
    affine[:size, :size], affine[:size, 3] = given[:size, :size], given[:size, size]
    if str(image.meta.get("space")).upper().endswith("LPS"):
        affine[:3] *= LEFT_AND_BACK[:, np.newaxis]
    return affine
