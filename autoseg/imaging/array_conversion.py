"""Arrays of numpy and tensors of torch, (z, y, x) with an optional first axis of channels, as volumes and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.converted_image import ConvertedImage, as_volume, check_numbers, name_type, resolve_spacing
from autoseg.imaging.geometry import IDENTITY, Geometry, Volume, direction_of
from autoseg.imaging.tensor_conversion import has_affine, is_tensor, to_array, to_tensor

FIX = "give (z, y, x) or (c, z, y, x)"


def is_array(image: object) -> bool:
    """Returns whether an object is an array of numpy, a number of it, or a tensor that has no affine.

    Example:
        >>> is_array(np.zeros(3)), is_array([0, 0])
        (True, False)
    """
    return isinstance(image, np.ndarray | np.generic) or (is_tensor(image) and not has_affine(image))


def convert_array(image: Any, spacing_mm: Sequence[float] | None, orientation: str | None) -> ConvertedImage:
    """Converts an array or a tensor (y, x), (z, y, x) or (c, z, y, x); results are of the same kind.

    Args:
        image: The array, or a tensor on any device; it is left as it is.
        spacing_mm: Distance of voxels along (z, y, x), or (y, x) for a plane.
        orientation: Orientation, such as "SPL", if it is known.

    Raises:
        ImageError: It is no image; see `as_volume`, and `resolve_spacing` for the spacing.
    """
    kind, array = _take(image)
    if array.ndim not in (2, 3, 4):
        more = f"{FIX}; of several images, one at a time" if array.ndim > 4 else FIX
        raise ImageError(f"{kind} of shape {array.shape} is no image", more)
    check_numbers(array, name=kind)
    spaced = array.reshape((1,) * (4 - array.ndim) + array.shape)
    give_back = _GiveBack(is_plane=array.ndim == 2, tensor=image if is_tensor(image) else None)
    geometry = _geometry(spaced, spacing_mm, orientation, name=kind)
    which = "the first of four axes" if array.ndim == 4 else f"the first of four axes, and it has {array.ndim}"
    return ConvertedImage(volume=as_volume(spaced, geometry, name=kind), give_back=give_back, channels_are=which)


def convert_arrays(
    images: Sequence[Any], spacing_mm: Sequence[float] | None, orientation: str | None
) -> ConvertedImage:
    """Converts several arrays or tensors, each of them a channel; results are of the kind of the first.

    Args:
        images: Arrays (z, y, x), or planes (y, x).
        spacing_mm: See `convert_array`.
        orientation: See `convert_array`.

    Raises:
        ImageError: They differ in shape; see also `convert_array`.
    """
    arrays = [_take(image)[1] for image in images]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        what = (
            f"the {len(arrays)} arrays are the channels of an image, and their shapes differ: {shapes[0]}, {shapes[1]}"
        )
        raise ImageError(what, "bring all channels to one grid")
    if arrays[0].ndim not in (2, 3):
        what = f"each of the {len(arrays)} arrays is a channel, and has the shape {shapes[0]}"
        raise ImageError(what, "give each as (z, y, x), or as (y, x) for a plane")
    for array in arrays:
        check_numbers(array, name="an array")
    planes = arrays[0].ndim == 2
    stacked = np.stack([np.ma.getdata(array) for array in arrays])
    stacked = stacked[:, np.newaxis] if planes else stacked
    give_back = _GiveBack(is_plane=planes, tensor=images[0] if is_tensor(images[0]) else None)
    geometry = _geometry(stacked, spacing_mm, orientation, name="a list of arrays")
    which = "the arrays of the list" + ("; numpy.stack makes one volume of slices" if planes else "")
    volume = as_volume(stacked, geometry, name="a list of arrays")
    return ConvertedImage(volume=volume, give_back=give_back, channels_are=which)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GiveBack:
    """Returns maps as arrays, or as tensors on the device of a tensor; those of a plane without the axis z."""

    is_plane: bool
    tensor: Any

    def __call__(self, result: Volume) -> Any:
        voxels = result.array[..., 0, :, :] if self.is_plane else result.array
        return voxels if self.tensor is None else to_tensor(voxels, self.tensor)


def _take(image: Any) -> tuple[str, NDArray[np.generic]]:
    """Returns what an array is called in messages, and its values; a masked array keeps its mask."""
    if is_tensor(image):
        return "a tensor", to_array(image)
    if isinstance(image, np.ma.MaskedArray):
        return "a masked array", image
    if not is_array(image):
        raise ImageError(f"an object of type {name_type(image)} is no array", FIX)
    return "an array", np.asarray(image)


def _geometry(
    array: NDArray[np.generic], spacing_mm: Sequence[float] | None, orientation: str | None, *, name: str
) -> Geometry:
    """Returns the grid of an array (c, z, y, x)."""
    _, z, y, x = array.shape
    direction = IDENTITY if orientation is None else direction_of(orientation)
    steps = resolve_spacing(spacing_mm, (z, y, x), name=name)
    return Geometry(shape=(z, y, x), spacing_mm=steps, direction=direction)
