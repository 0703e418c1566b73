"""NIfTI files of both versions as stored images: their sizes and numbers; `nifti_placement` says where they lie.

They are read here and not by ITK, since several threads read them at once. ITK 5.4 keeps the name of the last NIfTI
file in a string that all threads share and none guards: two of them that write it at the same moment damage the memory
of the process, which ends it later, at any place. Its reader also takes zeros for voxels that are missing at the end of
a file and for NaN, and the voxels of "a.nii" for those of "a.nii.gz" beside it; it reads no second version.

Source of the rules: the headers nifti1.h and nifti2.h of the NIfTI Data Format Working Group.
"""

import math
from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import LEFT_AND_BACK, RIGHT_ANGLE_TOLERANCE
from autoseg.imaging.geometry import IDENTITY, Geometry, Matrix, Vector
from autoseg.imaging.volume_files.nifti_header import NiftiHeader
from autoseg.imaging.volume_files.stored_image import StoredImage, known_time_step
from autoseg.imaging.volume_files.stored_voxels import StoredVoxels

NUMBER_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 32: "c8", 64: "f8", 128: "u1", 256: "i1", 512: "u2", 768: "u4"}
NUMBER_TYPES |= {1024: "i8", 1280: "u8", 1792: "c16", 2304: "u1"}
"""Type of the numbers, by the format's code; those of 128 bit are missing."""

COLOURS = {128: 3, 2304: 4}
"""Colours of a voxel, by the format's code of the type of numbers."""

PADDING_BYTES = 4096
"""Bytes behind the last voxel that pass as padding. Decision: a page of memory."""


def read_nifti(path: Path, header: NiftiHeader) -> StoredImage:
    """Returns what a header says of its image; its grid is that of the sizes of the voxels alone.

    Colours, and vectors along a fifth axis, are components.

    Args:
        path: Path of the file.
        header: Its header.

    Raises:
        ImageError: The header holds what cannot be or is not supported.
    """
    _check(path, header)
    kind = int(header.fields["datatype"])
    sizes, colours = header.used_sizes, COLOURS.get(kind, 1)
    has_vectors = len(sizes) == 5 and sizes[3] == 1
    if len(sizes) > (5 if has_vectors else 4) or (colours > 1 and len(sizes) > 3):
        what = f"{path}: its voxels have {len(sizes)} dimensions, of sizes {sizes}, and several values"
        raise ImageError(what, "extract one volume from it")
    axes = sizes[:3] + sizes[4:] if has_vectors else sizes
    return StoredImage(
        path=path,
        geometry=_grid_by_sizes(header, sizes[:3]),
        voxels=StoredVoxels(
            path=path,
            start=0 if header.is_packed else header.first_voxel,
            number_type=np.dtype(header.byte_order + NUMBER_TYPES[kind]),
            sizes=(colours, *axes) if colours > 1 else axes,
            packing="zlib" if header.is_packed else "raw",
            skipped_bytes=header.first_voxel if header.is_packed else 0,
            padding_bytes=PADDING_BYTES,
            scale=header.scale,
        ),
        vector_axis=0 if colours > 1 else 3 if has_vectors else None,
        volume_axis=3 if len(sizes) == 4 else None,
        time_step_s=known_time_step(float(header.fields["pixdim"][4]) * header.placement.seconds_per_unit),
    )


def _check(path: Path, header: NiftiHeader) -> None:
    """Refuses a header that says of its voxels what cannot be, or is not supported."""
    count, *sizes = (int(size) for size in header.fields["dim"])
    is_empty = count < 1 or min(sizes) < 0 or 0 in sizes[: min(3, count)]
    scale = header.scale or (1.0, 0.0)
    if is_empty or header.data_start is None or int(header.fields["bitpix"]) <= 0 or not math.isfinite(scale[1]):
        raise ImageError(f"{path} is damaged: its header says of its voxels what cannot be", "copy it again")
    if count == 1:
        raise ImageError(f"{path} holds a row of numbers, no image", "remove it")
    if int(header.fields["datatype"]) not in NUMBER_TYPES:
        what = f"{path}: numbers of the type {int(header.fields['datatype'])} are not supported"
        raise ImageError(what, "save numbers of 8 to 64 bit")


def _grid_by_sizes(header: NiftiHeader, sizes: tuple[int, ...]) -> Geometry:
    """Returns the grid by the sizes of the voxels, in mm; a plane lies where the first matrix says within its plane."""
    placement = header.placement
    steps = [placement.mm_per_unit * (abs(size) or 1.0) for size in placement.pixdim[1:]]
    x_mm, y_mm, z_mm = (step if math.isfinite(step) else 1.0 for step in steps)
    if len(sizes) > 2:
        x, y, z = sizes
        return Geometry(shape=(z, y, x), spacing_mm=(z_mm, y_mm, x_mm))
    x, y = sizes
    origin_mm, direction = _place_in_plane(header)
    spacing_mm = (max(x_mm, y_mm), y_mm, x_mm)
    return Geometry(shape=(1, y, x), spacing_mm=spacing_mm, origin_mm=origin_mm, direction=direction, dimensions=2)


def _place_in_plane(header: NiftiHeader) -> tuple[Vector, Matrix]:
    """Returns origin and direction of a plane by the first matrix that leaves it in its plane; else it lies at 0."""
    for affine in header.placement.affines():
        columns = LEFT_AND_BACK[:2, np.newaxis] * affine[:2, :2]
        lengths = np.linalg.norm(columns, axis=0)
        if abs(np.linalg.det(columns)) > (1 - RIGHT_ANGLE_TOLERANCE) * lengths.prod() > 0:
            (xx, xy), (yx, yy) = (columns / lengths).tolist()
            x_mm, y_mm = (LEFT_AND_BACK[:2] * affine[:2, 3]).tolist()
            return (0.0, y_mm, x_mm), ((1.0, 0.0, 0.0), (0.0, yy, yx), (0.0, xy, xx))
    return (0.0, 0.0, 0.0), IDENTITY
