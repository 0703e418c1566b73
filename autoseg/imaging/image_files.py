"""Reading and writing of image files as volumes. `imaging.sitk` converts the images of SimpleITK in between.

>>> import tempfile
>>> geometry = Geometry(shape=(1, 2, 2), spacing_mm=(3.0, 1.0, 1.0))
>>> label = Volume(array=np.array([[[0, 1], [2, 0]]], dtype=np.int32), geometry=geometry)
>>> image = Volume(array=np.array([[[[0.5, 1.0], [2.0, 4.0]]]], dtype=np.float32), geometry=geometry)
>>> with tempfile.TemporaryDirectory() as folder:
...     label_file, image_file = Path(folder) / "label.nii.gz", Path(folder) / "image.nii.gz"
...     write_label_map(label_file, label)
...     write_image(image_file, image)
...     label_back, image_back = read_label_map(label_file), read_image((image_file,))
>>> label_back.array.tolist(), label_back.geometry.difference(geometry)
([[[0, 1], [2, 0]]], None)
>>> image_back.array.tolist()
[[[[0.5, 1.0], [2.0, 4.0]]]]
"""

import errno
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import describe_difference, find_carried, place_by_header
from autoseg.imaging.corruption import check_file
from autoseg.imaging.formats import PLANE_ENDINGS, split_ending
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_headers import find_nifti_header, has_alpha, unreadable
from autoseg.imaging.nifti_checks import is_cut_off
from autoseg.imaging.nifti_copy import is_readable_by_itk, plain_copy, write_placed
from autoseg.imaging.nifti_header import NiftiHeader, NiftiPlacement, is_nifti_name
from autoseg.imaging.sitk_conversion import from_sitk, geometry_of, place, set_spacing, to_sitk
from autoseg.imaging.tiff import is_tiff, read_spacing, write_spacing
from autoseg.runtime.artifact import atomic_file

sitk.ProcessObject.SetGlobalWarningDisplay(
    False
)  # ITK's warnings would break the progress display; errors are still raised

LOSSY_ENDINGS = (".jpg", ".jpeg")

NIFTI_READER = "NiftiImageIO"  # if it is named, SimpleITK does not try all others, a fifth of the time of a small file

ORTHONORMAL = "orthonormal"  # the part of SimpleITK's message about axes that are not at right angles

# Parts of SimpleITK's messages for intact files that it does not support, and what to tell the user: (what, fix).
KNOWN_REASONS = {
    ORTHONORMAL: ("its axes are not at right angles", "resample it to a straight grid"),
    "Unknown PixelType": ("pixels of its kind, such as grey with transparency, are not supported", "save plain grey"),
}

# Formats that put header and voxels into two files, which cannot be replaced in one step.
TWO_FILE_ENDINGS = (".mhd", ".nhdr", ".hdr", ".img")


def read_image(paths: tuple[Path, ...]) -> Volume:
    """Reads the channels of one case; `write_image` writes a channel.

    Args:
        paths: One file per channel, in order; a colour file (PNG, BMP, JPEG) holds all its channels.

    Returns:
        Volume of shape (c, z, y, x), float32.

    Raises:
        ImageError: A file is missing, damaged or no image, holds NaN or infinite voxels, or lies on another grid than
            the first.
    """
    volumes = [_read(path) for path in paths]
    geometry = volumes[0].geometry
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        difference = describe_difference(geometry, volume.geometry)
        if difference is not None:
            raise ImageError(f"{paths[0]} and {path}: {difference}", "put all channels on one grid")
    with np.errstate(over="ignore"):  # values beyond 32 bit become infinite and are refused below
        array = np.concatenate([volume.array for volume in volumes], dtype=np.float32)
    if not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise ImageError(f"{', '.join(map(str, paths))}: {bad} voxels are NaN or infinite", "replace them by numbers")
    return Volume(array=array, geometry=geometry)


