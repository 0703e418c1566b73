"""The header of a GIPL file: 256 bytes, the most significant byte of each number first.

Source of the format: the description of the Guys Image Processing Lab format in the Insight Toolkit and in Convert3D.
It holds no direction of axes.
"""

import struct
from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.volume_files.stored_image import StoredImage, grid_by_header, nonsense
from autoseg.imaging.volume_files.stored_voxels import StoredVoxels

ENDING = ".gipl"
HEADER_BYTES = 256
MAGICS = (719555000, 4026526128)
NUMBER_TYPES = {1: "u1", 7: "i1", 8: "u1", 15: "i2", 16: "u2", 31: "u4", 32: "i4", 64: "f4", 65: "f8"}
"""The format's codes of number types; 1 holds 0 or 1 in a byte each."""


def is_gipl(path: Path) -> bool:
    """Returns whether the ending of a file is that of GIPL, in upper or lower case."""
    return path.suffix.lower() == ENDING


def read_gipl(path: Path) -> StoredImage:
    """Reads the header of a GIPL file.

    Raises:
        ImageError: It is no GIPL file, or its header holds what cannot be or is not supported.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or struct.unpack_from(">I", head, 252)[0] not in MAGICS:
        raise unreadable(path)
    *sizes, kind = struct.unpack_from(">5H", head)
    steps, origin = struct.unpack_from(">3f", head, 10), struct.unpack_from(">3d", head, 204)
    if not all(sizes[:3]):
        raise nonsense(path, "sizes", sizes)
    if kind not in NUMBER_TYPES:
        raise ImageError(f"{path}: voxels of the type {kind} are not supported", "convert it")
    is_series = sizes[3] > 1
    return StoredImage(
        path=path,
        geometry=grid_by_header(path, tuple(sizes[:3]), steps, origin, np.eye(3)),
        voxels=StoredVoxels(
            path=path,
            start=HEADER_BYTES,
            number_type=np.dtype(">" + NUMBER_TYPES[kind]),
            sizes=tuple(sizes) if is_series else tuple(sizes[:3]),
            packing="raw",
        ),
        volume_axis=3 if is_series else None,
    )
