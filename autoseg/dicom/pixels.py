"""Reads the voxels of a DICOM series."""

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.decoding import decode_frames
from autoseg.dicom.pixel_layout import UNCOMPRESSED, PixelLayout
from autoseg.dicom.safe_reading import damage_named, damaged, read_dataset
from autoseg.dicom.series import Frame, Series
from autoseg.dicom.stacking import describe_tilt
from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import is_sheared
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.straight_grid import plan_straight_grid, straighten
from autoseg.runtime.machine import free_memory_bytes

SHORT_REPRESENTATIONS = ("OB", "OW", "OF", "OD")
"""Value representations of pixel data, whose lengths take 4 bytes after 2 empty ones. Source: PS3.5, section 7.1.2."""

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

FLOATS = {0x0008: "f4", 0x0009: "f8"}
"""Elements of group 7FE0 that hold Float and Double Float Pixel Data, and their numbers. Source: PS3.3, C.7.6.24."""


def read_series(series: Series) -> Volume:
    """Reads a series as a volume of one channel: slope x stored value + intercept, slice by slice.

    Values are Hounsfield units of a CT, and what the header's unit says of a PET (SUV is not computed). MONOCHROME1,
    where low values are white, is inverted if the values have no unit; see `pixel_layout.WITHOUT_UNIT`.

    Returns:
        Volume of shape (1, z, y, x), float32, slices along the normal; see `Series`.

    Raises:
        ImageError: The series has a defect or a tilt, does not fit into the memory, or a file is damaged or missing.
    """
    geometry = series.grid()
    tilted = is_sheared(geometry)
    if tilted and not series.straighten:
        what = f"{series.frames[0].path.parent}, {series.name}: {describe_tilt(geometry)}"
        raise ImageError(what, "straighten it with --resample-tilt (in Python resample_tilt=True)")
    volume = Volume(array=read_slices(series)[np.newaxis], geometry=geometry)
    return straighten(volume, "image") if tilted else volume


def grid_of_voxels(series: Series) -> Geometry:
    """Returns the grid on which a series is read, without reading a voxel: the straight one of a tilted gantry.

    Raises:
        ImageError: The series has a defect.
    """
    grid = series.grid()
    return plan_straight_grid(grid).geometry if is_sheared(grid) else grid


def read_slices(series: Series) -> NDArray[np.float32]:
    """Reads the slices of a series in their order, as they are, even if its gantry was tilted; see `read_series`.

    Returns:
        Shape (z, y, x).
    """
    frames = series.frames
    shape = (len(frames), *frames[0].size)
    _check_memory(shape, frames)
    if all(frame.slope == 0 for frame in frames):
        what = f"{frames[0].path.parent}, {series.name}: its rescale slope is 0, so that all voxels would be equal"
        raise ImageError(what, "export it again, or choose another series")
    voxels = np.empty(shape, dtype=np.float32)
    index = 0
    for path, same in groupby(frames, key=lambda frame: frame.path):
        group = list(same)
        for frame, stored in zip(group, _read_stored(path, group), strict=True):
            _convert(stored, frame, voxels[index])
            index += 1
    if any(map(_may_overflow, frames)) and not np.isfinite(voxels).all():
        bad = int((~np.isfinite(voxels)).sum())
        what = f"{frames[0].path.parent}, {series.name}: voxels that are NaN or infinite: {bad}"
        raise ImageError(what, "check its rescale slopes, or choose another series")
    return voxels


def _may_overflow(frame: Frame) -> bool:
    """Returns whether real values may be NaN or beyond float32, which whole numbers and usual slopes cannot lead to."""
    layout = frame.layout
    if layout is None or layout.is_float or layout.has_table:
        return True
    return not abs(frame.slope) * 2.0**layout.bits_allocated + abs(frame.intercept) < LARGEST_FLOAT32


def _check_memory(shape: Sequence[int], frames: Sequence[Frame]) -> None:
    """Checks the sizes that headers state before memory is taken, against the free memory."""
    needed, free = 4 * int(np.prod([int(size) for size in shape], dtype=float)), free_memory_bytes()
    if free is not None and needed > free:
        size = " x ".join(map(str, shape[::-1]))
        what = f"{frames[0].path}: its series has {size} voxels, which do not fit into the memory"
        raise ImageError(what, "leave it out, or use a machine with more")


