"""Reads headers of DICOM files that may be damaged, cut off or hostile: without hanging, and without much memory."""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from autoseg.dicom.detection import check_installed
from autoseg.errors import AutosegError, ImageError

MOST_READS = 1_000_000
FEWEST_READS = 20_000
BYTES_PER_READ = 64
"""Parts of a header that are read at most: some, and one for so many bytes of the file. Decision: a slice takes 500 of
them, and a frame of an enhanced file 100; with its pixels, a frame has at least 9000 bytes."""

LARGEST_FILE_BYTES = 4 * 2**30
"""Bytes that are read of one file at most. Decision: the standard's lengths have 32 bits, so pixel data end there."""

LARGEST_DEFLATED_BYTES = 2**29
"""Decision: a deflated file is a single slice of some megabytes."""

MOST_NESTED_ITEMS_PER_FRAME = 200
"""Items of all sequences in the functional groups of a frame. Decision: scanners write about 20."""

DEFLATED = b"1.2.840.10008.1.2.1.99"
META_BYTES = 2048  # Decision: the transfer syntax is among the first few elements
COPY_BYTES = 2**20


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Names the file in every error that a library raises about its content, in one line.

    Raises:
        ImageError: The content of the file is damaged or is not supported by the library.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except AutosegError:
        raise
    except MemoryError as error:
        raise ImageError(f"{path} does not fit into the memory", "leave it out, or use a machine with more") from error
    except Exception as error:  # what libraries raise about damaged bytes is of any type
        raise damaged(path, _first_line(error)) from error


def damaged(path: Path, reason: str) -> ImageError:
    """Returns the error of a file whose content is damaged."""
    return ImageError(f"{path} is damaged or cut off ({reason})", "copy it from the archive again, or remove it")


def read_dataset(path: Path, *, with_pixels: bool = False) -> tuple[Any, int]:
    """Reads the header of a DICOM file, or of one without a preamble.

    Args:
        path: The file.
        with_pixels: Whether the pixel data are read too.

    Returns:
        The data set of pydicom, and the position in the file at which the element of the pixel data begins.

    Raises:
        ImageError: The file is damaged, or its header is endless.
        UsageError: pydicom is not installed.
    """
    check_installed(path)
    from pydicom import dcmread

    with damage_named(path), path.open("rb") as file:
        reader = _BoundedReader(file, path.stat().st_size, path)
        _check_deflated(file, path)
        dataset = dcmread(reader, stop_before_pixels=not with_pixels, force=True)
        return dataset, reader.tell()


def check_nested_items(dataset: Any, keyword: str, frames: int, path: Path) -> None:
    """Checks that a sequence, before it is parsed, does not hold far more items than there are frames.

    Raises:
        ImageError: It does.
    """
    element = dataset.get_item(keyword)
    content = getattr(element, "value", None)
    if isinstance(content, bytes) and content.count(b"\xfe\xff\x00\xe0") > MOST_NESTED_ITEMS_PER_FRAME * (frames + 1):
        raise damaged(path, f"{keyword} holds far more items than there are frames")


class _BoundedReader:
    """A file that reads no more than it holds, whatever length its elements state, and not forever."""

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self._file, self._size, self._path = file, size, path
        self._reads = self._bytes = 0
        self._most_reads = min(MOST_READS, FEWEST_READS + size // BYTES_PER_READ)
        self.name = str(path)

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > self._most_reads or self._bytes > LARGEST_FILE_BYTES:
            raise damaged(self._path, "its header does not end")
        rest = max(0, self._size - self._file.tell())
        length = rest if size is None or size < 0 else min(size, rest)
        self._bytes += length
        return self._file.read(length)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _check_deflated(file: BinaryIO, path: Path) -> None:
    """Checks that a deflated file unpacks to a sensible size; leaves the file at its beginning.

    Source: PS3.10 of the standard, section 7.1: the first element says how long the group is that ends before the data.
    """
    start = file.read(META_BYTES)
    if start[128:132] == b"DICM" and DEFLATED in start:
        file.seek(132 + 12 + int.from_bytes(start[140:144], "little"))
        unpacked, decompressor = 0, zlib.decompressobj(-zlib.MAX_WBITS)
        while (packed := file.read(COPY_BYTES)) and not decompressor.eof:
            while packed:
                unpacked += len(decompressor.decompress(packed, COPY_BYTES))
                packed = decompressor.unconsumed_tail
                if unpacked > LARGEST_DEFLATED_BYTES:
                    raise damaged(path, f"it unpacks to more than {LARGEST_DEFLATED_BYTES // 2**20} MB")
    file.seek(0)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
