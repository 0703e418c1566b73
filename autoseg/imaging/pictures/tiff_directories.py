"""The directories of a TIFF, walked along before any library reads the file: circles, lies about sizes, and cut files.

A page has a directory: a count, that many entries of 12 bytes (20 in BigTIFF), and the offset of the next page's
directory, 0 if there is none. An entry is a code, a type, a count, and the values or their offset in the file.
Source: TIFF 6.0, section 2; the BigTIFF design.
"""

import struct
from io import BufferedReader
from pathlib import Path

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import cut_off
from autoseg.imaging.foreign_formats import unreadable

BIG = 43  # the version of the format with offsets of 64 bit
MOST_PAGES = 2**16
"""Pages of a file. Decision: no stack has more, and a file that claims more keeps its readers busy."""

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def check_directories(path: Path) -> None:
    """Refuses a TIFF whose directories no reader should follow.

    Raises:
        ImageError: The file is no TIFF, ends before a directory, has pages that form a circle or are too many, or an
            entry with more values than the file has bytes.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            raise unreadable(path)
        (kind,) = struct.unpack_from(f"{order}H", head, 2)
        count, entry, pointer = (
            struct.Struct(order + code) for code in (("Q", "HHQ8x", "Q") if kind == BIG else ("H", "HHI4x", "I"))
        )
        (offset,) = pointer.unpack_from(head, 8 if kind == BIG else 4)
        visited: set[int] = set()
        while offset:
            if offset in visited:
                raise ImageError(f"{path}: its pages form a circle, each leading to the next", "save it anew")
            if len(visited) == MOST_PAGES:
                raise ImageError(f"{path} has more than {MOST_PAGES} pages", "save it as several files")
            visited.add(offset)
            if offset + count.size > size:
                raise cut_off(path)
            file.seek(offset)
            (entries,) = count.unpack(file.read(count.size))
            if offset + count.size + entries * entry.size + pointer.size > size:
                raise cut_off(path)
            _check_entries(file, entries, entry, size, path)
            (offset,) = pointer.unpack(file.read(pointer.size))


def _check_entries(file: BufferedReader, entries: int, entry: struct.Struct, size: int, path: Path) -> None:
    """Refuses a directory with an entry that has more values than the file has bytes."""
    for _code, kind, values in entry.iter_unpack(file.read(entries * entry.size)):
        if values * TYPE_BYTES.get(kind, 1) > size:
            raise unreadable(path)
