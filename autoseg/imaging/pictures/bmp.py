"""BMP files: colours, or a palette whose indices are the numbers of a mask."""

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image

from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.pictures.picture import (
    Picture,
    apply_palette,
    check_proportion,
    is_grey,
    planes_of,
)

HEAD_BYTES = 2**17  # of the file, in which Pillow finds header and palette
SMALLEST_HEAD_BYTES, OLD_HEAD_BYTES = 26, 12  # of the file, and of the header of OS/2, whose sizes have 16 bits
COLOUR_MODES = {"RGB", "RGBA"}
LARGEST_PIXEL_BYTES = 4


def open_bmp(path: Path) -> Picture:
    """Reads the header of a BMP.

    Raises:
        ImageError: The file is damaged or of an unknown kind, or out of proportion to its pixels.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    width, height = _read_size(path, head)
    check_proportion(path, width * height * LARGEST_PIXEL_BYTES, path.stat().st_size)
    with _open(path, head) as image:
        mode, palette = image.mode, _palette(image)
    has_colours = mode in COLOUR_MODES or (palette is not None and not is_grey(palette))

    def decode(as_mask: bool) -> NDArray[Any]:
        with _open(path, path.read_bytes()) as whole:
            try:
                array = np.asarray(whole)
            except (OSError, ValueError, IndexError) as error:
                raise unreadable(path) from error
        if mode in COLOUR_MODES:
            return planes_of(array[..., :3])
        array = array.astype(np.uint8)  # black and white become 0 and 1
        return planes_of(array if palette is None or as_mask else apply_palette(array, palette))

    return Picture(
        shape=(1, height, width),
        channels=3 if has_colours else 1,
        bits=8,
        has_colours=has_colours,
        is_plain=mode in ("L", "RGB"),
        decode=decode,
    )


def _read_size(path: Path, head: bytes) -> tuple[int, int]:
    """Returns width and height; rows are stored from the bottom upwards, or the other way if the height is negative."""
    if len(head) < SMALLEST_HEAD_BYTES or not head.startswith(b"BM"):
        raise unreadable(path)
    (head_bytes,) = struct.unpack_from("<I", head, 14)
    width, height = struct.unpack_from("<HH" if head_bytes == OLD_HEAD_BYTES else "<ii", head, 18)
    if width <= 0 or height == 0:
        raise unreadable(path)
    return width, abs(height)


def _open(path: Path, content: bytes) -> Image.Image:
    try:
        return BmpImagePlugin.BmpImageFile(BytesIO(content))
    except (OSError, SyntaxError, ValueError, struct.error, IndexError) as error:
        raise unreadable(path) from error


def _palette(image: Image.Image) -> NDArray[np.integer] | None:
    """Returns the palette (n, 3); None if there is none, or each index is its own grey."""
    if image.mode != "P" or image.palette is None:
        return None
    order = image.palette.rawmode or image.palette.mode  # such as BGRX, blue first
    colours = np.frombuffer(bytes(image.palette.palette), np.uint8)
    entries = colours[: len(colours) // len(order) * len(order)].reshape(-1, len(order))
    return entries[:, [order.index(colour) for colour in "RGB"]]
