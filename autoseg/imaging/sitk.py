"""Images of SimpleITK to volumes and back: the only place where axes are reversed, from (z, y, x) to (x, y, z)."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.imaging.geometry import Geometry, Matrix, Shape, Vector, Volume


def from_sitk(image: sitk.Image) -> Volume:
    """Converts an image of SimpleITK; colours or vectors become channels.

    Returns:
        Volume of shape (c, z, y, x) in the image's own number type.

    Raises:
        ValueError: The image has more than three dimensions.
    """
    dimensions = image.GetDimension()
    if dimensions not in (2, 3):
        raise ValueError(f"an image has 2 or 3 dimensions, not {dimensions}")
    array = sitk.GetArrayFromImage(image)
    has_colours = image.GetNumberOfComponentsPerPixel() > 1
    array = np.moveaxis(array, -1, 0) if has_colours else array[np.newaxis]
    if dimensions == 2:
        array = array[:, np.newaxis]
    return Volume(array=array, geometry=_geometry(image, array.shape[-3:]))


def to_sitk(volume: Volume) -> sitk.Image:
    """Converts a map (z, y, x), or masks (c, z, y, x) as components, to an image of SimpleITK in the same place."""
    if volume.array.ndim == 4:
        components = np.moveaxis(volume.array, 0, -1)
        image = sitk.GetImageFromArray(components[0] if volume.geometry.dimensions == 2 else components, isVector=True)
        _place(image, volume.geometry)
        return image
    image = sitk.GetImageFromArray(volume.array[0] if volume.geometry.dimensions == 2 else volume.array)
    _place(image, volume.geometry)
    return image


def set_spacing(image: sitk.Image, spacing_mm: Vector) -> None:
    """Gives an image of three dimensions another spacing, (z, y, x)."""
    image.SetSpacing(spacing_mm[::-1])


def _geometry(image: sitk.Image, shape: Shape) -> Geometry:
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


def _place(image: sitk.Image, geometry: Geometry) -> None:
    """Gives an image the spacing, origin and direction of `geometry`."""
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
