"""A file of several parts, each of which can be read in its place: a zip archive that is not compressed.

Any zip program opens it. It keeps a checksum of each part, and its table of contents comes last, so a file that was cut
off is no archive.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import blosc2
import numpy as np
from numpy.typing import NDArray

# What reading an archive can raise that is cut off, overwritten, or was never one.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)

# Before each part. Source: section 4.3.7 of PKWARE's specification of .zip
LOCAL_HEADER_BYTES = 30
LENGTHS = struct.Struct("<HH")  # Of the name and of the extra field, which follow the header
LENGTHS_START = 26


class PartLocation(NamedTuple):
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


def read_part(path: Path, name: str) -> tuple[bytes, dict[str, PartLocation]]:
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


def _find_content(file: IO[bytes], part: zipfile.ZipInfo) -> PartLocation:
    file.seek(part.header_offset)
    name_bytes, extra_bytes = LENGTHS.unpack_from(file.read(LOCAL_HEADER_BYTES), LENGTHS_START)
    return PartLocation(part.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes, part.file_size)


# Decision: level 1 of Zstandard after shuffle makes the smallest files of what is written fast. LZ4 reads patches in
# 0.6 of the time, but takes a tenth more space for made-up CT and a quarter to a half more for real MR; LZ4HC, which
# the reference chose, takes six times as long to write. See tests/benchmarks/store.py.
CODEC = blosc2.Codec.ZSTD
LEVEL = 1
BLOCK_EDGE = {2: 128, 3: 32}  # Voxels, by dimension. Decision: 64 or 128 KiB fit into the cache, and waste little


def compress_voxels(array: NDArray[Any], patch_size: tuple[int, ...]) -> bytes:
    """Compresses an image or label map in chunks of patches; channels and, for 2D, slices are apart."""
    chunks = (*(1,) * (array.ndim - len(patch_size)), *patch_size)
    return compress(array, chunks, tuple(min(size, BLOCK_EDGE[len(patch_size)]) for size in chunks))


def compress(array: NDArray[Any], chunks: tuple[int, ...], blocks: tuple[int, ...]) -> bytes:
    """Returns an array as a compressed blosc2 frame of these chunks and blocks."""
    chunks = tuple(max(1, min(sizes)) for sizes in zip(chunks, array.shape, strict=True))
    compressed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=chunks,
        blocks=tuple(map(min, blocks, chunks)),
        cparams={
            "codec": CODEC,
            "clevel": LEVEL,
            "nthreads": 1,  # cases are written, and patches read, by several threads already
            "filters": [blosc2.Filter.SHUFFLE if array.dtype.itemsize > 1 else blosc2.Filter.NOFILTER],
            "filters_meta": [0],
        },
    )
    return bytes(compressed.to_cframe())
