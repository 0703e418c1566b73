"""TIFF files: planes, stacks of slices, channels, colours; read by tifffile, which knows ImageJ's and OME's metadata.

What counts is what the file states: a stack of ImageJ or OME names its slices and channels, pages without names are
slices, and pages of different sizes are refused. In files of ImageJ and OME a palette, and white as zero, are settings
of the display, and the stored numbers count, as in these programs; elsewhere they are part of the picture.
"""

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffFileError

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import cut_off
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.geometry import Shape
from autoseg.imaging.pictures.orientation_tag import ORIENTATION, UPRIGHT, known_orientation, turn, turned_shape
from autoseg.imaging.pictures.picture import Picture, apply_palette, check_proportion, is_grey
from autoseg.imaging.pictures.spacing_file import find_spacing_file, read_spacing
from autoseg.imaging.pictures.tiff_codes import ASSOCIATED_ALPHA, PALETTE, PLAIN, UNASSOCIATED_ALPHA, WHITE_IS_ZERO
from autoseg.imaging.pictures.tiff_directories import check_directories
from autoseg.imaging.pictures.tiff_layout import Axes, choose_series, count_samples, find_axes
from autoseg.imaging.pictures.tiff_segments import check_compression, decode_page, is_decoded_here
from autoseg.imaging.pictures.tiff_spacing import find_spacing

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its warnings would break the progress display

DAMAGE = (
    TiffFileError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    OSError,
    SyntaxError,
    struct.error,
    zlib.error,
    ParseError,
)
"""Errors that tifffile and the decoders raise for damaged files."""


def open_tiff(path: Path) -> Picture:
    """Reads the header of a TIFF.

    Raises:
        ImageError: The file is damaged, cut off, out of proportion to its pixels, or of a kind that is not read.
        OSError: The file cannot be read.
    """
    check_directories(path)
    with _open(path) as tiff:
        series = choose_series(tiff, path)
        page = series.keyframe
        samples = count_samples(page, path)
        check_compression(page, path)
        axes = find_axes(series.axes, series.shape, path, pages_are_slices=find_spacing_file(path) is not None)
        _check_size(series, path)
        is_shown = not (tiff.is_imagej or tiff.is_ome)
        palette = _palette(page) if is_shown else None
        has_colours = samples == 3 and axes.channels is None and int(page.photometric) not in (WHITE_IS_ZERO, 1)
        if palette is not None and not is_grey(palette):
            has_colours, samples = True, 3
        if axes.channels is not None and samples > 1:
            kind = "points in time" if axes.is_over_time else "channels"
            raise ImageError(f"{path} has {kind} that have colours of their own", "save each as a file of its own")
        slices = 1 if axes.slices is None else int(series.shape[axes.slices])
        orientation = known_orientation(int(page.tags[ORIENTATION].value) if ORIENTATION in page.tags else UPRIGHT)
        shape: Shape = (slices, int(page.imagelength), int(page.imagewidth))
        return Picture(
            shape=turned_shape(shape, orientation),
            channels=samples if axes.channels is None else int(series.shape[axes.channels]),
            bits=8 if palette is not None else int(page.bitspersample),
            has_colours=has_colours,
            is_over_time=axes.is_over_time,
            spacing_mm=read_spacing(path) or find_spacing(tiff, slices, orientation),
            turned_by=orientation,
            is_plain=orientation == UPRIGHT and palette is None and samples == int(page.samplesperpixel),
            decode=lambda as_mask: turn(_decode(path, axes, palette=None if as_mask else palette), orientation),
        )


@contextmanager
def _open(path: Path) -> Iterator[TiffFile]:
    """Opens a TIFF, and not the other files that its metadata may name; what its readers raise is damage."""
    try:
        with TiffFile(path, _multifile=False) as tiff:
            yield tiff
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{path} does not fit into the memory", "crop it, or use a machine with more") from error
    except DAMAGE as error:
        raise unreadable(path) from error


