"""Images as people hold them in Python, taken as volumes, and results given back in the kind that was taken.

Arrays, paths, images of SimpleITK and of nibabel. The latter is not imported: an image of nibabel is known by what it
offers. Its frame leads to the right, to the front and upwards, with (x, y, z) as the order of its axes; see `geometry`
for the frame here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.files import read_image
from autoseg.imaging.geometry import IDENTITY, Geometry, Matrix, Vector, Volume, direction_of
from autoseg.imaging.sitk import from_sitk, to_sitk

if TYPE_CHECKING:
    import SimpleITK as sitk

ImagePath = str | PathLike[str]

RIGHT_ANGLE_TOLERANCE = 1e-3  # of a cosine

LEFT_AND_BACK = np.array([-1.0, -1.0, 1.0])  # from nibabel's frame to that of SimpleITK, (x, y, z), and back


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedImage:
    """An image that was taken.

    Attributes:
        volume: Shape (c, z, y, x), float32.
        give_back: Turns a map (z, y, x), or several (n, z, y, x), on its grid into the kind that was taken: an array,
            an image of nibabel, else an image of SimpleITK.
    """

    volume: Volume
    give_back: Callable[[Volume], Any]


def convert_to_volume(
    image: "NDArray[np.generic] | ImagePath | Sequence[ImagePath] | sitk.Image | Any",
    spacing_mm: Sequence[float] | None,
    orientation: str | None,
) -> ConvertedImage:
    """Takes an image.

    Args:
        image: A path, one path per channel, an image of SimpleITK (channels as components) or of nibabel (channels as
            fourth axis), or an array (y, x), (z, y, x) or (c, z, y, x).
        spacing_mm: Of an array: along (z, y, x), or (y, x) for a plane.
        orientation: Where the axes of an array lead, such as "SPL", if that is known.

    Raises:
        ImageError: The image cannot be read, has too many or too few dimensions, or holds NaN; or an array came without
            the spacing of each axis.
    """
    if isinstance(image, np.ndarray):
        return _convert_array(image, spacing_mm, IDENTITY if orientation is None else direction_of(orientation))
    if isinstance(image, str | PathLike):
        return ConvertedImage(volume=read_image((Path(image),)), give_back=to_sitk)
    if isinstance(image, Sequence):
        return ConvertedImage(volume=read_image(tuple(Path(path) for path in image)), give_back=to_sitk)
    if hasattr(image, "affine") and hasattr(image, "dataobj"):
        return _convert_nibabel(image)
    try:
        return ConvertedImage(volume=_as_float(from_sitk(image)), give_back=to_sitk)
    except ValueError as error:
        raise ImageError(str(error), "give one volume or plane") from error


def _convert_array(array: NDArray[np.generic], spacing_mm: Sequence[float] | None, direction: Matrix) -> ConvertedImage:
    if array.ndim not in (2, 3, 4):
        raise ImageError(f"an array of shape {array.shape} is no image", "give (z, y, x) or (c, z, y, x)")
    spaced = array.reshape((1,) * (4 - array.ndim) + array.shape)
    _, z, y, x = spaced.shape
    steps = [] if spacing_mm is None else [float(step) for step in spacing_mm]
    if len(steps) == 2 and z == 1:
        steps.insert(0, max(steps))  # as `imageio` places planes
    if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
        raise ImageError(f"an array needs its spacing, not {spacing_mm}", "pass spacing_mm=(z, y, x) in millimetres")
    geometry = Geometry(shape=(z, y, x), spacing_mm=_vector(steps), direction=direction)

    def give_back(result: Volume) -> NDArray[Any]:
        return result.array[..., 0, :, :] if array.ndim == 2 else result.array

    return ConvertedImage(volume=_as_float(Volume(array=spaced, geometry=geometry)), give_back=give_back)


def _convert_nibabel(image: Any) -> ConvertedImage:
    """Takes (x, y), (x, y, z) or (x, y, z, channels); gives back (x, y), (x, y, z), or (x, y, z, n) for n maps."""
    array = np.asanyarray(image.dataobj)
    if array.ndim not in (2, 3, 4) or not np.issubdtype(array.dtype, np.number):
        what = f"an image of nibabel of shape {array.shape} and type {array.dtype} is no volume"
        raise ImageError(what, "give numbers along (x, y, z), or (x, y, z, channel)")
    full = array.reshape(array.shape + (1,) * (4 - array.ndim))
    volume = Volume(array=full.transpose(3, 2, 1, 0), geometry=_read_affine(image.affine, full.shape[:3]))

    def give_back(result: Volume) -> Any:
        maps = np.ascontiguousarray(result.array.T if result.array.ndim == 3 else result.array.transpose(3, 2, 1, 0))
        return type(image)(maps[:, :, 0] if array.ndim == 2 else maps, image.affine)

    return ConvertedImage(volume=_as_float(volume), give_back=give_back)


def _read_affine(affine: NDArray[np.floating] | None, shape: Sequence[int]) -> Geometry:
    """The grid whose voxel (x, y, z) lies at affine @ (x, y, z, 1) in nibabel's frame."""
    if affine is None:
        raise ImageError("the image of nibabel has no affine", "give it one, which says where its voxels are")
    columns = np.asarray(affine, dtype=float)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        raise ImageError("the affine of the image has axes of no length", "mend it")
    cosines = columns / lengths
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=RIGHT_ANGLE_TOLERANCE):
        raise ImageError("the axes of the image are not at right angles", "resample it to a straight grid")
    x, y, z = shape
    first, second, third = (LEFT_AND_BACK[:, np.newaxis] * cosines)[::-1, ::-1].tolist()
    return Geometry(
        shape=(z, y, x),
        spacing_mm=_vector(lengths[::-1]),
        origin_mm=_vector((LEFT_AND_BACK * affine[:3, 3])[::-1]),
        direction=(_vector(first), _vector(second), _vector(third)),
    )


def _vector(values: "Sequence[float] | NDArray[np.floating]") -> Vector:
    z, y, x = (float(value) for value in values)
    return z, y, x


def _as_float(volume: Volume) -> Volume:
    array = volume.array.astype(np.float32)
    if array.size == 0 or not np.isfinite(array).all():
        raise ImageError("the image is empty or holds NaN or infinite voxels", "replace them by numbers")
    return Volume(array=array, geometry=volume.geometry)
