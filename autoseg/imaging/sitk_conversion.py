"""Conversion of SimpleITK images to volumes and back: here axes are reversed, from (z, y, x) to (x, y, z).

SimpleITK is imported by the functions that call it, since most files are read and written without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autoseg.imaging.geometry import Geometry, Matrix, Vector, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    import SimpleITK as sitk
    from numpy.typing import NDArray


def from_sitk(image: sitk.Image) -> Volume:
    """Converts an image of SimpleITK to a volume; `to_sitk` is its inverse.

    Colours, the components of a vector, and the volumes along a fourth dimension become channels. NIfTI keeps vectors
    along a fifth dimension, beside a fourth one of length 1.

    Returns:
        Volume of shape (c, z, y, x) in the image's own number type.

    Raises:
        ValueError: The image has vectors along a fourth dimension, or a fifth one.

    Example:
        >>> geometry = Geometry(shape=(1, 2, 3), spacing_mm=(3.0, 0.5, 0.25), origin_mm=(9.0, 0.0, 0.0))
        >>> image = to_sitk(Volume(array=np.array([[[0, 0, 1], [0, 2, 0]]], dtype=np.uint8), geometry=geometry))
        >>> image.GetSpacing()
        (0.25, 0.5, 3.0)
        >>> back = from_sitk(image)
        >>> back.geometry == geometry, back.array.tolist()
        (True, [[[[0, 0, 1], [0, 2, 0]]]])
    """
    import SimpleITK as sitk

    dimensions, has_colours = image.GetDimension(), image.GetNumberOfComponentsPerPixel() > 1
    if dimensions > 3:
        return _from_series(image)
    array = sitk.GetArrayFromImage(image)
    array = np.moveaxis(array, -1, 0) if has_colours else array[np.newaxis]
    if dimensions == 2:
        array = array[:, np.newaxis]
    return Volume(array=array, geometry=geometry_of(image))


def _from_series(image: sitk.Image) -> Volume:
    """Converts an image with a fourth dimension."""
    import SimpleITK as sitk

    sizes = image.GetSize()
    if image.GetNumberOfComponentsPerPixel() > 1 or 1 not in (sizes[3], *sizes[4:], *(() if sizes[4:] else (1,))):
        raise ValueError(f"its voxels have {image.GetDimension()} dimensions, of sizes {sizes}, and several values")
    first = image[:, :, :, 0, 0] if sizes[4:] else image[:, :, :, 0]
    shape = sizes[2::-1]
    return Volume(array=sitk.GetArrayFromImage(image).reshape(-1, *shape), geometry=geometry_of(first))


def to_sitk(volume: Volume) -> sitk.Image:
    """Converts a volume to an image of SimpleITK at the same place in space.

    Args:
        volume: A map (z, y, x), or masks or channels (c, z, y, x), which become components if there are several.
    """
    import SimpleITK as sitk

    if volume.array.ndim == 4 and len(volume.array) == 1:
        volume = Volume(array=volume.array[0], geometry=volume.geometry)
    if volume.array.ndim == 4:
        components = np.moveaxis(volume.array, 0, -1)
        image = sitk.GetImageFromArray(components[0] if volume.geometry.dimensions == 2 else components, isVector=True)
        place(image, volume.geometry)
        return image
    image = sitk.GetImageFromArray(volume.array[0] if volume.geometry.dimensions == 2 else volume.array)
    place(image, volume.geometry)
    return image


def join_series(volumes: Sequence[Volume], time_step_s: float = 1.0) -> sitk.Image:
    """Returns volumes on one grid, (z, y, x) or channels (c, z, y, x), as an image with one axis more, which is time.

    Args:
        volumes: The points in time, in order.
        time_step_s: Seconds from one to the next, which the header states as the spacing of the axis.

    Example:
        >>> geometry = Geometry(shape=(1, 2, 3), spacing_mm=(3.0, 0.5, 0.25))
        >>> point = Volume(array=np.zeros((1, 2, 3), dtype=np.uint8), geometry=geometry)
        >>> join_series([point, point, point, point]).GetSize()
        (3, 2, 1, 4)
    """
    import SimpleITK as sitk

    return sitk.JoinSeries([to_sitk(volume) for volume in volumes], 0.0, time_step_s)


def geometry_of(image: sitk.Image) -> Geometry:
    """Returns the grid of an image of two or three dimensions."""
    x, y, z = (*image.GetSize(), 1)[:3]
    shape = (z, y, x)
    if image.GetDimension() == 3:
        columns = np.asarray(image.GetDirection()).reshape(3, 3)[::-1, ::-1]
        return Geometry(
            shape=shape,
            spacing_mm=_reversed(image.GetSpacing()),
            origin_mm=_reversed(image.GetOrigin()),
            direction=_rows(columns),
        )
    x_spacing, y_spacing = image.GetSpacing()
    x_origin, y_origin = image.GetOrigin()
    direction = np.eye(3)
    direction[1:, 1:] = np.asarray(image.GetDirection()).reshape(2, 2)[::-1, ::-1]
    return Geometry(
        shape=shape,
        spacing_mm=(max(x_spacing, y_spacing), y_spacing, x_spacing),
        origin_mm=(0.0, y_origin, x_origin),
        direction=_rows(direction),
        dimensions=2,
    )


def place(image: sitk.Image, geometry: Geometry) -> None:
    """Sets the spacing, origin and direction of an image to those of `geometry`."""
    axes = geometry.dimensions
    columns = np.asarray(geometry.direction)[::-1, ::-1][:axes, :axes]
    image.SetSpacing(geometry.spacing_mm[::-1][:axes])
    image.SetOrigin(geometry.origin_mm[::-1][:axes])
    image.SetDirection(columns.flatten().tolist())


def _reversed(values: tuple[float, ...]) -> Vector:
    x, y, z = values
    return z, y, x


def _rows(values: NDArray[np.floating]) -> Matrix:
    first, second, third = ((float(a), float(b), float(c)) for a, b, c in values)
    return first, second, third
