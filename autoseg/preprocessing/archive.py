"""An archive file of several parts, each of which can be read alone: a zip file that is not compressed.

Any zip program opens it. It keeps a checksum of each part, and its table of contents comes last, so a file that was cut
off is no archive. Parts may be arrays, compressed in chunks by blosc2.

>>> import tempfile
>>> array = np.arange(8, dtype=np.int16).reshape(2, 4)
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "case.zip"
...     write_archive(path, [("note.txt", b"liver"), ("image.b2nd", compress(array, (1, 4), (1, 4)))])
...     content, parts = read_part(path, "note.txt")
...     content, sorted(parts), is_whole(path)
...     open_array(path, parts["image.b2nd"], (2, 4))[1].tolist()
(b'liver', ['image.b2nd', 'note.txt'], True)
[4, 5, 6, 7]
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ArtifactError

# The errors of reading an archive that is cut off or overwritten, or a file that never was one.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)

# Size of the header before each part. Source: section 4.3.7 of PKWARE's specification of .zip
LOCAL_HEADER_BYTES = 30
LENGTHS = struct.Struct("<HH")  # Lengths of the name and of the extra field, which follow the header
LENGTHS_START = 26


# Whatever its parameters say, blosc2 begins and ends threads for each chunk that it copies into a file, unless the
# environment forbids it: a case of 36 slices then takes 1.5 instead of 25 ms. blosc2 reads the variable at each call.
os.environ.setdefault("BLOSC_NTHREADS", "1")

AGAIN = "run 'autoseg preprocess' again"


class PartLocation(NamedTuple):
    """Where a part is in the file, in bytes."""

    start: int
    size: int


def write_archive(path: Path, parts: Iterable[tuple[str, bytes]]) -> None:
    """Writes parts one by one; the same parts always make the same file.

    Args:
        path: Path of the archive; an older file is overwritten.
        parts: Name and content of each part. Each may be made when it is asked for, so that only one is in memory.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
    """
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in parts:
            archive.writestr(zipfile.ZipInfo(name), content)  # it gets a constant date


def read_part(path: Path, name: str) -> tuple[bytes, dict[str, PartLocation]]:
    """Reads one part, and the locations of all parts by name.

    Raises:
        DAMAGE: One of these, if the file is damaged or has no such part.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return archive.read(name), {part.filename: _find_content(file, part) for part in archive.infolist()}


def is_whole(path: Path) -> bool:
    """Returns whether the content of each part agrees with its checksum."""
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
# 0.6 of the time, but takes a tenth more space for synthetic CT and a quarter to a half more for real MR; LZ4HC, which
# the reference method chose, takes six times as long to write. See tests/benchmarks/store.py.
CODEC = "ZSTD"
LEVEL = 1

# Voxels along each axis, by number of dimensions. Decision: 64 or 128 KiB fit into the cache and waste little.
BLOCK_EDGE = {2: 128, 3: 32}


def compress_voxels(array: NDArray[Any], patch_size: tuple[int, ...]) -> bytes:
    """Compresses an image or label map in chunks of the patch size; channels and, for 2D, slices are apart.

    Args:
        array: Shape (c, z, y, x) or (z, y, x).
        patch_size: Patch size of the configuration, (z, y, x) or (y, x).
    """
    chunks = (*(1,) * (array.ndim - len(patch_size)), *patch_size)
    return compress(array, chunks, tuple(min(size, BLOCK_EDGE[len(patch_size)]) for size in chunks))


def compress(array: NDArray[Any], chunks: tuple[int, ...], blocks: tuple[int, ...]) -> bytes:
    """Returns an array as a compressed blosc2 frame.

    Args:
        array: The array, of any number of axes.
        chunks: Size of the chunks that are read one at a time, along each axis.
        blocks: Size of the blocks into which a chunk is divided, along each axis.
    """
    import blosc2  # training on cases in memory does without it

    chunks = tuple(max(1, min(sizes)) for sizes in zip(chunks, array.shape, strict=True))
    compressed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=chunks,
        blocks=tuple(map(min, blocks, chunks)),
        cparams={
            "codec": blosc2.Codec[CODEC],
            "clevel": LEVEL,
            "nthreads": 1,  # cases are written, and patches read, by several threads already
            "filters": [blosc2.Filter.SHUFFLE if array.dtype.itemsize > 1 else blosc2.Filter.NOFILTER],
            "filters_meta": [0],
        },
    )
    return bytes(compressed.to_cframe())


def open_array(path: Path, part: PartLocation, shape: tuple[int, ...]) -> Any:
    """Opens a compressed array inside a file; its voxels are read when it is indexed.

    Args:
        path: Path of the file.
        part: Where the array is.
        shape: Expected size of its last axes.

    Raises:
        ArtifactError: The array has another shape.
        DAMAGE: One of these, if there is no array.
    """
    import blosc2

    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", offset=part.start, dparams={"nthreads": 1})
        stored = array.shape
    except AttributeError as error:
        raise ValueError("this part of the file is no array") from error
    if stored[-len(shape) :] != shape:
        raise ArtifactError(f"{path} holds an array of shape {stored}, its record says {shape}", AGAIN)
    return array