def _check_size(series: Any, path: Path) -> None:
    """Refuses pixels that are more than the file holds, or out of proportion to it."""
    page, file_bytes = series.keyframe, path.stat().st_size
    numbers = int(np.prod([int(length) for length in series.shape], dtype=object))
    if numbers == 0 or any(one is None for one in series.pages):
        raise unreadable(path)
    if int(page.compression) == PLAIN and numbers * int(page.bitspersample) > 8 * file_bytes:
        raise cut_off(path)
    check_proportion(path, numbers * max(1, int(page.bitspersample) // 8), file_bytes)


def _decode(path: Path, axes: Axes, *, palette: NDArray[np.integer] | None) -> NDArray[Any]:
    """Returns the pixels (c, z, y, x), not yet turned: without transparency, and with the colours of the palette."""
    with _open(path) as tiff:
        series = choose_series(tiff, path)
        page = series.keyframe
        array: NDArray[Any] = _arrange(_read_series(series, path), axes)
        if axes.samples is not None and axes.channels is None:
            array = _without_transparency(array, page, count_samples(page, path))
        if int(page.photometric) == WHITE_IS_ZERO and not tiff.is_imagej and array.dtype.kind in "bu":
            array = (2 ** int(page.bitspersample) - 1) - array.astype(array.dtype if array.itemsize > 1 else np.uint8)
    if palette is not None:
        colours = apply_palette(array[0], palette)
        array = colours[np.newaxis] if colours.ndim == 3 else np.moveaxis(colours, -1, 0)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    half_precision: bool = array.dtype == np.float16
    return np.asarray(array, np.float32 if half_precision else array.dtype)


def _read_series(series: Any, path: Path) -> NDArray[Any]:
    """Returns all pages of a series, in its shape."""
    page = series.keyframe
    if not is_decoded_here(page):
        return np.asarray(series.asarray(maxworkers=1))
    pages = [decode_page(one, page, path) for one in series.pages]
    return np.stack(pages).reshape(series.shape)


def _arrange(array: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Returns a series as (c, z, y, x): channels or colours come first, and of every other axis the first.

    Beside channels, these are axes of length 1, and samples of transparency after the only other one.
    """
    channels = axes.samples if axes.channels is None else axes.channels
    kept = [axis for axis in (channels, axes.slices, axes.rows, axes.columns) if axis is not None]
    others = [axis for axis in range(array.ndim) if axis not in kept]
    ordered: NDArray[Any] = array.transpose(*others, *kept)[(0,) * len(others)]
    if channels is None:
        ordered = ordered[np.newaxis]
    return ordered if axes.slices is not None else ordered[:, np.newaxis]


def _without_transparency(array: NDArray[Any], page: Any, colours: int) -> NDArray[Any]:
    """Returns the colours (c, z, y, x) of an array with samples of transparency; divides by what was multiplied in."""
    extras = [int(extra) for extra in page.extrasamples]
    alphas = [extra in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA) for extra in extras]
    first = len(array) - len(extras)
    kept = [index for index in range(len(array)) if index < first or not alphas[index - first]][:colours]
    result: NDArray[Any] = array[kept]
    if ASSOCIATED_ALPHA not in extras or array.dtype.kind not in "uf":
        return result
    alpha = array[first + extras.index(ASSOCIATED_ALPHA)]
    opaque = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    if (alpha == opaque).all():
        return result
    shown = np.divide(result * float(opaque), alpha, out=np.zeros(result.shape), where=alpha > 0)
    return np.asarray(np.rint(np.minimum(shown, opaque)) if array.dtype.kind == "u" else shown, array.dtype)


def _palette(page: Any) -> NDArray[np.integer] | None:
    """Returns the palette (n, 3) of a page, the upper 8 of its 16 bits; None without one."""
    if int(page.photometric) != PALETTE or page.colormap is None:
        return None
    colours: NDArray[np.integer] = (page.colormap >> 8).T if page.colormap.max() > 255 else page.colormap.T
    return colours.astype(np.uint8)
