"""What the header of an image file says: sizes, spacing and channels, without reading any voxel."""

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import place_by_header
from autoseg.imaging.corruption import check_name
from autoseg.imaging.formats import PLANE_ENDINGS
from autoseg.imaging.geometry import Geometry, Shape, Vector
from autoseg.imaging.nifti_header import NiftiHeader, is_nifti_name, read_header

COLOURS = {128: 3, 2304: 4}
"""Colours of a voxel, by NIfTI's code of the type of numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The header of an image.

    Attributes:
        shape: Number of voxels along (z, y, x) of each volume; a plane has one slice.
        spacing_mm: Spacing along (z, y, x).
        volumes: Number of volumes along a fourth axis; None if there is no such axis.
        components: Number of colours, or of components of a vector, of each voxel.
    """

    shape: Shape
    spacing_mm: Vector
    volumes: int | None
    components: int


def channels_in(path: Path) -> int:
    """Returns how many channels a file holds as colours, vectors or a fourth dimension; reads its header only.

    Raises:
        ImageError: The file is missing or no image.
    """
    header = read_image_header(path)
    if header.volumes is not None:
        return header.volumes
    return header.components - 1 if has_alpha(path, header.components) else header.components


def is_series(path: Path) -> bool:
    """Returns whether a file holds several volumes as a fourth dimension, which `read_image` refuses.

    Raises:
        ImageError: The file is missing or no image.
    """
    return read_image_header(path).volumes is not None


def read_grid(path: Path) -> tuple[Shape, Vector]:
    """Returns shape (z, y, x) and spacing in mm of a volume, or of a plane as one slice, from the header of its file.

    Raises:
        ImageError: The file is missing or no image.
    """
    header = read_image_header(path)
    return header.shape, header.spacing_mm


def read_image_header(path: Path) -> ImageHeader:
    """Reads the header of an image.

    Raises:
        ImageError: The file is missing or no image, or its name is no text.
    """
    check_name(path)
    nifti = find_nifti_header(path)
    if nifti is not None:
        return _from_nifti(nifti, path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise unreadable(path) from error
    (x, y, z), (step_x, step_y, step_z) = (*reader.GetSize(), 1)[:3], (*reader.GetSpacing(), 1.0)[:3]
    return ImageHeader(
        shape=(z, y, x),
        spacing_mm=(step_z, step_y, step_x),
        volumes=int(reader.GetSize()[3]) if reader.GetDimension() == 4 else None,
        components=int(reader.GetNumberOfComponents()),
    )


def find_nifti_header(path: Path) -> NiftiHeader | None:
    """Returns the header of a file with the ending of NIfTI; None if it has another ending, or cannot be read."""
    if not is_nifti_name(path):
        return None
    try:
        return read_header(path)
    except OSError:
        return None


def has_alpha(path: Path, components: int) -> bool:
    """Returns whether the last component of a picture is its transparency."""
    return path.suffix.lower() in PLANE_ENDINGS and components in (2, 4)


def unreadable(path: Path) -> ImageError:
    """Returns the error of a file that no library reads."""
    return ImageError(f"{path} cannot be read as an image (damaged, cut off or no image)", "replace it")


def _from_nifti(header: NiftiHeader, path: Path) -> ImageHeader:
    x, y, z, *others = header.sizes
    placement = header.placement
    step_x, step_y, step_z = (placement.mm_per_unit * (abs(size) or 1.0) for size in placement.pixdim[1:])
    geometry = Geometry(shape=(z, y, x), spacing_mm=(step_z, step_y, step_x))
    volumes, vector = (*others, 1, 1)[:2]
    is_a_series = int(header.fields["dim"][0]) == 4 and volumes > 1
    return ImageHeader(
        shape=(z, y, x),
        spacing_mm=place_by_header(geometry, placement, name=str(path)).spacing_mm,
        volumes=volumes if is_a_series else None,
        components=vector * COLOURS.get(int(header.fields["datatype"]), 1),
    )
