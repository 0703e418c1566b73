"""Image files that cannot be read, or that would be read wrongly without a word.

Tried with SimpleITK 2.5: a JPEG that is cut off comes out grey below the cut, a BMP as whatever the memory held, and a
TIFF with the pages that are left; for NIfTI see `nifti`. The libraries for PNG, NRRD and MetaImage notice.
"""

import struct
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from autoseg.errors import ImageError
from autoseg.nifti import check_nifti

JPEG_SCAN, JPEG_END = b"\xda", b"\xff\xd9"
BMP_HEADER_BYTES = 38


def check_file(path: Path) -> None:
    """Refuses what cannot be opened, and damage that would not be reported.

    Raises:
        ImageError: With the reason.
    """
    if not path.exists():
        raise ImageError(f"{path} does not exist", "check the path")
    if not path.is_file():
        raise ImageError(f"{path} is a folder", "put an image file in its place")
    try:
        check_nifti(path)
        check_picture(path)
        with path.open("rb"):  # files of other types: may they be read?
            pass
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}", "check that you may read it") from error


def check_picture(path: Path) -> None:
    """Refuses a JPEG, BMP or TIFF file that ends too early; files with another ending pass.

    Raises:
        ImageError: The file is cut off.
    """
    is_whole = PICTURE_CHECKS.get(path.suffix.lower())
    if is_whole is None:
        return
    with path.open("rb") as file:
        if not is_whole(file, path.stat().st_size):
            raise ImageError(f"{path} is cut off: it ends before its last pixel", "copy it again")


def _ends(file: BufferedReader, size: int) -> bool:
    """Whether a JPEG has its end mark; those of a thumbnail inside an earlier segment do not count."""
    content = file.read(size)
    place = 2
    while content[place : place + 1] == b"\xff" and place + 4 <= size:
        (length,) = struct.unpack_from(">H", content, place + 2)
        if content[place + 1 : place + 2] == JPEG_SCAN:
            return JPEG_END in content[place + 2 + length :]
        place += 2 + length
    return not content.startswith(b"\xff\xd8")  # whatever else it is, reading it will fail


def _holds_all_rows(file: BufferedReader, size: int) -> bool:
    """Whether a BMP is as long as its header says; of a packed one, as the header says of the packed pixels."""
    header = file.read(BMP_HEADER_BYTES)
    if len(header) < BMP_HEADER_BYTES or not header.startswith(b"BM"):
        return True  # reading it will fail
    start, width, height, bits, packing, packed_bytes = struct.unpack_from("<10xI4xii2xHII", header)
    row_bytes = (bits * width + 31) // 32 * 4
    needed: int = start + (packed_bytes if packing in {1, 2} else row_bytes * abs(height))
    return size >= needed


def _holds_all_pages(file: BufferedReader, size: int) -> bool:
    """Whether each page of a TIFF says where the next one is, to the last.

    A page's directory is a count, an entry of 12 or 20 bytes per fact, and the place of the next page's directory, 0 if
    there is none. Missing pixels of a page are noticed by the library.
    """
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16:
        return True  # reading it will fail
    (kind,) = struct.unpack_from(order + "H", start, 2)
    count_code, entry_bytes, place_code = ("Q", 20, "Q") if kind == 43 else ("H", 12, "I")
    (place,) = struct.unpack_from(order + place_code, start, 8 if kind == 43 else 4)
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        count = _number_at(file, place, order + count_code, size)
        if count is None:
            return False
        following = place + struct.calcsize(order + count_code) + count * entry_bytes
        next_place = _number_at(file, following, order + place_code, size)
        if next_place is None:
            return False
        place = next_place
    return True


def _number_at(file: BufferedReader, place: int, code: str, size: int) -> int | None:
    """The number at a place of the file, or None if the file ends before."""
    length = struct.calcsize(code)
    if place + length > size:
        return None
    file.seek(place)
    (number,) = struct.unpack(code, file.read(length))
    return int(number)


PICTURE_CHECKS: dict[str, Callable[[BufferedReader, int], bool]] = {
    ".jpg": _ends,
    ".jpeg": _ends,
    ".bmp": _holds_all_rows,
    ".tif": _holds_all_pages,
    ".tiff": _holds_all_pages,
}
