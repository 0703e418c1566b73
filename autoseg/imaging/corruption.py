"""Checks of image files: files that cannot be read, and damage that the libraries would not report.

Tried with SimpleITK 2.5: a truncated JPEG is read as grey below the cut, a BMP as random memory, a TIFF with the pages
that are left, a GIPL with zeros; see also `nifti` and `tiff`. The libraries for PNG, NRRD and MetaImage notice.
"""

import math
import os
import struct
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from autoseg.errors import ImageError
from autoseg.imaging.formats import is_text, readable_name
from autoseg.imaging.nifti_checks import check_nifti, check_shadowed
from autoseg.imaging.tiff import check_bits

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
BMP_HEAD_BYTES = 38  # the part of the header that is read here
BMP_USUAL_HEAD = 40
BMP_PLAIN = {0, 3, 6}  # codes of pixels that are not compressed

GIPL_HEAD_BYTES = 256
GIPL_BYTES = {
    1: 1,
    7: 1,
    8: 1,
    15: 2,
    16: 2,
    31: 4,
    32: 4,
    64: 4,
    65: 8,
}  # bytes per voxel, by the format's code of a number type

_checked_files: set[tuple[str, int, int]] = set()
"""Files in which this process found no damage: path, size in bytes, and time of the last change in ns."""


def check_file(path: Path) -> None:
    """Refuses a file that cannot be opened, or has damage that would not be reported.

    A file without damage is not read again as long as it does not change: a pipeline opens each file several times, and
    the check takes as long as the reading itself.

    Raises:
        ImageError: The file is missing, a folder, not readable or damaged.
    """
    check_name(path)
    if not path.exists():
        raise ImageError(f"{path} does not exist", "check the path")
    if not path.is_file():
        raise ImageError(f"{path} is a folder", "put an image file in its place")
    try:
        with path.open("rb") as file:  # fails if reading is not permitted
            state = os.fstat(file.fileno())
        check_shadowed(path)
        state_key = (str(path.absolute()), state.st_size, state.st_mtime_ns)
        if state_key not in _checked_files:
            check_nifti(path)
            check_picture(path)
            check_bits(path)
            _checked_files.add(state_key)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}", "check that you may read it") from error


def check_name(path: Path) -> None:
    """Refuses a file whose name is no text, for which a library would end the program.

    Raises:
        ImageError: The name holds bytes that are no text.
    """
    if not is_text(path):
        shown = readable_name(str(path))
        raise ImageError(f"{shown} has a name that is no text (UTF-8), which no library opens", "rename it")


def check_picture(path: Path) -> None:
    """Refuses a JPEG, BMP, TIFF or GIPL file that ends too early; files with another ending pass.

    Raises:
        ImageError: The file is cut off.
    """
    is_whole = PICTURE_CHECKS.get(path.suffix.lower())
    if is_whole is None:
        return
    with path.open("rb") as file:
        if not is_whole(file, path.stat().st_size):
            raise ImageError(f"{path} is cut off: it ends before its last pixel", "copy it again")


def _is_whole_jpeg(file: BufferedReader, size: int) -> bool:
    """Returns whether a JPEG has its end mark behind its pixels.

    The end mark of a thumbnail in its header does not count. The header is a row of segments: the byte 255, a kind, and
    the length of the rest. Any number of bytes 255 may come before a segment.
    """
    content = file.read(size)
    if not content.startswith(JPEG_START):
        return True  # reading it will fail
    offset = len(JPEG_START)
    while content[offset : offset + 1] == b"\xff" and offset + 4 <= size:
        if content[offset + 1] == 0xFF:
            offset += 1
            continue
        is_scan = content[offset + 1] == JPEG_SCAN
        offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
        if is_scan:
            break
    return JPEG_END in content[offset:]


def _is_whole_bmp(file: BufferedReader, size: int) -> bool:
    """Returns whether a BMP is as long as its header says, by its rows or by the size of its compressed pixels."""
    head = file.read(BMP_HEAD_BYTES)
    if len(head) < BMP_HEAD_BYTES or not head.startswith(b"BM"):
        return True  # reading it will fail
    start, head_bytes, width, height, bits, packing, packed_bytes = struct.unpack_from("<10xIIii2xHII", head)
    if head_bytes < BMP_USUAL_HEAD:
        return True  # a format from before Windows 3; reading it will fail
    row_bytes = (bits * width + 31) // 32 * 4
    needed: int = start + (row_bytes * abs(height) if packing in BMP_PLAIN else packed_bytes)
    return size >= needed


def _is_whole_tiff(file: BufferedReader, size: int) -> bool:
    """Returns whether each page of a TIFF says where the next page is, to the last.

    A page's directory is a count, entries of 12 or 20 bytes, and the offset of the next page's directory, 0 if there is
    none. The library notices missing pixels of a page.
    """
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16:
        return True  # reading it will fail
    (kind,) = struct.unpack_from(order + "H", start, 2)
    count_code, entry_bytes, offset_code = ("Q", 20, "Q") if kind == 43 else ("H", 12, "I")
    (offset,) = struct.unpack_from(order + offset_code, start, 8 if kind == 43 else 4)
    visited: set[int] = set()
    while offset and offset not in visited:
        visited.add(offset)
        count = _number_at(file, offset, order + count_code, size)
        if count is None:
            return False
        following = offset + struct.calcsize(order + count_code) + count * entry_bytes
        next_offset = _number_at(file, following, order + offset_code, size)
        if next_offset is None:
            return False
        offset = next_offset
    return True


def _is_whole_gipl(file: BufferedReader, size: int) -> bool:
    """Returns whether a GIPL is as long as its header says, which begins with four sizes and the number type."""
    head = file.read(GIPL_HEAD_BYTES)
    if len(head) < GIPL_HEAD_BYTES:
        return True  # reading it will fail
    *sizes, kind = struct.unpack_from(">5H", head)
    voxels: int = math.prod(max(1, edge) for edge in sizes)
    return size >= GIPL_HEAD_BYTES + voxels * GIPL_BYTES.get(kind, 0)


def _number_at(file: BufferedReader, offset: int, code: str, size: int) -> int | None:
    """Reads the number at an offset of the file; None if the file ends before."""
    length = struct.calcsize(code)
    if offset + length > size:
        return None
    file.seek(offset)
    (number,) = struct.unpack(code, file.read(length))
    return int(number)


PICTURE_CHECKS: dict[str, Callable[[BufferedReader, int], bool]] = {
    ".jpg": _is_whole_jpeg,
    ".jpeg": _is_whole_jpeg,
    ".bmp": _is_whole_bmp,
    ".tif": _is_whole_tiff,
    ".tiff": _is_whole_tiff,
    ".gipl": _is_whole_gipl,
}
