"""Damage of NIfTI files that the library which reads them does not report.

Tried with SimpleITK 2.5: it takes zeros for voxels that are missing at the end of a file, zeros for NaN and infinity,
any value for a damaged byte of a compressed file, and the voxels of "a.nii" for those of "a.nii.gz" if both lie in one
folder. A network would be trained on all of it. So each file is decompressed once more here, block by block.
"""

import gzip
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import DEFLATE_RATIO, check_budget
from autoseg.imaging.volume_files.nifti_header import GZIP_START, SECOND_BYTES, is_nifti_name, parse_header, read_header

FLOATS = {16: "f4", 64: "f8"}  # the format's codes of the number types that can hold NaN
BLOCK_BYTES = 2**20
PADDING_BYTES = 4096
"""Bytes behind the last voxel that pass as padding. Decision: a page of memory."""


class _NonsenseError(Exception):
    """A header says of the voxels what cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _VoxelLayout:
    """Where the voxels of a file are, in bytes, and their number type if they are floats."""

    start: int
    size: int
    float_type: str | None


def check_shadowed(path: Path) -> None:
    """Refuses a compressed NIfTI file beside an uncompressed one of the same name.

    Raises:
        ImageError: The other file would be read in its place.
    """
    unpacked = path.with_name(path.name[: -len(".gz")])
    if path.name.lower().endswith(".nii.gz") and unpacked.is_file():
        raise ImageError(
            f"{path} lies beside {unpacked.name}, which would be read in its place", "move one of them away"
        )


def check_nifti(path: Path) -> None:
    """Refuses a NIfTI file whose voxels would be read wrongly; files with another ending pass.

    Raises:
        ImageError: The file ends before its last voxel or long after it, is damaged, holds NaN or infinity, or does not
            fit into the memory.
    """
    if not is_nifti_name(path):
        return
    header = read_header(path)
    if header is not None:
        ratio = DEFLATE_RATIO if header.is_packed else 1
        check_budget(path, header.data_bytes, path.stat().st_size, largest_ratio=ratio)
    try:
        missing, not_finite = _examine(path)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(f"{path} is damaged: it cannot be unpacked", "copy it again") from error
    except _NonsenseError as error:
        raise ImageError(f"{path} is damaged: its header says of its voxels what cannot be", "copy it again") from error
    if missing > 0:
        raise ImageError(f"{path} is cut off: it ends before its last voxel", "copy it again")
    if -missing > PADDING_BYTES:
        raise ImageError(f"{path} holds more voxels than the sizes in its header say", "correct the sizes")
    if not_finite:
        raise ImageError(f"{path}: voxels that are NaN or infinite: {not_finite}", "replace them by numbers")


def is_cut_off(path: Path) -> bool:
    """Returns whether a NIfTI file that was just written ends before its last voxel; False for another ending.

    The library that writes NIfTI files reports success when the disk is full.
    """
    return is_nifti_name(path) and (path.stat().st_size == 0 or _examine(path)[0] > 0)


def _examine(path: Path) -> tuple[int, int]:
    """Reads a file to its end; returns the number of missing bytes, at least, and of voxels that are not finite.

    The number is negative if there are more bytes than voxels.
    """
    with path.open("rb") as start:
        is_packed = start.read(len(GZIP_START)) == GZIP_START
    try:
        with gzip.open(path) if is_packed else path.open("rb") as file:
            return _examine_unpacked(file)
    except EOFError:
        return 1, 0


def _examine_unpacked(file: gzip.GzipFile | BufferedReader) -> tuple[int, int]:
    header = file.read(SECOND_BYTES)
    layout = _find_layout(header)
    if layout is None:
        return 0, 0  # it is no NIfTI file, and reading it will fail
    file.seek(layout.start)
    bytes_read, not_finite = 0, 0
    while block := file.read(BLOCK_BYTES):
        not_finite += _count_not_finite(block[: max(0, layout.size - bytes_read)], layout.float_type)
        bytes_read += len(block)
        if bytes_read - layout.size > PADDING_BYTES:
            break  # a file of a megabyte may unpack to a gigabyte
    return layout.size - bytes_read, not_finite


def _count_not_finite(block: bytes, float_type: str | None) -> int:
    """Returns the number of NaN and infinite voxels among those that lie in a block completely."""
    if float_type is None:
        return 0
    whole = len(block) // np.dtype(float_type).itemsize
    return int(np.count_nonzero(~np.isfinite(np.frombuffer(block, dtype=float_type, count=whole))))


def _find_layout(header: bytes) -> _VoxelLayout | None:
    """Returns where the header says that the voxels are; None if it is no NIfTI header.

    Raises:
        _NonsenseError: The header says of the voxels what cannot be.
    """
    parsed = parse_header(header)
    if parsed is None:
        return None
    start = parsed.data_start
    count, *sizes = parsed.fields["dim"]
    is_empty = 0 in sizes[: min(3, max(0, int(count)))]
    if start is None or is_empty or min(count, *sizes) < 0 or parsed.fields["bitpix"] <= 0:
        raise _NonsenseError
    kind = FLOATS.get(int(parsed.fields["datatype"]))
    return _VoxelLayout(start=start, size=parsed.data_bytes, float_type=kind and parsed.byte_order + kind)
