"""JPEG files: grey or colours of 8 bits."""

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import cut_off
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.pictures.jpeg_segments import EXIF_SEGMENT, FRAMES, read_segments
from autoseg.imaging.pictures.orientation_tag import UPRIGHT, find_orientation, turn, turned_shape
from autoseg.imaging.pictures.picture import Picture, check_proportion, planes_of

EXIF_MARK = b"Exif\0\0"
DECODED_FRAMES = {
    0xC0,
    0xC1,
    0xC2,
    0xC9,
    0xCA,
}  # baseline, extended and progressive; the others are lossless or layered


def open_jpeg(path: Path) -> Picture:
    """Reads the header of a JPEG.

    Raises:
        ImageError: The file is damaged, holds colours of printing or samples of other than 8 bits, or is out of
            proportion to its pixels.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    orientation, frame = UPRIGHT, None
    for kind, segment in read_segments(content):
        if kind == EXIF_SEGMENT and segment.startswith(EXIF_MARK):
            orientation = find_orientation(segment[len(EXIF_MARK) :])
        elif kind in FRAMES and frame is None:
            frame = kind, segment
    if frame is None or len(frame[1]) < 6:
        raise unreadable(path)
    height, width, samples = _read_frame(path, *frame)
    check_proportion(path, width * height * samples, len(content))

    def decode(as_mask: bool) -> NDArray[Any]:  # noqa: ARG001
        return turn(planes_of(_decode(path)), orientation)

    return Picture(
        shape=turned_shape((1, height, width), orientation),
        channels=samples,
        bits=8,
        has_colours=samples == 3,
        turned_by=orientation,
        is_plain=orientation == UPRIGHT,
        decode=decode,
    )


def _read_frame(path: Path, kind: int, segment: bytes) -> tuple[int, int, int]:
    """Returns the height, the width and the number of samples of a pixel; refuses pixels that are not decoded."""
    bits, height, width, samples = struct.unpack_from(">BHHB", segment)
    if kind not in DECODED_FRAMES or bits != 8:
        raise ImageError(f"{path} is a JPEG of a rare kind, lossless or of {bits} bits", "save it as PNG")
    if samples not in (1, 3):
        what = f"{path} holds the colours of printing (CMYK)" if samples == 4 else f"{path} has {samples} samples"
        raise ImageError(what, "save it as grey or RGB")
    if not (width and height):
        raise unreadable(path)
    return height, width, samples


def _decode(path: Path) -> NDArray[Any]:
    try:
        with JpegImagePlugin.JpegImageFile(BytesIO(path.read_bytes())) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise cut_off(path) if "truncated" in str(error) else unreadable(path) from error
