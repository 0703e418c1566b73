"""Images in the types that Python users hold, converted to volumes, and results converted back to the same type.

The types are paths, arrays, tensors of torch, and images of SimpleITK, nibabel and MONAI. nibabel is not imported: its
images are recognised by their attributes. Its frame is right, anterior, superior, with (x, y, z) as the order of axes;
see `geometry` for the frame here.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import check_straight, describe_difference, grid_of_affine, place_by_header
from autoseg.imaging.array_conversion import convert_array, convert_arrays, is_array
from autoseg.imaging.converted_image import KINDS_OF_IMAGES, ConvertedImage, as_volume, check_numbers, name_type
from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.imaging.image_files import read_image
from autoseg.imaging.image_headers import count_points
from autoseg.imaging.sitk_conversion import from_sitk, join_series, to_sitk
from autoseg.imaging.tensor_conversion import convert_meta_tensor, has_affine
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement

if TYPE_CHECKING:
    import SimpleITK as sitk

ImagePath = str | PathLike[str]

NIBABEL_IMAGE = "the image of nibabel"
"""Name of an image without a path, in messages."""

NO_LISTS = (str, bytes, bytearray, memoryview)
"""Types that Python counts among its sequences, and that are no lists of images."""


def convert_to_volume(image: Any, spacing_mm: Sequence[float] | None, orientation: str | None) -> ConvertedImage:
    """Converts an image to a volume.

    Args:
        image: A path; an array or a tensor (y, x), (z, y, x) or (c, z, y, x); an image of SimpleITK (channels as
            components), of nibabel (channels as fourth axis) or of MONAI (channels as first axis); or a list of any of
            these, one per channel.
        spacing_mm: Spacing of an array or a tensor, along (z, y, x), or (y, x) for a plane.
        orientation: Orientation of an array or a tensor, such as "SPL", if it is known.

    Raises:
        ImageError: The image cannot be read, is of another type, has too many or too few dimensions, or its voxels
            cannot be taken (see `as_volume`); or the spacing of an array is missing, or was given for another image.

    Example:
        >>> converted = convert_to_volume(np.zeros((4, 5)), spacing_mm=(0.5, 0.7), orientation=None)
        >>> converted.volume.array.shape, converted.volume.geometry.spacing_mm
        ((1, 1, 4, 5), (0.7, 0.5, 0.7))
        >>> label = Volume(array=np.ones((1, 4, 5), np.uint8), geometry=converted.volume.geometry)
        >>> converted.give_back(label).shape
        (4, 5)
    """
    if is_array(image):
        return convert_array(image, spacing_mm, orientation)
    if isinstance(image, Sequence) and not isinstance(image, NO_LISTS):
        return _convert_channels(image, spacing_mm, orientation)
    return _convert_placed(image, spacing_mm)


def _convert_placed(image: Any, spacing_mm: Any = None) -> ConvertedImage:
    """Converts an image that says where its voxels lie; a spacing beside that is refused."""
    converters: tuple[tuple[bool, Callable[[Any], ConvertedImage]], ...] = (
        (isinstance(image, str | PathLike), lambda path: _read_channels([path])),
        (has_affine(image), convert_meta_tensor),
        (hasattr(image, "affine") and hasattr(image, "dataobj"), _convert_nibabel),
        (name_type(image) == "SimpleITK.Image", _convert_sitk),
    )
    for fits, convert in converters:
        if fits and spacing_mm is not None:
            what = f"spacing_mm belongs to arrays, and an object of type {name_type(image)} has a spacing of its own"
            raise ImageError(what, "leave spacing_mm out")
        if fits:
            return convert(image)
    raise ImageError(f"an object of type {name_type(image)} is no image", _advise(image))


def _advise(image: object) -> str:
    """Returns what to do about an object that is no image."""
    if hasattr(image, "read"):
        return "give the path of its file, whose ending says the format; write bytes from memory to such a file first"
    if isinstance(image, bytes | bytearray | memoryview):
        return "write the bytes to a file, whose ending says the format, and give its path"
    if isinstance(image, Mapping):
        return f"give one of its values, such as image[{next(iter(image), 'image')!r}]"
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return "give numpy.asarray(image) in the order (z, y, x), with spacing_mm"
    return KINDS_OF_IMAGES


def _convert_channels(
    images: Sequence[Any], spacing_mm: Sequence[float] | None, orientation: str | None
) -> ConvertedImage:
    """Converts a list of images of the same kind, each of which holds a channel, or several."""
    if not images:
        raise ImageError(f"an empty {name_type(images)} is no image", "give one image for each channel")
    if all(is_array(image) for image in images):
        return convert_arrays(images, spacing_mm, orientation)
    kinds = list(dict.fromkeys(name_type(image) for image in images))
    if any(is_array(image) for image in images):
        raise ImageError(f"a list mixes {' and '.join(kinds)}", "give every channel in the same way")
    if isinstance(images[0], Sequence | int | float) and not isinstance(images[0], NO_LISTS):
        raise ImageError(f"a list of {kinds[0]} is no image", f"give numpy.array(...) instead of the {kinds[0]}")
    if spacing_mm is None and all(isinstance(image, str | PathLike) for image in images):
        return _read_channels(images)
    channels = [_convert_placed(image, spacing_mm) for image in images]
    first = channels[0].volume
    for number, channel in enumerate(channels):
        difference = describe_difference(first.geometry, channel.volume.geometry)
        if difference is not None:
            raise ImageError(f"images 0 and {number} of the list: {difference}", "put all channels on one grid")
    array = np.concatenate([channel.volume.array for channel in channels])
    volume = Volume(array=array, geometry=first.geometry)
    return ConvertedImage(volume=volume, give_back=channels[0].give_back, channels_are="the images of the list")


def _read_channels(paths: Sequence[ImagePath]) -> ConvertedImage:
    volume = read_image(tuple(Path(path) for path in paths))
    which = "the files of the list" if len(paths) > 1 else "files of a list, such as ['CASE_0000.nii.gz', ...]"
    points = count_points(Path(paths[0])) if len(paths) == 1 else 1
    return ConvertedImage(volume=volume, give_back=to_sitk, channels_are=which, points_in_time=points)


def _convert_sitk(image: "sitk.Image") -> ConvertedImage:
    name = "the image of SimpleITK"
    pixels = image.GetPixelIDTypeAsString()
    for kind, function in (("label", "Cast"), ("complex", "ComplexToModulus")):
        if kind in pixels:
            raise ImageError(f"{name} holds {pixels}", f"give one of numbers, as SimpleITK.{function} returns it")
    try:
        volume = from_sitk(image)
    except ValueError as error:
        raise ImageError(str(error), "give one volume or plane") from error
    check_straight(volume.geometry, name=name)
    checked = as_volume(volume.array, volume.geometry, name=name)
    return ConvertedImage(
        volume=checked,
        give_back=to_sitk,
        channels_are="the components of its voxels, or its fourth axis",
        points_in_time=len(checked.array) if image.GetDimension() == 4 else 1,
        give_back_points=partial(_join_like, image),
    )


def _join_like(image: "sitk.Image", results: Sequence[Volume]) -> "sitk.Image":
    """Returns the maps of a series with the place, in space and time, of the image that it was."""
    joined = join_series(results)
    joined.CopyInformation(image)
    return joined


def _convert_nibabel(image: Any) -> ConvertedImage:
    """Converts (x, y), (x, y, z) or (x, y, z, channels); results are (x, y), (x, y, z), or (x, y, z, n) for n maps."""
    name = NIBABEL_IMAGE
    try:
        array = np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error) as error:  # nibabel reads the file only now
        raise ImageError(f"{name} cannot be read: {error}", "copy its file again, and load it") from error
    if array.ndim not in (2, 3, 4):
        what = f"{name} of shape {array.shape} is no volume"
        raise ImageError(what, "give numbers along (x, y, z), or (x, y, z, channel)")
    check_numbers(array, name=name)
    full = array.reshape(array.shape + (1,) * (4 - array.ndim))
    grid = check_straight(_place_nibabel(image, full.shape[2::-1]), name=name)
    volume = as_volume(full.transpose(3, 2, 1, 0), grid, name=name)
    give_back = partial(_give_nibabel_back, image, is_plane=array.ndim == 2)
    which = "its fourth axis" if array.ndim == 4 else f"a fourth axis, and it has {array.ndim}"
    return ConvertedImage(
        volume=volume,
        give_back=give_back,
        channels_are=which,
        points_in_time=len(volume.array) if array.ndim == 4 else 1,
        give_back_points=partial(_give_points_back, image),
    )


def _give_points_back(image: Any, results: Sequence[Volume]) -> Any:
    """Returns the maps of a series as an image of nibabel (x, y, z, time), or (x, y, z, time, n) for n maps of each."""
    stacked = np.stack([result.array for result in results], axis=-4)  # its axes are reversed below: n, time, z, y, x
    return _make_nibabel(image, stacked.T)


def _give_nibabel_back(image: Any, result: Volume, *, is_plane: bool) -> Any:
    """Returns maps as an image of nibabel."""
    return _make_nibabel(image, result.array.T[:, :, 0] if is_plane else result.array.T)


def _make_nibabel(image: Any, maps: NDArray[np.generic]) -> Any:
    """Returns an image of nibabel with the affine of another one, and the header of a NIfTI image."""
    return type(image)(np.ascontiguousarray(maps), image.affine, _header_of_maps(image, maps.dtype))


def _place_nibabel(image: Any, shape: Sequence[int]) -> Geometry:
    """Returns the grid (z, y, x) of an image of nibabel, by the rule of `nifti_header` if it is a NIfTI image.

    Its matrix counts, in the unit of its header, unless its header says that no matrix holds anything.
    """
    name = NIBABEL_IMAGE
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


def _shape(sizes: Sequence[int]) -> Shape:
    z, y, x = (int(size) for size in sizes)
    return z, y, x