def read_label_map(path: Path) -> Volume:
    """Reads a label map; `write_label_map` writes one.

    A colour picture counts as a label map if it is grey, that is, if all its colours are equal.

    Returns:
        Volume of shape (z, y, x), int32.

    Raises:
        ImageError: The file is missing, damaged or no image, has colours, or holds voxels that are no whole numbers.
    """
    volume = _read(path)
    array = volume.array[0]
    if any(not np.array_equal(channel, array) for channel in volume.array[1:]):
        raise ImageError(f"{path}: a label map has one channel, not {len(volume.array)}", "save it without colours")
    if np.issubdtype(array.dtype, np.floating):
        whole = np.isfinite(array) & (array == np.round(array))
        if not whole.all():
            value = array[~whole].flat[0]
            raise ImageError(f"{path}: voxel value {value:g} is no label", "save whole numbers, without interpolation")
    extreme = max(int(array.min()), int(array.max()), key=abs)
    if abs(extreme) > np.iinfo(np.int32).max:
        raise ImageError(f"{path}: voxel value {extreme} is no label", "number the labels 0, 1, 2, ...")
    return Volume(array=array.astype(np.int32), geometry=volume.geometry)


def write_label_map(path: Path, volume: Volume) -> None:
    """Writes a label map in the smallest integer type that holds it, atomically; the ending chooses the format.

    Raises:
        ImageError: A label is negative or above 65535, the format cannot hold this volume or changes labels, as JPEG
            does, or the file cannot be written.
        ArtifactError: The folder cannot be written.
    """
    lowest, highest = int(volume.array.min(initial=0)), int(volume.array.max(initial=0))
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise ImageError(f"cannot write {path}: it holds values from {lowest} to {highest}", "use labels 0 to 65535")
    if path.suffix.lower() in LOSSY_ENDINGS:
        raise ImageError(f"cannot write {path}: JPEG would change labels", "choose .png")
    dtype = np.uint8 if highest < 256 else np.uint16
    _write(path, volume.array.astype(dtype), volume.geometry)


def write_image(path: Path, volume: Volume) -> None:
    """Writes one channel of shape (1, z, y, x) as float32, atomically; the ending chooses the format.

    Raises:
        ImageError: The format cannot hold this volume or the file cannot be written.
        ArtifactError: The folder cannot be written.
    """
    _write(path, np.asarray(volume.array[0], dtype=np.float32), volume.geometry)


def write_probabilities(path: Path, volume: Volume) -> None:
    """Writes a map (z, y, x) of probabilities, 0 to 1, in 8 bit: rounded to 0 to 255, atomically.

    Raises:
        ImageError: The format cannot hold this volume or the file cannot be written.
        ArtifactError: The folder cannot be written.
    """
    _write(path, np.rint(volume.array * np.float32(255)).astype(np.uint8), volume.geometry)


def convert_image(source: Path, targets: tuple[Path, ...]) -> None:
    """Writes an image in another format, atomically; the ending chooses the format.

    Number type and place in space stay.

    Args:
        source: Any image that `channels_in` understands.
        targets: One file for the whole image with its colours, or one file per channel.

    Raises:
        ImageError: The file cannot be read or written, or has another number of channels.
        ArtifactError: The folder cannot be written.
    """
    try:
        image, placement = _open(source)
        parts = [image] if len(targets) == 1 and image.GetDimension() < 4 else _split(image, source)
    except RuntimeError as error:
        raise unreadable(source) from error
    if len(parts) != len(targets):
        raise ImageError(f"{source} holds {len(parts)} channels, not {len(targets)}", "leave it out or mend it")
    for part, target in zip(parts, targets, strict=True):
        if placement is not None:
            place(part, place_by_header(geometry_of(part), placement, name=str(source)))
        _save(target, part, placement)


def _read(path: Path) -> Volume:
    """Reads a file as (c, z, y, x) in its own number type."""
    try:
        image, placement = _open(path)
        volume = from_sitk(image)
    except MemoryError as error:
        raise ImageError(f"{path} does not fit into the memory", "crop it, or use a machine with more") from error
    except RuntimeError as error:
        reasons = [reason for phrase, reason in KNOWN_REASONS.items() if phrase in str(error)]
        raise (ImageError(f"{path}: {reasons[0][0]}", reasons[0][1]) if reasons else unreadable(path)) from error
    except ValueError as error:
        raise ImageError(f"{path}: {error}", "extract one volume from it") from error
    if np.iscomplexobj(volume.array):
        raise ImageError(f"{path} holds complex numbers", "save their magnitude")
    if volume.array.size == 0:
        raise ImageError(f"{path} holds no voxels", "replace it")
    if has_alpha(path, len(volume.array)):
        return Volume(array=volume.array[:-1], geometry=volume.geometry)
    if placement is not None:
        return Volume(array=volume.array, geometry=place_by_header(volume.geometry, placement, name=str(path)))
    return volume


