"""Checks of image files: files that cannot be read, and damage that the libraries would not report.

A truncated JPEG is read as grey below the cut, a BMP as random memory; see also `pictures`, and
`stored_image`, which notices itself.
"""

import struct
import sys
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import check_kind
from autoseg.imaging.formats import is_text, readable_name
from autoseg.runtime.os_errors import advise_reading, reason_of

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
BMP_HEAD_BYTES = 38  # the part of the header that is read here
BMP_USUAL_HEAD = 40
BMP_PLAIN = {0, 3, 6}  # codes of pixels that are not compressed


def check_file(path: Path) -> None:
    """Refuses a file that cannot be opened, or has damage that would not be reported.

    Raises:
        ImageError: The file is missing, no regular file, not readable or damaged.
    """
    check_name(path)
    check_kind(path)
    try:
        check_picture(path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {reason_of(error)}", advise_reading(error)) from error


def check_name(path: Path) -> None:
    """Refuses a file whose name is no text, for which a library would end the program.

    Raises:
        ImageError: The name holds bytes that are no text.
    """
    if not is_text(path):
        shown = readable_name(str(path))
        encoding = sys.getfilesystemencoding()
        fix = "rename it" if encoding.lower() == "utf-8" else f"rename it, or set PYTHONUTF8=1 if it is no {encoding}"
        raise ImageError(f"{shown} has a name that is no text ({encoding}), which no library opens", fix)


def check_picture(path: Path) -> None:
    """Refuses a JPEG or BMP file that ends too early; files with another ending pass.

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


PICTURE_CHECKS: dict[str, Callable[[BufferedReader, int], bool]] = {
    ".jpg": _is_whole_jpeg,
    ".jpeg": _is_whole_jpeg,
    ".bmp": _is_whole_bmp,
}
