"""Images in the types that Python users hold, converted to volumes, and results converted back to the same type.

The types are arrays, paths, and images of SimpleITK and of nibabel. nibabel is not imported: its images are recognised
by their attributes. Its frame is right, anterior, superior, with (x, y, z) as the order of axes; see `geometry` for the
frame here.
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
from autoseg.imaging.affine_geometry import grid_of_affine, place_by_header
from autoseg.imaging.geometry import IDENTITY, Geometry, Matrix, Shape, Vector, Volume, direction_of
from autoseg.imaging.image_files import read_image
from autoseg.imaging.nifti_header import NiftiPlacement
from autoseg.imaging.sitk_conversion import from_sitk, to_sitk

if TYPE_CHECKING:
    import SimpleITK as sitk

ImagePath = str | PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedImage:
    """An image as a volume, and the way back to the type in which it was given.

    Attributes:
        volume: Shape (c, z, y, x), float32.
        give_back: Converts a map (z, y, x), or several (n, z, y, x), on its grid to the type of the image: an array, an
            image of nibabel, else an image of SimpleITK.
    """

    volume: Volume
    give_back: Callable[[Volume], Any]


def convert_to_volume(
    image: "NDArray[np.generic] | ImagePath | Sequence[ImagePath] | sitk.Image | Any",
    spacing_mm: Sequence[float] | None,
    orientation: str | None,
) -> ConvertedImage:
    """Converts an image to a volume.

    Args:
        image: A path, one path per channel, an image of SimpleITK (channels as components) or of nibabel (channels as
            fourth axis), or an array (y, x), (z, y, x) or (c, z, y, x).
        spacing_mm: Spacing of an array, along (z, y, x), or (y, x) for a plane.
        orientation: Orientation of an array, such as "SPL", if it is known.

    Raises:
        ImageError: The image cannot be read, has too many or too few dimensions, or holds NaN; or the spacing of an
            axis of an array is missing.

    Example:
        >>> converted = convert_to_volume(np.zeros((4, 5)), spacing_mm=(0.5, 0.7), orientation=None)
        >>> converted.volume.array.shape, converted.volume.geometry.spacing_mm
        ((1, 1, 4, 5), (0.7, 0.5, 0.7))
        >>> label = Volume(array=np.ones((1, 4, 5), np.uint8), geometry=converted.volume.geometry)
        >>> converted.give_back(label).shape
        (4, 5)
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
        steps.insert(0, max(steps))  # as planes are read from files, see `sitk`
    if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
        raise ImageError(f"an array needs its spacing, not {spacing_mm}", "pass spacing_mm=(z, y, x) in millimetres")
    geometry = Geometry(shape=(z, y, x), spacing_mm=_vector(steps), direction=direction)

    def give_back(result: Volume) -> NDArray[Any]:
        return result.array[..., 0, :, :] if array.ndim == 2 else result.array

    return ConvertedImage(volume=_as_float(Volume(array=spaced, geometry=geometry)), give_back=give_back)


def _convert_nibabel(image: Any) -> ConvertedImage:
    """Converts (x, y), (x, y, z) or (x, y, z, channels); results are (x, y), (x, y, z), or (x, y, z, n) for n maps."""
    array = np.asanyarray(image.dataobj)
    if array.ndim not in (2, 3, 4) or not np.issubdtype(array.dtype, np.number):
        message = f"an image of nibabel of shape {array.shape} and type {array.dtype} is no volume"
        raise ImageError(message, "give numbers along (x, y, z), or (x, y, z, channel)")
    full = array.reshape(array.shape + (1,) * (4 - array.ndim))
    volume = Volume(array=full.transpose(3, 2, 1, 0), geometry=_place_nibabel(image, full.shape[2::-1]))

    def give_back(result: Volume) -> Any:
        maps = np.ascontiguousarray(result.array.T if result.array.ndim == 3 else result.array.transpose(3, 2, 1, 0))
        return type(image)(maps[:, :, 0] if array.ndim == 2 else maps, image.affine, _header_of_maps(image, maps.dtype))

    return ConvertedImage(volume=_as_float(volume), give_back=give_back)


def _place_nibabel(image: Any, shape: Sequence[int]) -> Geometry:
    """Returns the grid (z, y, x) of an image of nibabel, by the rule of `nifti_header` if it is a NIfTI image.

    Its matrix counts, in the unit of its header, unless its header says that no matrix holds anything.
    """
    name = "the image of nibabel"
    if image.affine is None:
        raise ImageError(f"{name} has no affine", "give it one, which says where its voxels are")
    placement = NiftiPlacement.of_header(image.header.structarr) if _is_nifti(image) else None
    if placement is None:
        return grid_of_affine(image.affine, shape, name=name)
    unit = np.diag([placement.mm_per_unit] * 3 + [1.0])
    if np.allclose(image.affine, image.header.get_best_affine()) and placement.affines():
        usual = Geometry(shape=_shape(shape), spacing_mm=(1.0, 1.0, 1.0))
        return place_by_header(usual, placement, name=name)
    return grid_of_affine(unit @ image.affine, shape, name=name)


def _header_of_maps(image: Any, dtype: "np.dtype[Any]") -> Any:
    """Returns the header of maps that belong to an image of nibabel: with its place, units and description.

    None for formats other than NIfTI, whose headers nibabel makes itself.
    """
    if not _is_nifti(image):
        return None
    header = image.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header.extensions.clear()
    return header


def _is_nifti(image: Any) -> bool:
    """Returns whether an image of nibabel has the header of a NIfTI file; MGH files and others have their own."""
    header: Any = getattr(image, "header", None)
    return hasattr(header, "keys") and "sform_code" in header.keys()  # noqa: SIM118 - nibabel's headers are no mappings


def _vector(values: "Sequence[float] | NDArray[np.floating]") -> Vector:
    z, y, x = (float(value) for value in values)
    return z, y, x


def _shape(sizes: Sequence[int]) -> Shape:
    z, y, x = (int(size) for size in sizes)
    return z, y, x


def _as_float(volume: Volume) -> Volume:
    array = volume.array.astype(np.float32)
    if array.size == 0 or not np.isfinite(array).all():
        raise ImageError("the image is empty or holds NaN or infinite voxels", "replace them by numbers")
    return Volume(array=array, geometry=volume.geometry)
