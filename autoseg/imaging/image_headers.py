"""What the header of an image file says: sizes, spacing and channels, without reading any voxel."""

from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import place_by_header
from autoseg.imaging.corruption import check_name
from autoseg.imaging.file_kind import check_kind
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.formats import VOLUME_ENDINGS, is_tiff, split_ending
from autoseg.imaging.geometry import Shape, Vector
from autoseg.imaging.itk_reading import ITK_READING
from autoseg.imaging.pictures.files import is_picture, open_picture
from autoseg.imaging.pictures.picture import Picture
from autoseg.imaging.volume_files.gipl import is_gipl, read_gipl
from autoseg.imaging.volume_files.metaimage import is_metaimage, read_metaimage
from autoseg.imaging.volume_files.nifti import read_nifti
from autoseg.imaging.volume_files.nifti_header import NiftiHeader, is_nifti_name, read_header
from autoseg.imaging.volume_files.nrrd import is_nrrd, read_nrrd
from autoseg.imaging.volume_files.stored_image import StoredImage
from autoseg.runtime.os_errors import advise_reading, reason_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The header of an image.

    Attributes:
        shape: Number of voxels along (z, y, x) of each volume; a plane has one slice.
        spacing_mm: Spacing along (z, y, x).
        volumes: Number of volumes along a fourth axis, which is a list in NRRD; None if there is no such axis.
        components: Number of colours without transparency, of channels, or of components of a vector, of each voxel.
        time_step_s: Seconds from one volume to the next; 1 if the header does not state them.
    """

    shape: Shape
    spacing_mm: Vector
    volumes: int | None
    components: int
    time_step_s: float = 1.0


def channels_in(path: Path) -> int:
    """Returns how many channels a file holds as colours, vectors or a fourth dimension; reads its header only.

    Raises:
        ImageError: The file is missing or no image.
    """
    header = read_image_header(path)
    if header.volumes is not None:
        return header.volumes
    return header.components


def is_series(path: Path) -> bool:
    """Returns whether a file holds several volumes as a fourth dimension or as a list.

    Raises:
        ImageError: The file is missing or no image.
    """
    return read_image_header(path).volumes is not None


def count_volumes(path: Path) -> int:
    """Returns how many volumes a file holds as a fourth dimension or as a list; 1 if that cannot be read.

    Colours and the components of vectors are one volume.
    """
    try:
        return read_image_header(path).volumes or 1
    except ImageError:
        return 1


def count_points(path: Path) -> int:
    """Returns how many points in time a file holds for a model of one channel: its volumes, of formats of volumes."""
    is_of_volumes = split_ending(path)[1].lower() in VOLUME_ENDINGS or is_tiff(path)
    return count_volumes(path) if is_of_volumes else 1


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
        ImageError: The file is missing, no regular file or no image, or its name is no text.
    """
    check_name(path)
    check_kind(path)
    if is_picture(path):
        return _from_picture(open_picture(path))
    nifti = find_nifti_header(path)
    if nifti is not None:
        return _from_nifti(nifti, path)
    stored = find_stored_image(path)
    if stored is not None:
        return _from_stored(stored)
    return _read_by_itk(path)


def find_nifti_header(path: Path) -> NiftiHeader | None:
    """Returns the header of a file with the ending of NIfTI; None if it has another ending.

    Raises:
        ImageError: The file cannot be read, or holds no header of NIfTI.
    """
    if not is_nifti_name(path):
        return None
    try:
        header = read_header(path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {reason_of(error)}", advise_reading(error)) from error
    except EOFError as error:
        raise ImageError(f"{path} is cut off: it ends before its first voxel", "copy it again") from error
    if header is None:
        raise unreadable(path)
    return header


def find_stored_image(path: Path) -> StoredImage | None:
    """Returns what the header of an NRRD, MetaImage or GIPL file says; None for a file of another format.

    Raises:
        ImageError: The file cannot be read, or its header holds what cannot be or is not supported.
    """
    try:
        if is_metaimage(path):
            return read_metaimage(path)
        if is_gipl(path):
            return read_gipl(path)
        return read_nrrd(path) if is_nrrd(path) else None
    except OSError as error:
        raise ImageError(f"cannot read {path}: {reason_of(error)}", advise_reading(error)) from error


def _from_picture(picture: Picture) -> ImageHeader:
    spacing_mm = picture.geometry.spacing_mm
    volumes, components = (picture.channels, 1) if picture.is_over_time else (None, picture.channels)
    return ImageHeader(shape=picture.shape, spacing_mm=spacing_mm, volumes=volumes, components=components)


def _from_stored(stored: StoredImage) -> ImageHeader:
    geometry = stored.geometry
    return ImageHeader(
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        volumes=stored.volumes,
        components=stored.components,
        time_step_s=stored.time_step_s,
    )


def _from_nifti(header: NiftiHeader, path: Path) -> ImageHeader:
    stored = read_nifti(path, header)
    grid = place_by_header(stored.geometry, header.placement, name=str(path))
    return replace(_from_stored(stored), spacing_mm=grid.spacing_mm)


def _read_by_itk(path: Path) -> ImageHeader:
    import SimpleITK as sitk  # noqa: PLC0415 - formats that people use are read without it

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with ITK_READING:
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
