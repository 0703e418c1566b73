"""Volumes as image files, written whole or not at all; `image_files` says which voxels and number types."""

from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import affine_of, find_carried
from autoseg.imaging.formats import PLANE_ENDINGS, is_tiff
from autoseg.imaging.geometry import Volume
from autoseg.imaging.pictures.picture import UNKNOWN_SPACING
from autoseg.imaging.pictures.spacing_file import write_spacing
from autoseg.imaging.volume_files.nifti_header import is_nifti_name
from autoseg.imaging.volume_files.nifti_writing import write_nifti
from autoseg.runtime.artifact import atomic_file

# Formats that put header and voxels into two files, which cannot be replaced in one step.
TWO_FILE_ENDINGS = (".mhd", ".nhdr", ".hdr", ".img")


def save_volume(path: Path, volume: Volume, time_step_s: float | None = None) -> None:
    """Writes a volume, atomically; the ending chooses the format. A NIfTI file keeps what the scan says of its place.

    Args:
        path: The file.
        volume: A map (z, y, x), or channels (c, z, y, x), which become components of the voxels if there are several.
        time_step_s: Seconds from one channel to the next, if they are points in time; None if they are not.

    Raises:
        ImageError: The format cannot hold this volume.
        WriteError: The folder cannot be written, or the disk is full.
    """
    _check_format(path, volume, is_series=time_step_s is not None)
    if is_tiff(path) and time_step_s is None:
        _, y_mm, x_mm = volume.geometry.spacing_mm
        plane_mm = (max(y_mm, x_mm), y_mm, x_mm)
        spacing_mm = plane_mm if volume.geometry.dimensions == 2 else volume.geometry.spacing_mm
        if volume.geometry.dimensions == 3 or spacing_mm != UNKNOWN_SPACING:
            write_spacing(path, spacing_mm)
    with atomic_file(path) as writing:
        if is_nifti_name(path):
            write_nifti(writing, volume, find_carried(volume.geometry), time_step_s)
        else:
            from autoseg.imaging.sitk_files import write_by_itk  # noqa: PLC0415 - NIfTI is written without SimpleITK

            write_by_itk(writing, path, volume, time_step_s)


def require_writer(ending: str) -> None:
    """Finds out before the work whether files of an ending can be written.

    Raises:
        ModuleNotFoundError: SimpleITK is not installed, which writes all formats but NIfTI.
    """
    if not is_nifti_name(Path(f"a{ending}")):
        import autoseg.imaging.sitk_files  # noqa: F401, PLC0415


def _check_format(path: Path, volume: Volume, *, is_series: bool) -> None:
    """Refuses a format that holds no such volume, and a grid that no format holds."""
    slices = volume.geometry.shape[0]
    if path.suffix.lower() in PLANE_ENDINGS and slices > 1 and not is_series:
        raise ImageError(f"cannot write {path}: a picture holds one slice, not {slices}", "choose .nii.gz")
    if path.suffix.lower() in TWO_FILE_ENDINGS:
        raise ImageError(f"cannot write {path}: its format takes two files", "choose .nii.gz, .nrrd or .mha")
    affine = affine_of(volume.geometry)
    if not (np.isfinite(affine).all() and np.linalg.det(affine[:3, :3])):
        what = f"cannot write {path}: image files hold no such grid"
        raise ImageError(what, "give spacings above 0, and axes at right angles")