def _open(path: Path) -> tuple[sitk.Image, NiftiPlacement | None]:
    """Opens an image, placed as ITK does, and returns what its header says of its place if it is a NIfTI file."""
    check_file(path)
    header = find_nifti_header(path)
    if header is not None:
        return _open_nifti(path, header), header.placement
    image = sitk.ReadImage(str(path))
    if is_tiff(path) and image.GetDimension() == 3:
        set_spacing(image, read_spacing(path))
    return image, None


def _open_nifti(path: Path, header: NiftiHeader) -> sitk.Image:
    """Opens a NIfTI file, as it is or as a copy that ITK reads."""
    if is_readable_by_itk(header, path):
        try:
            return sitk.ReadImage(str(path), imageIO=NIFTI_READER)
        except RuntimeError as error:
            if ORTHONORMAL not in str(error):
                raise
    with plain_copy(path, header) as copy:
        return sitk.ReadImage(str(copy), imageIO=NIFTI_READER)


def _unwritable(path: Path) -> ImageError:
    return ImageError(f"cannot write {path} as an image", "check its ending and the free space")


def _split(image: sitk.Image, source: Path) -> list[sitk.Image]:
    """Returns the channels of an image, each with its place in space."""
    if image.GetDimension() == 4:
        return [image[:, :, :, channel] for channel in range(image.GetSize()[3])]
    components = image.GetNumberOfComponentsPerPixel()
    if components == 1:
        return [image]
    colours = components - 1 if has_alpha(source, components) else components
    return [sitk.VectorIndexSelectionCast(image, channel) for channel in range(colours)]


def _write(path: Path, array: NDArray[np.generic], geometry: Geometry) -> None:
    try:
        image = to_sitk(Volume(array=array, geometry=geometry))
    except RuntimeError as error:
        raise _unwritable(path) from error
    _save(path, image, find_carried(geometry))


def _save(path: Path, image: sitk.Image, placement: NiftiPlacement | None) -> None:
    """Writes an image; a NIfTI file takes over what a header says of its place."""
    if path.suffix.lower() in PLANE_ENDINGS and image.GetDimension() == 3 and image.GetDepth() > 1:
        raise ImageError(f"cannot write {path}: a picture holds one slice, not {image.GetDepth()}", "choose .nii.gz")
    if path.suffix.lower() in TWO_FILE_ENDINGS:
        raise ImageError(f"cannot write {path}: its format takes two files", "choose .nii.gz, .nrrd or .mha")
    if is_tiff(path) and image.GetDimension() == 3:
        x_mm, y_mm, z_mm = image.GetSpacing()
        write_spacing(path, (z_mm, y_mm, x_mm))
    carried = placement if is_nifti_name(path) else None
    with atomic_file(path) as writing:
        try:
            if carried is None:
                _write_by_ending(image, writing)
            else:
                write_placed(image, carried, writing)
        except RuntimeError as error:
            _check_space(writing.parent, image)
            raise _unwritable(path) from error
        if is_cut_off(writing):
            raise OSError(errno.ENOSPC, "the file was cut off, the disk may be full")


def _write_by_ending(image: sitk.Image, path: Path) -> None:
    """Writes an image in the format of an ending, which SimpleITK knows in lower case only."""
    ending = split_ending(path)[1]
    lower = path.with_name(path.name.removesuffix(ending) + ending.lower())
    try:
        sitk.WriteImage(image, str(lower), useCompression=True)
        lower.replace(path)
    finally:
        if lower != path:
            lower.unlink(missing_ok=True)


def _check_space(folder: Path, image: sitk.Image) -> None:
    """Raises OSError if the image, not compressed, is larger than the free space of the disk."""
    voxels = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
    if shutil.disk_usage(folder).free < voxels * image.GetSizeOfPixelComponent():
        raise OSError(errno.ENOSPC, "the disk is full")
