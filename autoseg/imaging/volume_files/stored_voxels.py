"""Voxels as files of volumes store them: where they begin, their number type, how they are packed and scaled."""

import bz2
import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import DEFLATE_RATIO, check_budget, check_kind

Packing = Literal["raw", "zlib", "bzip2", "text", "hex"]
"""How voxels are stored; "zlib" stands for gzip as well, which differs by its head."""

RATIOS: dict[Packing, float] = {"raw": 1, "zlib": DEFLATE_RATIO, "bzip2": 10**6, "text": 4, "hex": 0.5}
"""Bytes of voxels that a stored byte stands for at most. Source for bzip2: 45 bytes hold 900,000 zeros several times
over. A number as text takes two bytes, and eight as a number."""

BLOCK_BYTES = 2**20
PADDING_BYTES = 512
"""Bytes behind the last voxel that pass as padding. Decision: a block of a disk."""

ZLIB_OR_GZIP = 47  # zlib's code for: either head


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVoxels:
    """Where the voxels of an image are, and how they are stored.

    Attributes:
        path: The file that holds them.
        start: Where they begin, in bytes; None if they are the last bytes of the file.
        number_type: Type of a number, with its byte order.
        sizes: Numbers along each axis of the file, the fastest first.
        packing: How they are packed.
        skipped_bytes: Unpacked bytes before the first voxel.
        padding_bytes: Bytes behind the last voxel that pass as padding.
        scale: Slope and intercept of the values; None if the numbers are the values.
    """

    path: Path
    start: int | None
    number_type: "np.dtype[Any]"
    sizes: tuple[int, ...]
    packing: Packing
    skipped_bytes: int = 0
    padding_bytes: int = PADDING_BYTES
    scale: tuple[float, float] | None = None

    @property
    def needed_bytes(self) -> int:
        """Number of bytes of all numbers, unpacked."""
        return math.prod(self.sizes) * self.number_type.itemsize


def read_voxels(voxels: StoredVoxels) -> NDArray[np.generic]:
    """Reads the values of an image in the byte order of this machine.

    Returns:
        Shape (n,), in the number type of the file. Scaled values are floating-point numbers: of 64 bit if the stored
        numbers have 64 bit, or are whole and have 32 bit, else of 32 bit.

    Raises:
        ImageError: The file ends too early or too late, cannot be unpacked, or does not fit into the memory.
    """
    path, needed = voxels.path, voxels.needed_bytes
    stored = check_kind(path).st_size - (voxels.start or 0)
    check_budget(path, needed, max(0, stored), largest_ratio=RATIOS[voxels.packing])
    start = stored - needed if voxels.start is None else voxels.start
    try:
        with path.open("rb") as file:
            file.seek(start)
            array = READERS[voxels.packing](file, voxels)
    except (zlib.error, OSError, EOFError, ValueError, OverflowError) as error:
        raise ImageError(f"{path} is damaged: its voxels cannot be unpacked", "copy it again") from error
    array = array.astype(voxels.number_type.newbyteorder("="), copy=False)
    return array if voxels.scale is None else _scale(array, *voxels.scale)


def _scale(array: NDArray[Any], slope: float, intercept: float) -> NDArray[np.floating]:
    """Returns values by a slope and an intercept, calculated in 64 bit, block by block to save memory."""
    result = np.empty(array.shape, np.result_type(array.dtype, np.float32))
    for start in range(0, len(array), BLOCK_BYTES):
        block = slice(start, start + BLOCK_BYTES)
        result[block] = np.float64(slope) * array[block] + intercept
    return result


def _check_rest(voxels: StoredVoxels, rest_bytes: int) -> None:
    """Refuses a file that holds more than its header says, at least another row of voxels.

    Raises:
        ImageError: The sizes in the header, or the number type, are too small.
    """
    row_bytes = voxels.sizes[0] * voxels.number_type.itemsize
    if rest_bytes > max(voxels.padding_bytes, row_bytes):
        what = f"{voxels.path} holds more voxels than the sizes in its header say"
        raise ImageError(what, "correct the sizes, or replace the file")


