"""Files that SimpleITK reads or writes: those of formats that are rarer than NIfTI, NRRD and MetaImage, and results.

This module is imported when such a file is met, since SimpleITK is not installed everywhere.
"""

import errno
import shutil
from pathlib import Path

import SimpleITK as sitk

from autoseg.errors import ImageError
from autoseg.imaging.formats import split_ending
from autoseg.imaging.geometry import Volume
from autoseg.imaging.itk_reading import ITK_READING
from autoseg.imaging.sitk_conversion import from_sitk, join_series, to_sitk

sitk.ProcessObject.SetGlobalWarningDisplay(
    False
)  # ITK's warnings would break the progress display; errors are still raised


def read_by_itk(path: Path) -> Volume:
    """Reads a file as (c, z, y, x) in its own number type.

    Raises:
        RuntimeError: SimpleITK does not read the file.
        ValueError: The image has more axes than a volume with channels.
    """
    with ITK_READING:
        image = sitk.ReadImage(str(path))
    return from_sitk(image)


def write_by_itk(path: Path, target: Path, volume: Volume, time_step_s: float | None) -> None:
    """Writes a file in the format of its ending, which SimpleITK knows in lower case only.

    Args:
        path: Path of the file that is written.
        target: Path that it gets afterwards, for messages.
        volume: A map (z, y, x), or channels (c, z, y, x).
        time_step_s: Seconds from one channel to the next, if they are points in time; None if they are not.

    Raises:
        ImageError: The format cannot hold this volume.
        OSError: The disk is full.
    """
    try:
        image = to_sitk(volume) if time_step_s is None else join_series(_points(volume), time_step_s)
    except (RuntimeError, TypeError) as error:
        what = f"cannot write {target}: image files hold no such grid or numbers"
        raise ImageError(what, "give axes at right angles, and numbers of 8 to 64 bit") from error
    ending = split_ending(path)[1]
    lower = path.with_name(path.name.removesuffix(ending) + ending.lower())
    try:
        sitk.WriteImage(image, str(lower), useCompression=True)
        lower.replace(path)
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free < volume.array.nbytes:
            raise OSError(errno.ENOSPC, "the disk is full") from error
        raise _unwritable(target, image) from error
    finally:
        if lower != path:
            lower.unlink(missing_ok=True)


def _points(volume: Volume) -> list[Volume]:
    """Returns the volumes of a series."""
    channels = volume.array if volume.array.ndim == 4 else volume.array[None]
    return [Volume(array=channel, geometry=volume.geometry) for channel in channels]


def _unwritable(path: Path, image: sitk.Image) -> ImageError:
    """Returns the error of a file that SimpleITK does not write, although its folder can be written."""
    if not split_ending(path)[1]:
        what = f"cannot write {path}: its ending is that of no image format"
    else:
        kind = f"{image.GetDimension()} dimensions, {image.GetPixelIDTypeAsString()}"
        what = f"cannot write {path}: its format does not hold such an image ({kind})"
    return ImageError(what, "choose .nii.gz, .nrrd or .mha")
