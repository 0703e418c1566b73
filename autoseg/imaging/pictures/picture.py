"""A picture whose header was read, and whose pixels are read on demand."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging import file_kind
from autoseg.imaging.geometry import Geometry, Shape, Vector
from autoseg.runtime.units import describe_memory

UNKNOWN_SPACING: Vector = (1.0, 1.0, 1.0)
"""Spacing of a picture that states none. Source: nnU-Net v2.8.1, which ignores the density in the file."""

FREE_BYTES = 2**28
"""Size up to which pixels are read however well they are compressed. Decision: 256 MiB, which any machine has."""

LARGEST_RATIO = 100
"""Bytes of pixels per byte of the file that are allowed beyond `FREE_BYTES`. Decision: photographs and microscopy have
at most 20 and drawn masks rarely more than 100; a file that is made to fill the memory has 1000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture, upright: turned as its tag of orientation says.

    Attributes:
        shape: Number of pixels along (z, y, x); z is above 1 for the stacks of TIFF alone.
        channels: Number of channels of the picture as an image, without transparency.
        bits: Bits of a sample.
        has_colours: Whether the channels are red, green and blue.
        is_over_time: Whether the channels are points in time, as those of a film.
        spacing_mm: Spacing along (z, y, x); None if the file does not state it.
        turned_by: The orientation tag by which the picture was turned, 2 to 8; 1 if it was not.
        is_plain: Whether any program reads the same numbers: no palette, no tag of orientation, no transparency.
        decode: Reads the pixels, shape (channels, z, y, x), in their own number type. With True, as a mask: the indices
            of a palette instead of its colours, which are one channel.
    """

    shape: Shape
    channels: int
    bits: int
    has_colours: bool = False
    is_over_time: bool = False
    spacing_mm: Vector | None = None
    turned_by: int = 1
    is_plain: bool = True
    decode: Callable[[bool], NDArray[Any]]

    @property
    def geometry(self) -> Geometry:
        """The grid of the pixels: a plane if there is one slice, without a place if the spacing is not known."""
        z, y, x = self.spacing_mm or UNKNOWN_SPACING
        if self.shape[0] > 1:
            return Geometry(shape=self.shape, spacing_mm=(z, y, x), is_placed=self.spacing_mm is not None)
        spacing_mm = (max(y, x), y, x)
        return Geometry(shape=self.shape, spacing_mm=spacing_mm, dimensions=2, is_placed=self.spacing_mm is not None)


def check_proportion(path: Path, pixel_bytes: int, file_bytes: int) -> None:
    """Refuses pixels that do not fit into the memory, or are out of proportion to their file, before they are read.

    Args:
        path: Path of the picture, for the message.
        pixel_bytes: Size of all pixels in memory.
        file_bytes: Size of the file.

    Raises:
        ImageError: The pixels are too many.

    Example:
        >>> check_proportion(Path("photo.png"), pixel_bytes=3 * 4000 * 3000, file_bytes=2_000_000)
    """
    file_kind.check_budget(path, pixel_bytes, file_bytes, largest_ratio=math.inf)
    if pixel_bytes > max(FREE_BYTES, LARGEST_RATIO * file_bytes):
        times = pixel_bytes // max(1, file_bytes)
        what = f"{path}: its pixels take {describe_memory(pixel_bytes)}, {times} times as much as the file"
        raise ImageError(what, "if you trust it, save it with less compression, or crop it")


def planes_of(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns pixels (y, x) or (y, x, c) as (c, 1, y, x).

    Example:
        >>> planes_of(np.zeros((5, 7, 3))).shape
        (3, 1, 5, 7)
    """
    array = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    return np.moveaxis(array, -1, 0)[:, np.newaxis]


def apply_palette(indices: NDArray[Any], palette: NDArray[np.integer]) -> NDArray[Any]:
    """Returns the colours (y, x, 3) of indices (y, x), or grey (y, x) if the palette is grey.

    Indices beyond the end of the palette are black, as in the libraries.

    Args:
        indices: Indices of the palette.
        palette: Shape (n, 3).

    Example:
        >>> apply_palette(np.array([[0, 2]]), np.array([[0, 0, 0], [1, 1, 1], [9, 9, 9]])).tolist()
        [[0, 9]]
    """
    whole = np.zeros((max(len(palette), int(indices.max(initial=0)) + 1), 3), palette.dtype)
    whole[: len(palette)] = palette
    return np.take(whole[:, 0] if is_grey(palette) else whole, indices, axis=0)


def is_grey(palette: NDArray[np.integer]) -> bool:
    """Returns whether all colours of a palette (n, 3) are grey."""
    return bool((palette == palette[:, :1]).all())
