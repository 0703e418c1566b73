"""What TIFF files do not tell the library that reads them: the spacing of a volume, and whether bits would be lost.

A TIFF knows a resolution in the plane at most, which most programs fill in without thought, and nothing between slices.
nnU-Net v2.8.1 keeps the spacing of a volume beside it, and so does this program:

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
"""Of a volume without a spacing file. Source: nnU-Net v2.8.1, whatever resolution the file states."""

BITS_PER_SAMPLE, TILE_WIDTH = 258, 322  # codes of the format
BIG = 43  # the version that has longer numbers
ONE_BIT = {"<": b"\1\0", ">": b"\0\1"}  # what a page has that does not say


def is_tiff(path: Path) -> bool:
    """Whether the ending of a file says so."""
    return path.suffix.lower() in TIFF_ENDINGS


def find_spacing_file(path: Path) -> Path | None:
    """The spacing file beside a TIFF: of its own name, or of its name without the channel; None for other files."""
    if not is_tiff(path):
        return None
    own = path.with_suffix(".json")
    of_case = path.with_name(CHANNEL_NUMBER.sub("", path.stem) + ".json")
    return next((one for one in (own, of_case) if one.is_file()), None)


def read_spacing(path: Path) -> Vector:
    """The spacing (z, y, x) in mm of a volume in a TIFF file, as the file beside it says; else `UNKNOWN_SPACING`.

    Raises:
        ImageError: The file beside it does not hold three positive numbers.
    """
    beside = find_spacing_file(path)
    if beside is None:
        return UNKNOWN_SPACING
    try:
        content = json.loads(read_text(beside))
        z, y, x = (float(step) for step in content["spacing"])
    except (ArtifactError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _no_spacing(beside) from error
    if not all(0 < step < math.inf for step in (z, y, x)):
        raise _no_spacing(beside)
    return z, y, x


def write_spacing(path: Path, spacing_mm: Vector) -> None:
    """Writes the spacing file of a TIFF, atomically."""
    with atomic_file(path.with_suffix(".json")) as writing:
        writing.write_text(json.dumps({"spacing": list(spacing_mm)}) + "\n", encoding="utf-8")


def check_bits(path: Path) -> None:
    """Refuses a TIFF of whose pixels SimpleITK 2.5 makes others, or nothing; files with another ending pass.

    Of 16 bit in tiles it leaves 8; grey in tiles becomes colours; one bit becomes 255; 64 bit is beyond it.

    Raises:
        ImageError: With the reason.
    """
    if not is_tiff(path):
        return
    with path.open("rb") as file:
        page = _find_page(file)
    if page is not None and (page.in_tiles or page.bits in (1, 64)):  # without a page, reading it will fail
        layout = " in tiles" if page.in_tiles else ""
        what = f"{path}: pixels of {page.bits} bit{layout} are not supported"
        raise ImageError(what, "save it with 8, 16 or 32 bit, in strips")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """How the pixels of a page are stored."""

    bits: int
    in_tiles: bool


def _find_page(file: BufferedReader) -> _Page | None:
    """The first page of a TIFF; None if there is none to be found, so that reading the file will fail.

    A page's directory is a count, and an entry of 12 or 20 bytes per fact: code, type, count, and the values, or where
    they are if they do not fit.
    """
    try:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}[head[:2]]
        (kind,) = struct.unpack_from(f"{order}2xH", head)
        codes = ("Q", "HHQ8s", "Q") if kind == BIG else ("H", "HHI4s", "I")
        number, entry, pointer = (struct.Struct(order + code) for code in codes)
        (place,) = pointer.unpack_from(head, 8 if kind == BIG else 4)
        file.seek(place)
        (count,) = number.unpack(file.read(number.size))
        entries = (entry.unpack(file.read(entry.size)) for _ in range(count))
        facts = {code: (values, stored) for code, _, values, stored in entries}
        values, stored = facts.get(BITS_PER_SAMPLE, (1, ONE_BIT[order]))
        if 2 * values > len(stored):
            file.seek(*pointer.unpack(stored))
            stored = file.read(2)
        (bits,) = struct.unpack_from(f"{order}H", stored)
    except (KeyError, struct.error, OverflowError, OSError):
        return None
    return _Page(bits=bits, in_tiles=TILE_WIDTH in facts)


def _no_spacing(path: Path) -> ImageError:
    return ImageError(f"{path} holds no spacing of a volume", 'write {"spacing": [z, y, x]} into it, in millimetres')