def _read_stored(path: Path, frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    """Yields the stored values of frames of one file, each of shape (y, x)."""
    layout = frames[0].layout
    if layout is None:
        raise damaged(path, "it holds no voxels")
    if layout.is_plain and not layout.has_table:
        with damage_named(path), path.open("rb") as file:
            yield from (_read_plain(file, path, frame, layout) for frame in frames)
        return
    with damage_named(path):
        arrays = _decode(path, frames, layout)
    yield from arrays


def _read_plain(file: io.BufferedReader, path: Path, frame: Frame, layout: PixelLayout) -> NDArray[Any]:
    order = UNCOMPRESSED[layout.transfer_syntax]
    file.seek(layout.offset)
    start, length, kind = _find_pixels(file, path, layout, order)
    rows, columns = frame.size
    dtype = np.dtype(order + (kind or f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"))
    frame_bytes = rows * columns * dtype.itemsize
    if start + length > path.stat().st_size:
        raise damaged(path, f"its voxels are said to take {length} bytes, more than it holds")
    if length < frame_bytes * layout.frames:
        raise damaged(path, f"its voxels take {frame_bytes * layout.frames} bytes, and it holds {length}")
    file.seek(start + (frame.number or 0) * frame_bytes)
    content = file.read(frame_bytes)
    if len(content) < frame_bytes:
        raise damaged(path, f"its voxels end after {len(content)} of {frame_bytes} bytes of slice {frame.number or 0}")
    stored = np.frombuffer(content, dtype=dtype).reshape(rows, columns)
    return stored if kind else _without_unused_bits(stored, layout)


def _find_pixels(file: io.BufferedReader, path: Path, layout: PixelLayout, order: str) -> tuple[int, int, str]:
    """Returns where pixels begin in the file, how many bytes they take, and their type if they are no whole numbers."""
    endian: Literal["little", "big"] = "little" if order == "<" else "big"
    head = file.read(12)
    if len(head) < 8 or int.from_bytes(head[:2], endian) != 0x7FE0:
        raise damaged(path, "it holds no voxels")
    element = int.from_bytes(head[2:4], endian)
    explicit = head[4:6].decode("ascii", "replace") in SHORT_REPRESENTATIONS
    length = int.from_bytes(head[8:12] if explicit else head[4:8], endian)
    start = layout.offset + (12 if explicit else 8)
    if length == 0xFFFFFFFF:
        raise damaged(path, "its voxels are compressed, which its transfer syntax denies")
    return start, length, FLOATS.get(element, "")


def _without_unused_bits(stored: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Leaves out the bits above those that are stored, where old files keep overlays. Source: PS3.5, section 8.1.1.

    Decision: bits below them are left out if none of the slice is set. If some are, the header states a wrong high bit,
    as many do, and the voxels are in the lowest bits.
    """
    unused = layout.bits_allocated - layout.bits_stored
    if unused == 0:
        return stored
    native = stored.astype(stored.dtype.newbyteorder("="))
    is_high = layout.low_bits > 0 and not (native & ((1 << layout.low_bits) - 1)).any()
    above = unused - layout.low_bits if is_high else unused
    return np.asarray(np.right_shift(np.left_shift(native, above), unused))


def _decode(path: Path, frames: Sequence[Frame], layout: PixelLayout) -> list[NDArray[Any]]:
    """Returns the stored values of compressed frames, or real values if a table leads to them."""
    from pydicom.pixels import apply_modality_lut

    dataset, _ = read_dataset(path, with_pixels=True)
    if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = layout.transfer_syntax
    indices = [frame.number or 0 for frame in frames]
    arrays = list(decode_frames(dataset, indices))
    for frame, array in zip(frames, arrays, strict=True):
        if array.shape != frame.size:
            raise damaged(path, f"its voxels have the shape {array.shape}, and its header says {frame.size}")
    return [apply_modality_lut(array, dataset) for array in arrays] if layout.has_table else arrays


def _convert(stored: NDArray[Any], frame: Frame, target: NDArray[np.float32]) -> None:
    """Writes slope x stored value + intercept into `target`."""
    layout = frame.layout
    if layout is not None and layout.inverted:
        highest = 2**layout.bits_stored - 1
        stored = (-1 if layout.signed else highest) - stored.astype(np.int64)
    if frame.slope == 1.0:
        np.add(stored, np.float32(frame.intercept), out=target, casting="unsafe", dtype=np.float32)
        return
    np.add(stored * np.float64(frame.slope), frame.intercept, out=target, casting="unsafe")
