"""Image files as images of SimpleITK, opened and saved; `image_files` makes volumes of them."""

import errno
import shutil
from pathlib import Path

import SimpleITK as sitk

from autoseg.errors import ImageError
from autoseg.imaging.corruption import check_file
from autoseg.imaging.formats import PLANE_ENDINGS, is_tiff, split_ending
from autoseg.imaging.image_headers import find_nifti_header, find_stored_image
from autoseg.imaging.itk_reading import ITK_READING
from autoseg.imaging.pictures.files import is_picture, read_picture
from autoseg.imaging.pictures.picture import UNKNOWN_SPACING
from autoseg.imaging.pictures.spacing_file import write_spacing
from autoseg.imaging.sitk_conversion import geometry_of, to_sitk
from autoseg.imaging.volume_files.nifti import read_nifti
from autoseg.imaging.volume_files.nifti_header import is_nifti_name
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement
from autoseg.imaging.volume_files.nifti_writing import is_cut_off, write_placed
from autoseg.imaging.volume_files.stored_image import open_stored
from autoseg.runtime.artifact import atomic_file

sitk.ProcessObject.SetGlobalWarningDisplay(
    False
)  # ITK's warnings would break the progress display; errors are still raised

ORTHONORMAL = "orthonormal"  # the part of SimpleITK's message about axes that are not at right angles

# Formats that put header and voxels into two files, which cannot be replaced in one step.
TWO_FILE_ENDINGS = (".mhd", ".nhdr", ".hdr", ".img")


def open_image(path: Path) -> tuple[sitk.Image, NiftiPlacement | None]:
    """Opens an image, and returns what its header says of its place if it is a NIfTI file, which is not placed yet."""
    check_file(path)
    if is_picture(path):
        return to_sitk(read_picture(path, as_mask=False)), None
    header = find_nifti_header(path)
    if header is not None:
        return open_stored(read_nifti(path, header)), header.placement
    stored = find_stored_image(path)
    if stored is not None:
        return open_stored(stored), None
    with ITK_READING:
        return sitk.ReadImage(str(path)), None


def save_image(path: Path, image: sitk.Image, placement: NiftiPlacement | None) -> None:
    """Writes an image; a NIfTI file takes over what a header says of its place."""
    if path.suffix.lower() in PLANE_ENDINGS and image.GetDimension() == 3 and image.GetDepth() > 1:
        raise ImageError(f"cannot write {path}: a picture holds one slice, not {image.GetDepth()}", "choose .nii.gz")
    if path.suffix.lower() in TWO_FILE_ENDINGS:
        raise ImageError(f"cannot write {path}: its format takes two files", "choose .nii.gz, .nrrd or .mha")
    if is_tiff(path) and image.GetDimension() < 4:
        spacing_mm = geometry_of(image).spacing_mm
        if image.GetDimension() == 3 or spacing_mm != UNKNOWN_SPACING:
            write_spacing(path, spacing_mm)
    carried = placement if is_nifti_name(path) else None
    with atomic_file(path) as writing:
        try:
            if carried is None:
                _write_by_ending(image, writing)
            else:
                write_placed(image, carried, writing)
        except RuntimeError as error:
            _check_space(writing.parent, image)
            raise _unwritable(path, image) from error
        if is_cut_off(writing):
            raise OSError(errno.ENOSPC, "the file was cut off, the disk may be full")


def split_channels(image: sitk.Image) -> list[sitk.Image]:
    """Returns the channels of an image, each with its place in space."""
    if image.GetDimension() == 5 and image.GetSize()[3] == 1:
        return [image[:, :, :, 0, channel] for channel in range(image.GetSize()[4])]
    if image.GetDimension() == 4:
        return [image[:, :, :, channel] for channel in range(image.GetSize()[3])]
    components = image.GetNumberOfComponentsPerPixel()
    if components == 1:
        return [image]
    return [sitk.VectorIndexSelectionCast(image, channel) for channel in range(components)]


def _unwritable(path: Path, image: sitk.Image) -> ImageError:
    """Returns the error of a file that SimpleITK does not write, although its folder can be written."""
    if not split_ending(path)[1]:
        what = f"cannot write {path}: its ending is that of no image format"
    else:
        kind = f"{image.GetDimension()} dimensions, {image.GetPixelIDTypeAsString()}"
        what = f"cannot write {path}: its format does not hold such an image ({kind})"
    return ImageError(what, "choose .nii.gz, .nrrd or .mha")


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
