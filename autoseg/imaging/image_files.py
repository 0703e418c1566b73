"""Reading and writing of image files as volumes.

>>> import tempfile
>>> from autoseg.imaging.geometry import Geometry
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

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import check_straight, describe_difference, place_by_header
from autoseg.imaging.corruption import check_file
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_headers import find_nifti_header, find_stored_image, read_image_header
from autoseg.imaging.image_writing import save_volume
from autoseg.imaging.label_channels import advise_one_channel, join_shares
from autoseg.imaging.pictures.files import is_picture, read_picture
from autoseg.imaging.volume_files.nifti import read_nifti
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement
from autoseg.imaging.volume_files.stored_image import open_stored

LABEL_ROUNDING = 1e-4
"""How far a label may be from a whole number. Decision: scale factors of 32 bit leave less, and interpolation more."""

LOSSY_ENDINGS = (".jpg", ".jpeg")

# Parts of SimpleITK's messages for intact files that it does not support, and what to tell the user: (what, fix).
KNOWN_REASONS = {
    "allocate memory": ("it does not fit into the memory", "crop it, or use a machine with more"),
    "orthonormal": ("its axes are not at right angles", "resample it with 'autoseg straighten'"),
    "Unknown PixelType": ("pixels of its kind are not supported", "save plain grey"),
}


def read_image(paths: tuple[Path, ...], time_point: int | None = None) -> Volume:
    """Reads the channels of one case; `write_image` writes a channel.

    Args:
        paths: One file per channel, in order; or one file that holds several as colours, as components of a vector or
            as a fourth dimension.
        time_point: Which volume of each file to take, from 0, if they are series over time; None takes all as channels.

    Returns:
        Volume of shape (c, z, y, x), float32.

    Raises:
        ImageError: A file is missing, damaged or no image, holds NaN or infinite voxels, or lies on another grid than
            the first.
    """
    volumes = [_take(_read(path), time_point) for path in paths]
    geometry = next((volume.geometry for volume in volumes if volume.geometry.is_placed), volumes[0].geometry)
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        difference = describe_difference(geometry, volume.geometry)
        if difference is not None:
            raise ImageError(f"{paths[0]} and {path}: {difference}", "put all channels on one grid")
    with np.errstate(over="ignore"):  # values beyond 32 bit become infinite and are refused below
        array = np.concatenate([volume.array for volume in volumes], dtype=np.float32)
    _check_finite(array, ", ".join(map(str, paths)))
    return Volume(array=array, geometry=geometry)


def read_label_map(path: Path, time_point: int | None = None) -> Volume:
    """Reads a label map; `write_label_map` writes one.

    A picture with a palette gives the indices of its pixels, and a colour picture counts as a label map if it is grey,
    that is, if all its colours are equal. Channels of which one is 1 at each voxel and the others are 0, the background
    among them, become their numbers.

    Args:
        path: The file.
        time_point: Which of its volumes to take, from 0, if it is a series over time.

    Returns:
        Volume of shape (z, y, x), int32.

    Raises:
        ImageError: The file is missing, damaged or no image, has colours, or holds voxels that are no whole numbers.
    """
    volume = join_shares(_take(_read(path, as_mask=True), time_point))
    array = volume.array[0]
    if any(not np.array_equal(channel, array) for channel in volume.array[1:]):
        what = f"{path}: a label map has one channel, not {len(volume.array)}"
        raise ImageError(what, advise_one_channel(path))
    if np.issubdtype(array.dtype, np.floating):
        _check_finite(array, str(path))
        whole = np.abs(array - np.round(array)) <= LABEL_ROUNDING
        if not whole.all():
            value = array[~whole].flat[0]
            raise ImageError(f"{path}: voxel value {value:g} is no label", "save whole numbers, without interpolation")
        array = np.rint(array)
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
    save_volume(path, Volume(array=volume.array.astype(dtype), geometry=volume.geometry))


def write_image(path: Path, volume: Volume, *, compact: bool = False) -> None:
    """Writes one channel of shape (1, z, y, x) as float32, atomically; the ending chooses the format.

    Args:
        path: The file.
        volume: The channel.
        compact: Whether whole numbers that fit are written in 16 bit, which takes less time and half the space.

    Raises:
        ImageError: The format cannot hold this volume or the file cannot be written.
        ArtifactError: The folder cannot be written.
    """
    array = np.asarray(volume.array[0], dtype=np.float32)
    if compact and np.abs(array).max(initial=0) < np.iinfo(np.int16).max and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int16)
    save_volume(path, Volume(array=array, geometry=volume.geometry))


def write_probabilities(path: Path, volume: Volume) -> None:
    """Writes a map (z, y, x) of probabilities, 0 to 1, in 8 bit: rounded to 0 to 255, atomically.

    Raises:
        ImageError: The format cannot hold this volume or the file cannot be written.
        ArtifactError: The folder cannot be written.
    """
    shares = np.rint(volume.array * np.float32(255)).astype(np.uint8)
    save_volume(path, Volume(array=shares, geometry=volume.geometry))


def convert_image(source: Path, targets: tuple[Path, ...], time_point: int | None = None) -> None:
    """Writes an image in another format, atomically; the ending chooses the format.

    Number type and place in space stay. A picture is written as it is shown, without transparency.

    Args:
        source: Any image that `channels_in` understands.
        targets: One file for the whole image with its colours, or one file per channel.
        time_point: Which of its volumes is written, from 0, if it is a series over time; None writes all.

    Raises:
        ImageError: The file cannot be read or written, or has another number of channels.
        ArtifactError: The folder cannot be written.
    """
    volume, header = _read(source), read_image_header(source)
    points_in_time = time_point is None and header.volumes is not None
    parts = [volume] if len(targets) == 1 and not points_in_time else _split(volume)
    if time_point is not None:
        parts = _split(volume)[time_point : time_point + 1]
    if len(parts) != len(targets):
        raise ImageError(f"{source} holds {len(parts)} channels, not {len(targets)}", "leave it out or mend it")
    for part, target in zip(parts, targets, strict=True):
        save_volume(target, part)


def _split(volume: Volume) -> list[Volume]:
    return [Volume(array=channel, geometry=volume.geometry) for channel in volume.array]


def write_series(path: Path, volumes: Sequence[Path], source: Path) -> None:
    """Writes the images of files, which lie on one grid, into one file, one after the other along a fourth axis.

    Args:
        path: The file, whose ending is one of `formats.SERIES_ENDINGS`.
        volumes: The files, in order.
        source: The series to which they belong, whose time step the header gets.

    Raises:
        ImageError: A file cannot be read or written.
        ArtifactError: The folder cannot be written.
    """
    parts = [_read(volume) for volume in volumes]
    series = Volume(array=np.concatenate([part.array for part in parts]), geometry=parts[0].geometry)
    save_volume(path, series, read_image_header(source).time_step_s)


def transform_image(source: Path, target: Path, transform: Callable[[Volume], Volume]) -> None:
    """Writes an image with other voxels or on another grid, atomically; the ending chooses the format.

    Args:
        source: An image, whose axes may be sheared.
        target: The file that is written; it holds channels as the source does.
        transform: Gets and returns a volume (c, z, y, x) in the number type of the source.

    Raises:
        ImageError: The file cannot be read or written.
        ArtifactError: The folder cannot be written.
    """
    volume, header = read_stored(source), read_image_header(source)
    save_volume(target, transform(volume), None if header.volumes is None else header.time_step_s)


def _read(path: Path, *, as_mask: bool = False) -> Volume:
    """Reads a file as (c, z, y, x) in its own number type; its axes are at right angles."""
    volume = read_stored(path, as_mask=as_mask)
    check_straight(volume.geometry, name=str(path))
    return volume


def _check_finite(array: NDArray[np.generic], name: str) -> None:
    """Refuses voxels that are no numbers."""
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ImageError(f"{name}: voxels that are NaN or infinite: {bad}", "replace them by numbers")


def _take(volume: Volume, time_point: int | None) -> Volume:
    """Returns a volume of a series as its only channel; all channels for None."""
    if time_point is None:
        return volume
    return Volume(array=volume.array[time_point : time_point + 1], geometry=volume.geometry)


def read_stored(path: Path, *, as_mask: bool = False) -> Volume:
    """Reads a file as (c, z, y, x) in its own number type; its axes may be sheared.

    Args:
        path: Path of the file.
        as_mask: Whether a palette gives its indices instead of its colours.

    Raises:
        ImageError: The file is missing, damaged or no image.
    """
    try:
        volume, placement = _read_picture(path, as_mask=as_mask) if is_picture(path) else _read_volume(path)
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
    if placement is not None:
        return Volume(array=volume.array, geometry=place_by_header(volume.geometry, placement, name=str(path)))
    return volume


def _read_picture(path: Path, *, as_mask: bool) -> tuple[Volume, None]:
    check_file(path)
    return read_picture(path, as_mask=as_mask), None


def _read_volume(path: Path) -> tuple[Volume, NiftiPlacement | None]:
    check_file(path)
    header = find_nifti_header(path)
    if header is not None:
        return open_stored(read_nifti(path, header)), header.placement
    stored = find_stored_image(path)
    if stored is not None:
        return open_stored(stored), None
    from autoseg.imaging.sitk_files import read_by_itk  # noqa: PLC0415 - SimpleITK is not installed everywhere

    return read_by_itk(path), None
