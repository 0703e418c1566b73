"""The orientation tag of EXIF and TIFF, 274, which says how a picture is turned to be shown.

A phone stores what its sensor saw, and writes into the tag how the picture must be turned. Viewers and programs for
annotation obey it, so masks are drawn on the turned picture. Source: EXIF 2.32, tag 0x0112; TIFF 6.0, page 36.

    1 as it is    2 mirrored left to right    3 turned by 180 degrees    4 mirrored top to bottom
    5 to 8: rows and columns are exchanged, and then it is as for 1 to 4: 5 as it is, 6 mirrored left to right (a turn
    by 90 degrees clockwise), 7 by 180 degrees, 8 mirrored top to bottom (90 degrees counter-clockwise)
"""

import struct
from typing import Any

from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape

ORIENTATION = 274
UPRIGHT = 1

REVERSED = {1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False)}
"""Whether rows and columns are read backwards, after the exchange of both if there is one."""


def find_orientation(exif: bytes) -> int:
    """Returns the orientation in an EXIF block, 1 to 8; 1 if there is none or the block is damaged.

    The block is a TIFF without pixels: a head of 8 bytes, and a directory of entries of 12 bytes each.

    Example:
        >>> entry = struct.pack("<HHIHH", 274, 3, 1, 6, 0)
        >>> find_orientation(b"II*" + bytes([0]) + struct.pack("<IH", 8, 1) + entry)
        6
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return UPRIGHT
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, offset)
        for entry in range(count):
            code, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, offset + 2 + 12 * entry)
            if (code, kind) == (ORIENTATION, 3):
                return known_orientation(int(value))
    except struct.error:
        pass
    return UPRIGHT


def known_orientation(value: int) -> int:
    """Returns the orientation that a tag means: values other than 1 to 8 mean nothing, and some programs write 0.

    Example:
        >>> known_orientation(0), known_orientation(8)
        (1, 8)
    """
    return value if 1 <= value <= 8 else UPRIGHT


def exchanges_axes(orientation: int) -> bool:
    """Returns whether rows become columns.

    Example:
        >>> exchanges_axes(6), exchanges_axes(3)
        (True, False)
    """
    return orientation > 4


def turn(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns the last two axes (y, x) of an array as an orientation says; returns a view.

    Example:
        >>> import numpy as np
        >>> turn(np.array([[1, 2, 3], [4, 5, 6]]), 6).tolist()
        [[4, 1], [5, 2], [6, 3]]
    """
    rows_reversed, columns_reversed = REVERSED[(orientation - 1) % 4 + 1]
    upright = array.swapaxes(-1, -2) if exchanges_axes(orientation) else array
    return upright[..., :: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]


def turned_shape(shape: Shape, orientation: int) -> Shape:
    """Returns the shape (z, y, x) of an array of a shape that is turned."""
    z, y, x = shape
    return (z, x, y) if exchanges_axes(orientation) else shape
