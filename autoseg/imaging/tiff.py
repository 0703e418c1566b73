"""TIFF files: the spacing of a volume, which the format does not hold, and pixels that the library would read wrongly.

A TIFF holds at most a resolution in the plane, which most programs fill in at random, and no distance between slices.
nnU-Net v2.8.1 keeps the spacing of a volume in a file beside it, and so does this program:

    imagesTr/CASE_0000.tif  imagesTr/CASE.json       {"spacing": [z, y, x]}, in mm
    labelsTr/CASE.tif       labelsTr/CASE.json
"""

import json
import math
import re
import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from autoseg.errors import ArtifactError, ImageError
from autoseg.imaging.geometry import Vector
from autoseg.runtime.artifact import atomic_file, read_text

TIFF_ENDINGS = (".tif", ".tiff")
CHANNEL_NUMBER = re.compile(r"_\d{4}$")

UNKNOWN_SPACING: Vector = (1.0, 1.0, 1.0)
"""Spacing of a volume without a spacing file. Source: nnU-Net v2.8.1, which ignores the resolution in the file."""

BITS_PER_SAMPLE, TILE_WIDTH = 258, 322  # codes of the format
BIG = 43  # the version of the format with offsets of 64 bit
ONE_BIT = {"<": b"\1\0", ">": b"\0\1"}  # the value of a page that does not state its bits


def is_tiff(path: Path) -> bool:
    """Returns whether a file has the ending of a TIFF."""
    return path.suffix.lower() in TIFF_ENDINGS


def find_spacing_file(path: Path) -> Path | None:
    """Returns the spacing file beside a TIFF, or None if there is none.

    It has the name of the TIFF, or its name without the channel number.
    """
    if not is_tiff(path):
        return None
    same_name = path.with_suffix(".json")
    case_name = path.with_name(CHANNEL_NUMBER.sub("", path.stem) + ".json")
    return next((file for file in (same_name, case_name) if file.is_file()), None)


def read_spacing(path: Path) -> Vector:
    """Reads the spacing (z, y, x) in mm of a volume from the spacing file of its TIFF.

    Without a spacing file it is `UNKNOWN_SPACING`.

    Raises:
        ImageError: The spacing file does not hold three positive numbers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_spacing(Path(folder) / "case_1.tif", (3.0, 0.5, 0.5))
        ...     read_spacing(Path(folder) / "case_1_0000.tif")
        (3.0, 0.5, 0.5)
    """
    spacing_file = find_spacing_file(path)
    if spacing_file is None:
        return UNKNOWN_SPACING
    try:
        content = json.loads(read_text(spacing_file))
        z, y, x = (float(step) for step in content["spacing"])
    except (ArtifactError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _no_spacing(spacing_file) from error
    if not all(0 < step < math.inf for step in (z, y, x)):
        raise _no_spacing(spacing_file)
    return z, y, x


def write_spacing(path: Path, spacing_mm: Vector) -> None:
    """Writes the spacing file of a TIFF, atomically."""
    with atomic_file(path.with_suffix(".json")) as writing:
        writing.write_text(json.dumps({"spacing": list(spacing_mm)}) + "\n", encoding="utf-8")


def check_bits(path: Path) -> None:
    """Refuses a TIFF whose pixels SimpleITK 2.5 reads wrongly, or not at all; files with another ending pass.

    It keeps 8 of 16 bit in tiles; grey in tiles becomes colours; one bit becomes 255; it cannot read 64 bit.

    Raises:
        ImageError: The pixels of the file are not supported.
    """
    if not is_tiff(path):
        return
    with path.open("rb") as file:
        page = _find_page(file)
    if page is not None and (page.in_tiles or page.bits in (1, 64)):  # without a page, reading it will fail
        layout = " in tiles" if page.in_tiles else ""
        message = f"{path}: pixels of {page.bits} bit{layout} are not supported"
        raise ImageError(message, "save it with 8, 16 or 32 bit, in strips")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """How the pixels of a page are stored."""

    bits: int
    in_tiles: bool


def _find_page(file: BufferedReader) -> _Page | None:
    """Returns the first page of a TIFF; None if there is none, so that reading the file will fail.

    A page's directory is a count, and entries of 12 or 20 bytes: code, type, count, and the values, or their offset in
    the file if they do not fit.
    """
    try:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}[head[:2]]
        (kind,) = struct.unpack_from(f"{order}2xH", head)
        codes = ("Q", "HHQ8s", "Q") if kind == BIG else ("H", "HHI4s", "I")
        number, entry, pointer = (struct.Struct(order + code) for code in codes)
        (offset,) = pointer.unpack_from(head, 8 if kind == BIG else 4)
        file.seek(offset)
        (count,) = number.unpack(file.read(number.size))
        entries = (entry.unpack(file.read(entry.size)) for _ in range(count))
        tags = {code: (values, stored) for code, _, values, stored in entries}
        values, stored = tags.get(BITS_PER_SAMPLE, (1, ONE_BIT[order]))
        if 2 * values > len(stored):
            file.seek(*pointer.unpack(stored))
            stored = file.read(2)
        (bits,) = struct.unpack_from(f"{order}H", stored)
    except (KeyError, struct.error, OverflowError, OSError):
        return None
    return _Page(bits=bits, in_tiles=TILE_WIDTH in tags)


def _no_spacing(path: Path) -> ImageError:
    return ImageError(f"{path} holds no spacing of a volume", 'write {"spacing": [z, y, x]} into it, in millimetres')