def _too_short(voxels: StoredVoxels) -> ImageError:
    return ImageError(f"{voxels.path} is cut off: it ends before its last voxel", "copy it again")


def _read_raw(file: BufferedReader, voxels: StoredVoxels) -> NDArray[np.generic]:
    """Reads numbers that are not packed."""
    array: NDArray[np.generic] = np.fromfile(file, voxels.number_type, math.prod(voxels.sizes))
    if array.nbytes < voxels.needed_bytes:
        raise _too_short(voxels)
    if voxels.start is not None:
        _check_rest(voxels, os.fstat(file.fileno()).st_size - file.tell())
    return array


def _read_zlib(file: BufferedReader, voxels: StoredVoxels) -> NDArray[np.generic]:
    """Reads numbers that zlib or gzip packed."""
    return _collect(_unpack_zlib(file, voxels), voxels)


def _read_bzip2(file: BufferedReader, voxels: StoredVoxels) -> NDArray[np.generic]:
    """Reads numbers that bzip2 packed."""
    with bz2.open(file) as packed:
        return _collect(iter(lambda: packed.read(BLOCK_BYTES), b""), voxels)


def _unpack_zlib(file: BufferedReader, voxels: StoredVoxels) -> Iterator[bytes]:
    """Yields blocks of unpacked bytes; several gzip members follow one another, as gzip allows.

    Raises:
        ImageError: The last member has no end, where its checksum is.
        zlib.error: The bytes are damaged.
    """
    unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
    rest, is_whole = b"", False
    while block := rest or file.read(BLOCK_BYTES):
        yield unpacker.decompress(block, BLOCK_BYTES)
        rest, is_whole = unpacker.unconsumed_tail, unpacker.eof
        if is_whole:
            rest = unpacker.unused_data.lstrip(b"\0")
            if rest and not rest.startswith(b"\x1f\x8b"):
                return
            unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
    if not is_whole:
        raise _too_short(voxels)


def _collect(blocks: Iterator[bytes], voxels: StoredVoxels) -> NDArray[np.generic]:
    """Joins unpacked blocks to the numbers of an image."""
    needed = voxels.needed_bytes
    array = np.empty(math.prod(voxels.sizes), voxels.number_type)
    memory = array.view(np.uint8).data
    filled, skipped = 0, 0
    for block in blocks:
        behind = block[max(0, voxels.skipped_bytes - skipped) :] if skipped < voxels.skipped_bytes else block
        skipped += len(block) - len(behind)
        fitting = max(0, min(len(behind), needed - filled))
        memory[filled : filled + fitting] = behind[:fitting]
        filled += len(behind)
        _check_rest(voxels, filled - needed)
    if filled < needed:
        raise _too_short(voxels)
    return array


def _read_text(file: BufferedReader, voxels: StoredVoxels) -> NDArray[np.generic]:
    """Reads numbers that are written as text."""
    words = file.read().replace(b",", b" ").split()
    count = math.prod(voxels.sizes)
    if len(words) < count:
        raise _too_short(voxels)
    _check_rest(voxels, (len(words) - count) * voxels.number_type.itemsize)
    if voxels.number_type.kind == "f":
        return np.array([float(word) for word in words[:count]], voxels.number_type)
    return np.array([int(word) for word in words[:count]], voxels.number_type)


def _read_hex(file: BufferedReader, voxels: StoredVoxels) -> NDArray[np.generic]:
    """Reads bytes that are written as two hexadecimal digits each."""
    return _collect(iter([bytes.fromhex(file.read().decode("ascii"))]), voxels)


READERS: dict[Packing, Callable[[BufferedReader, StoredVoxels], NDArray[np.generic]]] = {
    "raw": _read_raw,
    "zlib": _read_zlib,
    "bzip2": _read_bzip2,
    "text": _read_text,
    "hex": _read_hex,
}
