"""Damage of NIfTI files that the library which reads them does not report.

Tried with SimpleITK 2.5: it takes zeros for voxels that are missing at the end of a file, and it takes the voxels of
"a.nii" for those of "a.nii.gz" if both lie in one folder. Both would be trained on without a word.
"""

import gzip
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path

from autoseg.errors import ImageError

FIRST_HEADER_BYTES, SECOND_HEADER_BYTES = 348, 540  # of the two versions of the format
GZIP_START = b"\x1f\x8b"
BLOCK_BYTES = 2**20


def check_nifti(path: Path) -> None:
    """Refuses a NIfTI file whose voxels would be read wrongly; files with another ending pass.

    A damaged byte inside a compressed file of the right length is not found, because that needs unpacking it.

    Raises:
        ImageError: The file ends before its last voxel, or another file would be read in its place.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return
    rival = path.with_name(path.name[: -len(".gz")])
    if name.endswith(".gz") and rival.is_file():
        raise ImageError(f"{path} lies beside {rival.name}, which would be read in its place", "move one of them away")
    if _is_cut_off(path):
        raise ImageError(f"{path} is cut off: it ends before its last voxel", "copy it again")


def _is_cut_off(path: Path) -> bool:
    """Whether the file holds fewer bytes than its header announces, as after an interrupted copy."""
    with path.open("rb") as file:
        is_packed = file.read(len(GZIP_START)) == GZIP_START
    try:
        with gzip.open(path) if is_packed else path.open("rb") as file:
            header = file.read(SECOND_HEADER_BYTES)
            announced = _announced_bytes(header)
            if not is_packed:
                return path.stat().st_size < announced
            return not _states_size(path, announced) and len(header) + _count_bytes(file) < announced
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return True


def _announced_bytes(header: bytes) -> int:
    """Unpacked size of the file according to its header; 0 if it is no such header."""
    for order in "<>":
        if _starts_with(header, order, FIRST_HEADER_BYTES):
            _, *sizes, bits, start = struct.unpack_from(order + "i36x8h16xh34xf", header)
        elif _starts_with(header, order, SECOND_HEADER_BYTES):
            _, bits, *sizes, start = struct.unpack_from(order + "i10xh8q88xq", header)
        else:
            continue
        voxels: int = math.prod(sizes[1 : 1 + sizes[0]])
        return int(start) + voxels * int(bits) // 8
    return 0


def _starts_with(header: bytes, order: str, size: int) -> bool:
    """Whether the header states its own size, in this order of bytes."""
    return len(header) >= size and struct.unpack_from(order + "i", header) == (size,)


def _states_size(path: Path, size: int) -> bool:
    """Whether the last four bytes of a gzip file state this unpacked size, so that it need not be unpacked to know."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        return file.read() == struct.pack("<I", size % 2**32)


def _count_bytes(file: gzip.GzipFile | BufferedReader) -> int:
    return sum(len(block) for block in iter(lambda: file.read(BLOCK_BYTES), b""))
