"""A file of several parts, each of which can be read in its place: a zip archive that is not compressed.

Any zip program opens it. It keeps a checksum of each part, and its table of contents comes last, so a file that was cut
off is no archive.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

# What reading an archive can raise that is cut off, overwritten, or was never one.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)

# Before each part. Source: section 4.3.7 of PKWARE's specification of .zip
LOCAL_HEADER_BYTES = 30
LENGTHS = struct.Struct("<HH")  # Of the name and of the extra field, which follow the header
LENGTHS_START = 26


class Place(NamedTuple):
    """Where a part is, in bytes of the file."""

    start: int
    size: int


def write_archive(path: Path, parts: Iterable[tuple[str, bytes]]) -> None:
    """Writes parts one by one; the same parts always make the same file.

    Args:
        path: Of the archive; an older file is overwritten.
        parts: Name and content. Each may be made when it is asked for, so that only one is in memory.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
    """
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in parts:
            archive.writestr(zipfile.ZipInfo(name), content)  # its date is that of no day


def read_part(path: Path, name: str) -> tuple[bytes, dict[str, Place]]:
    """Reads one part, and where all parts are.

    Raises:
        DAMAGE: One of these, if the file is damaged or has no such part.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return archive.read(name), {one.filename: _find_content(file, one) for one in archive.infolist()}


def is_whole(path: Path) -> bool:
    """Whether each part has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except DAMAGE:
        return False


def _find_content(file: IO[bytes], part: zipfile.ZipInfo) -> Place:
    file.seek(part.header_offset)
    name_bytes, extra_bytes = LENGTHS.unpack_from(file.read(LOCAL_HEADER_BYTES), LENGTHS_START)
    return Place(part.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes, part.file_size)
