"""The header of an NRRD file. Source of the format: teem's "Definition of NRRD File Format", versions 1 to 5.

A header is lines of text, "field: value", up to an empty line; lines "key:=value" hold anything, and lines that begin
with "#" are comments. Voxels follow, or lie in a plain file beside it.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume_files.nrrd_header import LONGEST_HEADER, MAGIC, NrrdHeader, read_nrrd_header
from autoseg.imaging.volume_files.stored_image import (
    LARGEST_EDGE,
    StoredImage,
    beside,
    check_unit,
    grid_by_header,
    known_time_step,
    nonsense,
)
from autoseg.imaging.volume_files.stored_voxels import Packing, StoredVoxels

ENDINGS = (".nrrd", ".nhdr")
NUMBER_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
PACKINGS: dict[str, Packing] = {
    "raw": "raw",
    "txt": "text",
    "text": "text",
    "ascii": "text",
    "hex": "hex",
    "gz": "zlib",
    "gzip": "zlib",
    "bz2": "bzip2",
    "bzip2": "bzip2",
}
BYTE_ORDERS = {"little": "<", "big": ">"}
TO_LPS = {
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1),
}
"""Signs from a space to left, posterior, superior; other spaces have no patient, and stay as they are."""

SHORT_SPACES = {"RAS": "right-anterior-superior", "LAS": "left-anterior-superior", "LPS": "left-posterior-superior"}
SPACE_KINDS = ("domain", "space", "???", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """Axes of a file, by their number from the fastest: those of space, of a voxel's components, and of volumes."""

    space: tuple[int, ...]
    vector: int | None
    volume: int | None


def is_nrrd(path: Path) -> bool:
    """Returns whether a file is named as NRRD files are, or begins as they do, for which ITK would read it as one."""
    if path.suffix.lower() in ENDINGS:
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_nrrd(path: Path) -> StoredImage:
    r"""Reads the header of an NRRD file.

    Raises:
        ImageError: It is no NRRD file, or its header holds what cannot be or is not supported.
        OSError: The file cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> lines = ["NRRD0004", "type: uchar", "dimension: 2", "sizes: 3 2", "spacings: 0.5 2", "encoding: raw"]
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.nrrd"
        ...     _ = path.write_bytes("\n".join([*lines, "\n"]).encode() + bytes(6))
        ...     read_nrrd(path).geometry.spacing_mm
        (2.0, 2.0, 0.5)
    """
    header = read_nrrd_header(path)
    if header is None:
        raise unreadable(path)
    fields = header.fields
    sizes = _sizes(path, fields)
    axes = _axes(path, header, sizes)
    voxels = _voxels(path, fields, sizes, header.length)
    return StoredImage(
        path=path,
        geometry=_grid(path, fields, sizes, axes),
        voxels=voxels,
        vector_axis=axes.vector,
        volume_axis=axes.volume,
        time_step_s=1.0 if axes.volume is None else _time_step(path, fields, axes.volume),
    )


def _sizes(path: Path, fields: dict[str, str]) -> tuple[int, ...]:
    """Returns the number of voxels along each axis, the fastest first."""
    dimensions = _whole(path, fields, "dimension")
    sizes = tuple(_numbers(path, fields, "sizes", int))
    if len(sizes) != dimensions or not all(0 < size <= LARGEST_EDGE for size in sizes):
        raise nonsense(path, "sizes", fields["sizes"])
    if not 2 <= dimensions <= 4:
        raise ImageError(f"{path}: an image has 2 or 3 dimensions, not {dimensions}", "extract one volume from it")
    return sizes


def _axes(path: Path, header: NrrdHeader, sizes: tuple[int, ...]) -> _Axes:
    """Returns what each axis is for: by its kind, or because it has no direction in space."""
    fields, count = header.fields, len(sizes)
    kinds = fields.get("kinds", "??? " * count).lower().split()
    directions = _directions(path, fields)
    if len(kinds) != count or len(directions) not in (0, count):
        raise nonsense(path, "kinds or directions", fields.get("kinds", fields.get("space directions")))
    if "complex" in kinds:
        raise ImageError(f"{path} holds complex numbers", "save their magnitude")
    others = [
        axis for axis in range(count) if kinds[axis] not in SPACE_KINDS or (directions and len(directions[axis]) == 0)
    ]
    if count == 4 and not others:  # four axes of space, as ITK writes a series
        return _Axes(space=(0, 1, 2), vector=None, volume=3)
    space = tuple(axis for axis in range(count) if axis not in others)
    if len(others) > 1 or not 2 <= len(space) <= 3:
        raise ImageError(f"{path}: an image has 2 or 3 dimensions of space, not {len(space)}", "extract one volume")
    other = others[0] if others else None
    is_series = other is not None and (kinds[other] == "time" or header.has_series)
    return _Axes(space=space, vector=None if is_series else other, volume=other if is_series else None)


def _directions(path: Path, fields: dict[str, str]) -> list[tuple[float, ...]]:
    """Returns the vector of each axis in space, an empty one if it has none; an empty list without vectors."""
    parts = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    return [() if part == "none" else _vector(path, "space directions", part) for part in parts]


