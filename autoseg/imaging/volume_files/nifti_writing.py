"""NIfTI files, written: a header of the first version, and the voxels behind it.

They are written here and not by ITK, which rounds the place of turned axes twice, reports success when the disk is
full, and takes a quarter of a gigabyte where nothing else needs it.

Source of the rules: the header nifti1.h of the NIfTI Data Format Working Group.
"""

import gzip
from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.volume_files.nifti import NUMBER_TYPES
from autoseg.imaging.volume_files.nifti_header import FIRST
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement

BLOCK_BYTES = 2**20

COMPRESSION = 4
"""Level of compression. Decision: beside zlib's usual 6, a jagged mask of ten million voxels takes 0.23 s of processor
time in place of 0.91 s, and 8 % more room; a smooth one takes as long."""

CODES = {NUMBER_TYPES[code]: code for code in (2, 4, 8, 16, 32, 64, 256, 512, 768, 1024, 1280, 1792)}
"""Code of each type of numbers."""

VECTOR = 1007
"""Code of an image whose fifth axis holds the components of a vector."""

LARGEST_EDGE = 2**15 - 1
"""Largest number of voxels along an axis: sizes have 16 bit."""

FIRST_VOXEL = 352
"""Where voxels begin: behind the header and four bytes which say that no extension follows."""


def write_nifti(path: Path, volume: Volume, placement: NiftiPlacement, time_step_s: float | None = None) -> None:
    """Writes a NIfTI file; the same volume gives the same bytes.

    Args:
        path: Path of the file; it is compressed if its name ends in .gz.
        volume: A map (z, y, x), or channels (c, z, y, x), which become components of vectors if there are several.
        placement: What the header says of the place of the voxels.
        time_step_s: Seconds from one channel to the next, if they are points in time; None if they are not.

    Raises:
        ImageError: The format does not hold so many voxels along an axis, or numbers of this type.
        OSError: The file cannot be written, or the disk is full.
    """
    header = _make_header(path, volume, placement, time_step_s)
    array = np.ascontiguousarray(volume.array, volume.array.dtype.newbyteorder("<"))
    voxels = array.reshape(-1).view(np.uint8).data
    with path.open("wb") as raw:
        if path.suffix.lower() != ".gz":
            raw.write(header)
            raw.write(voxels)
            return
        with gzip.GzipFile("", "wb", COMPRESSION, raw, mtime=0) as packed:
            packed.write(header)
            for start in range(0, len(voxels), BLOCK_BYTES):
                packed.write(voxels[start : start + BLOCK_BYTES])


def _make_header(path: Path, volume: Volume, placement: NiftiPlacement, time_step_s: float | None) -> bytes:
    """Returns the bytes before the first voxel."""
    kind = volume.array.dtype.newbyteorder("=").str[1:]
    if kind not in CODES:
        raise ImageError(f"cannot write {path}: NIfTI holds no numbers of {volume.array.dtype}", "give 8 to 64 bit")
    sizes = _axes(volume, is_series=time_step_s is not None)
    if max(sizes) > LARGEST_EDGE:
        what = f"cannot write {path}: NIfTI holds {LARGEST_EDGE} voxels along an axis, not {max(sizes)}"
        raise ImageError(what, "choose .nrrd or .mha")
    block = np.zeros(FIRST_VOXEL, np.uint8)
    [fields] = block[: FIRST.itemsize].view(FIRST.newbyteorder("<"))[:, np.newaxis]  # the same memory
    fields["sizeof_hdr"], fields["magic"], fields["vox_offset"] = FIRST.itemsize, b"n+1", FIRST_VOXEL
    fields["regular"] = b"r"
    fields["dim"] = [len(sizes), *sizes, *[1] * (7 - len(sizes))]
    fields["intent_code"] = VECTOR if len(sizes) == 5 else 0
    fields["datatype"], fields["bitpix"] = CODES[kind], 8 * volume.array.dtype.itemsize
    fields["scl_slope"] = 1
    fields["pixdim"][:, :4] = placement.pixdim
    fields["pixdim"][:, 4] = 0 if time_step_s is None else time_step_s / placement.seconds_per_unit
    fields["xyzt_units"] = placement.units
    fields["descrip"] = placement.description.encode("latin-1", "replace")
    fields["sform_code"], fields["qform_code"] = placement.sform_code, placement.qform_code
    fields["srow"], fields["quatern"], fields["qoffset"] = placement.sform, placement.quaternion, placement.offset
    return block.tobytes()


def _axes(volume: Volume, *, is_series: bool) -> tuple[int, ...]:
    """Returns the sizes of the axes in the order of the file: x, y, z, then time; or 1, then vectors."""
    sizes = volume.geometry.shape[::-1]
    channels = len(volume.array) if volume.array.ndim == 4 else 1
    if is_series:
        return (*sizes, channels)
    if channels > 1:
        return (*sizes, 1, channels)
    return sizes[:2] if volume.geometry.dimensions == 2 else sizes
