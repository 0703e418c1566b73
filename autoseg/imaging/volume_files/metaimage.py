"""The header of a MetaImage file. Source of the format: the MetaIO documentation of the Insight Toolkit.

A header is lines of text, "Key = Value", of which "ElementDataFile" is the last; voxels follow it if it says LOCAL, or
lie in a plain file beside it.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume_files.stored_image import (
    LARGEST_EDGE,
    StoredImage,
    beside,
    check_unit,
    grid_by_header,
    known_time_step,
    nonsense,
)
from autoseg.imaging.volume_files.stored_voxels import StoredVoxels

ENDINGS = (".mha", ".mhd")
HEADER_BYTES = 2**20
"""Bytes of the longest header that is read. Decision: those of known programs stay below 100 KB."""

LAST_LINE = re.compile(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*)(\r?\n|$)", re.MULTILINE)
NUMBER_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
"""The format's number types; longs have 4 bytes in files, on every machine."""

ORIGINS = ("Offset", "Position", "Origin")
MATRICES = ("TransformMatrix", "Rotation", "Orientation")
ORDERS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
LOCAL = ("LOCAL", "Local", "local")


def is_metaimage(path: Path) -> bool:
    """Returns whether the ending of a file is one of MetaImage's, in upper or lower case."""
    return path.suffix.lower() in ENDINGS


def read_metaimage(path: Path) -> StoredImage:
    r"""Reads the header of a MetaImage file.

    Raises:
        ImageError: It is no MetaImage file, or its header holds what cannot be or is not supported.
        OSError: The file cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> lines = ["NDims = 2", "DimSize = 3 2", "ElementSpacing = 0.5 2", "ElementType = MET_UCHAR"]
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.mha"
        ...     _ = path.write_bytes("\n".join([*lines, "ElementDataFile = LOCAL\n"]).encode() + bytes(6))
        ...     read_metaimage(path).geometry.spacing_mm
        (2.0, 2.0, 0.5)
    """
    fields, data_file, header_bytes = _read_fields(path)
    dimensions = _whole(path, fields, "NDims")
    if not 2 <= dimensions <= 4:
        raise ImageError(f"{path}: an image has 2 or 3 dimensions, not {dimensions}", "extract one volume from it")
    sizes = _numbers(path, fields, "DimSize", int, dimensions)
    if not all(0 < size <= LARGEST_EDGE for size in sizes):
        raise nonsense(path, "DimSize", fields["DimSize"])
    components = _whole(path, fields, "ElementNumberOfChannels") if "ElementNumberOfChannels" in fields else 1
    if not 1 <= components <= LARGEST_EDGE:
        raise nonsense(path, "ElementNumberOfChannels", components)
    if components > 1 and dimensions == 4:
        raise ImageError(f"{path}: a series of volumes has one number per voxel", "extract one volume from it")
    all_sizes = (components, *sizes) if components > 1 else tuple(sizes)
    return StoredImage(
        path=path,
        geometry=_grid(path, fields, tuple(sizes)),
        voxels=_voxels(path, fields, all_sizes, data_file, header_bytes),
        vector_axis=0 if components > 1 else None,
        volume_axis=3 if dimensions == 4 else None,
        time_step_s=known_time_step(_spacing(path, fields, 4)[3]) if dimensions == 4 else 1.0,
    )


def _read_fields(path: Path) -> tuple[dict[str, str], str, int]:
    """Returns the fields of a header by their names, the name of the file of the voxels, and the header's length."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    end = LAST_LINE.search(head)
    if end is None:
        raise unreadable(path)
    fields: dict[str, str] = {}
    for line in head[: end.start()].decode("utf-8", "replace").splitlines():
        name, _, value = (part.strip() for part in re.sub(":", "=", line, count=1).partition("="))
        if name in fields and name != "Comment":
            raise nonsense(path, "field twice", name)
        fields[name] = value
    return fields, end[1].decode("utf-8", "surrogateescape").strip(), end.end()


def _grid(path: Path, fields: dict[str, str], sizes: tuple[int, ...]) -> Geometry:
    """Returns the grid of a plane or volume; a series has that of its volumes."""
    all_axes, count = len(sizes), min(3, len(sizes))
    check_unit(path, [fields.get("DistanceUnits", "")])
    spacing = _spacing(path, fields, all_axes)
    origin_name = next((name for name in ORIGINS if name in fields), None)
    origin = [0.0] * all_axes if origin_name is None else _numbers(path, fields, origin_name, float, all_axes)
    matrix_name = next((name for name in MATRICES if name in fields), None)
    axes = np.eye(all_axes)
    if matrix_name is not None:  # the vector of each axis is a row
        axes = np.reshape(_numbers(path, fields, matrix_name, float, all_axes**2), axes.shape).T
    return grid_by_header(path, sizes[:count], tuple(spacing[:count]), tuple(origin[:count]), axes[:count, :count])


def _spacing(path: Path, fields: dict[str, str], axes: int) -> list[float]:
    """Returns the distance of voxels along each axis of the file; the fourth one is that of points in time."""
    name = next((name for name in ("ElementSpacing", "ElementSize") if name in fields), None)
    if name is None:
        raise ImageError(f"{path} has no spacing in its header", "write it there, as 'ElementSpacing' in millimetres")
    return _numbers(path, fields, name, float, axes)


def _voxels(
    path: Path, fields: dict[str, str], sizes: tuple[int, ...], data_file: str, header_bytes: int
) -> StoredVoxels:
    """Returns where the voxels are."""
    code = NUMBER_TYPES.get(fields.get("ElementType", ""))
    if code is None:
        shown = ascii(fields.get("ElementType"))[:40]
        raise ImageError(f"{path}: voxels of the type {shown} are not supported", "convert it")
    is_local = data_file in LOCAL
    file, start = (path, header_bytes) if is_local else (beside(path, data_file), 0)
    head_bytes = _whole(path, fields, "HeaderSize") if "HeaderSize" in fields else 0
    if head_bytes < -1 or (is_local and head_bytes > 0):
        raise nonsense(path, "HeaderSize", head_bytes)
    is_packed = _is_true(fields, "CompressedData")
    is_binary = "BinaryData" not in fields or _is_true(fields, "BinaryData")
    order = ">" if any(_is_true(fields, name) for name in ORDERS) else "<"
    return StoredVoxels(
        path=file,
        start=None if head_bytes == -1 and not is_packed else start + max(0, head_bytes),
        number_type=np.dtype(order + code),
        sizes=sizes,
        packing="zlib" if is_packed else "raw" if is_binary else "text",
    )


def _is_true(fields: dict[str, str], name: str) -> bool:
    """Returns whether a field says yes; the format counts its first letter."""
    return fields.get(name, "")[:1] in ("T", "t", "1")


def _whole(path: Path, fields: dict[str, str], name: str) -> int:
    return int(_numbers(path, fields, name, int, 1)[0])


def _numbers(path: Path, fields: dict[str, str], name: str, kind: "type[int] | type[float]", count: int) -> list[Any]:
    """Returns the numbers of a field."""
    try:
        numbers = [kind(word) for word in fields[name].split()]
    except KeyError as error:
        raise ImageError(f"{path} is damaged: its header has no {name}", "replace it") from error
    except ValueError as error:
        raise nonsense(path, name, fields[name]) from error
    if len(numbers) != count:
        raise nonsense(path, name, fields[name])
    return numbers