def _grid(path: Path, fields: dict[str, str], sizes: tuple[int, ...], axes: _Axes) -> Geometry:
    """Returns the grid of the axes of space; of four axes of space, the first three count."""
    shape = tuple(sizes[axis] for axis in axes.space)
    units = [re.findall(r'"[^"]*"|\S+', fields.get(name, "")) for name in ("space units", "units")]
    check_unit(path, [*units[0], *(units[1][axis] for axis in axes.space if axis < len(units[1]))])
    directions = _directions(path, fields)
    if not directions:
        return _plain_grid(path, fields, shape, axes)
    count = len(shape)
    vectors = [directions[axis][:count] for axis in axes.space]
    origin = _vector(path, "space origin", fields.get("space origin", f"({','.join('0' * count)})"))[:count]
    if any(len(vector) != count for vector in (*vectors, origin)):
        raise nonsense(path, "space directions", fields["space directions"])
    columns = np.array(vectors).T
    space = fields.get("space", "")
    signs = np.array(TO_LPS.get(SHORT_SPACES.get(space, space.lower()), (1, 1, 1))[:count])
    with np.errstate(all="ignore"):  # what is no number then is refused
        spacing = np.linalg.norm(columns, axis=0)
        unit = signs[:, np.newaxis] * columns / spacing
    return grid_by_header(path, shape, tuple(map(float, spacing)), tuple(map(float, signs * origin)), unit)


def _time_step(path: Path, fields: dict[str, str], axis: int) -> float:
    """Returns the seconds between volumes: the spacing of their axis, or the length of its vector if it has one."""
    directions = _directions(path, fields)
    if directions:
        return known_time_step(math.hypot(*directions[axis]))
    spacings = _numbers(path, fields, "spacings", float)
    return known_time_step(spacings[axis]) if axis < len(spacings) else 1.0


def _plain_grid(path: Path, fields: dict[str, str], shape: tuple[int, ...], axes: _Axes) -> Geometry:
    """Returns the grid of a file that has spacings, and no directions."""
    if "spacings" not in fields:
        raise ImageError(f"{path} has no spacing in its header", "write it there, as 'spacings' in millimetres")
    spacings = _numbers(path, fields, "spacings", float)
    mins = _numbers(path, fields, "axis mins", float) if "axis mins" in fields else [0.0] * (max(axes.space) + 1)
    if len(spacings) <= max(axes.space) or len(mins) <= max(axes.space):
        raise nonsense(path, "spacings", fields["spacings"])
    spacing = tuple(spacings[axis] for axis in axes.space)
    origin = tuple(0.0 if math.isnan(mins[axis]) else mins[axis] for axis in axes.space)
    return grid_by_header(path, shape, spacing, origin, np.eye(len(shape)))


def _voxels(path: Path, fields: dict[str, str], sizes: tuple[int, ...], header_bytes: int) -> StoredVoxels:
    """Returns where the voxels are."""
    name = fields.get("type", "").lower()
    code = next((code for code, names in NUMBER_TYPES.items() if name in names), None)
    packing = PACKINGS.get(fields.get("encoding", "").lower())
    if code is None or packing is None:
        field = "type" if code is None else "encoding"
        shown = ascii(fields.get(field))[:40]
        raise ImageError(f"{path}: voxels of the {field} {shown} are not supported", "convert it")
    order = BYTE_ORDERS.get(fields.get("endian", "").lower(), "=")
    if order == "=" and np.dtype(code).itemsize > 1 and packing != "text":
        raise nonsense(path, "endian", fields.get("endian"))
    file, start = (beside(path, fields["data file"]), 0) if "data file" in fields else (path, header_bytes)
    byte_skip = _whole(path, fields, "byte skip") if "byte skip" in fields else 0
    line_skip = _whole(path, fields, "line skip") if "line skip" in fields else 0
    if byte_skip < -1 or line_skip < 0 or (packing != "raw" and (byte_skip or line_skip)):
        raise nonsense(path, "byte skip or line skip", f"{byte_skip}, {line_skip}")
    if line_skip:
        start = _skip_lines(file, start, line_skip)
    number_type = np.dtype(order + code)
    behind = None if byte_skip == -1 else start + byte_skip
    return StoredVoxels(path=file, start=behind, number_type=number_type, sizes=sizes, packing=packing)


def _skip_lines(path: Path, start: int, lines: int) -> int:
    """Returns where the text behind a number of lines begins, at most the end of the file."""
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(lines):
            if not file.readline(LONGEST_HEADER):
                break
        return file.tell()


def _whole(path: Path, fields: dict[str, str], name: str) -> int:
    [*numbers] = _numbers(path, fields, name, int)
    if len(numbers) != 1:
        raise nonsense(path, name, fields[name])
    return int(numbers[0])


def _numbers(path: Path, fields: dict[str, str], name: str, kind: "type[int] | type[float]") -> list[Any]:
    """Returns the numbers of a field."""
    try:
        numbers = [kind(word) for word in fields[name].split()]
    except KeyError as error:
        raise ImageError(f"{path} is damaged: its header has no {name}", "replace it") from error
    except ValueError as error:
        raise nonsense(path, name, fields[name]) from error
    if len(numbers) > 16:
        raise nonsense(path, name, fields[name])
    return numbers


def _vector(path: Path, name: str, text: str) -> tuple[float, ...]:
    """Returns the numbers of a vector, "(1,0,0)"."""
    try:
        return tuple(float(word) for word in text.strip("() ").split(","))
    except ValueError as error:
        raise nonsense(path, name, text) from error
