"""The series that a segmentation is drawn on: the headers of its files, and where each slice lies.

Points and vectors here are in the order of the standard, (x, y, z), to the left, back and head of the patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.series import Frame, Series
from autoseg.dicom.source_headers import read_header, unify_headers
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Volume

STRAIGHT = 1e-3
"""Largest part of a step along a slice that counts as none along another axis, in voxels for the whole slice. Decision:
headers round, and a thousandth of a voxel moves no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files and slices of a series.

    Attributes:
        headers: The files without their pixels: one for each slice in slice order, or a single one that holds all
            slices as frames. What an object must have is there, empty if the file does not state it.
        frames: The slices, in the order of the series; see `Series`.
    """

    headers: tuple[Any, ...]
    frames: tuple[Frame, ...]

    @property
    def is_multi_frame(self) -> bool:
        """Whether one file holds all slices."""
        return self.frames[0].number is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns."""
        return len(self.frames), *self.frames[0].size

    @property
    def series_number(self) -> int:
        """Series Number of the source; 0 if it is not stated, or is no number."""
        try:
            return max(0, int(self.headers[0].get("SeriesNumber") or 0))
        except (TypeError, ValueError):
            return 0


def read_source(series: Series) -> Source:
    """Reads the headers of a series, and fills in what an object that refers to them must state.

    Raises:
        ImageError: The slices are frames of several files, or lie nowhere.
    """
    first, paths = series.frames[0], series.paths
    if first.number is not None and len(paths) > 1:
        what = f"{first.path.parent}, {series.name}: its slices are frames of {len(paths)} files"
        raise ImageError(what, "convert it to one file, or to a file for each slice, before objects are drawn on it")
    if any(frame.position_mm is None or frame.spacing_mm is None for frame in series.frames):
        what = f"{first.path.parent}, {series.name}: it does not state where its slices lie"
        raise ImageError(what, "ask for NIfTI alone, without --dicom")
    files = dict.fromkeys(paths) | {frame.path: frame for frame in reversed(series.frames)}
    headers = [read_header(path, frame) for path, frame in files.items() if frame is not None]
    unify_headers(headers, series.frames)
    return Source(headers=tuple(headers), frames=series.frames)


def place_on_slices(volume: Volume, source: Source) -> NDArray[Any]:
    """Returns a label map or a map of numbers on the slices of a series.

    Each voxel gets the value of the voxel of the map that is nearest to it, and 0 outside of the map; where both lie on
    the same grid, in whatever order and direction of the axes, it is the value there.

    Args:
        volume: Array of shape (z, y, x).
        source: The series.

    Returns:
        Array of shape (slices, rows, columns), in the order of the series, of the type of the map.
    """
    starts = np.array([_index(volume, _array_order(frame.position_mm)) for frame in source.frames])
    down, across = (_steps(volume, source, axis) for axis in (0, 1))
    if (axes := _parallel_axes(starts, down, across, source.shape)) is not None:
        return _take(volume.array, starts, down[0], across[0], axes, source.shape)
    placed = np.zeros(source.shape, volume.array.dtype)
    rows, columns = np.indices(source.shape[1:])
    for number, start in enumerate(starts):
        index = start + rows[..., np.newaxis] * down[number] + columns[..., np.newaxis] * across[number]
        nearest = np.rint(index).astype(np.int64)
        inside = ((nearest >= 0) & (nearest < volume.array.shape)).all(axis=-1)
        placed[number][inside] = volume.array[tuple(nearest[inside].T)]
    return placed


def _array_order(vector: Sequence[float] | None) -> NDArray[np.float64]:
    reversed_: NDArray[np.float64] = np.asarray(vector, dtype=float)[::-1]
    return reversed_


def _index(volume: Volume, point_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the fractional index (z, y, x) of a point (z, y, x) in mm."""
    return _offset(volume, point_mm - np.asarray(volume.geometry.origin_mm))


def _offset(volume: Volume, vector_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    geometry = volume.geometry
    along: NDArray[np.float64] = np.linalg.solve(np.asarray(geometry.direction), vector_mm)
    voxels: NDArray[np.float64] = along / np.asarray(geometry.spacing_mm)
    return voxels


def _steps(volume: Volume, source: Source, axis: int) -> NDArray[np.float64]:
    """Returns how far the index in the volume changes from a row (axis 0) or column (1) to the next, for each slice."""
    steps = []
    for frame in source.frames:
        cosines = frame.column_cosines if axis == 0 else frame.row_cosines
        spacing_mm = (frame.spacing_mm or (1.0, 1.0))[axis]
        steps.append(_offset(volume, _array_order(cosines) * spacing_mm))
    return np.array(steps)


def _parallel_axes(
    starts: NDArray[np.float64], down: NDArray[np.float64], across: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[int, int, int] | None:
    """Returns the axes of the volume along which slices, rows and columns run; None if they run along none of them."""
    row_axis, column_axis = int(np.abs(down[0]).argmax()), int(np.abs(across[0]).argmax())
    if row_axis == column_axis:
        return None
    axis = 3 - row_axis - column_axis
    others_down, others_across = np.delete(down, row_axis, axis=1), np.delete(across, column_axis, axis=1)
    drift = max(
        float(np.abs(others_down).max()) * shape[1],
        float(np.abs(others_across).max()) * shape[2],
        float(np.ptp(np.delete(starts, axis, axis=1), axis=0).max()),
        float(np.ptp(down, axis=0).max()) * shape[1],
        float(np.ptp(across, axis=0).max()) * shape[2],
    )
    return (axis, row_axis, column_axis) if drift < STRAIGHT else None


def _take(
    array: NDArray[Any],
    starts: NDArray[np.float64],
    down: NDArray[np.float64],
    across: NDArray[np.float64],
    axes: tuple[int, int, int],
    shape: tuple[int, int, int],
) -> NDArray[Any]:
    """Returns an array at indices that are the same for a whole slice, row or column."""
    positions = (
        starts[:, axes[0]],
        starts[0, axes[1]] + np.arange(shape[1]) * down[axes[1]],
        starts[0, axes[2]] + np.arange(shape[2]) * across[axes[2]],
    )
    indices = [np.rint(position).astype(np.int64) for position in positions]
    turned = array.transpose(axes)
    inside = [(index >= 0) & (index < size) for index, size in zip(indices, turned.shape, strict=True)]
    if all(part.all() for part in inside):
        whole: NDArray[Any] = turned[np.ix_(*indices)]
        return whole
    placed = np.zeros(shape, array.dtype)
    kept = [index[part] for index, part in zip(indices, inside, strict=True)]
    placed[np.ix_(*inside)] = turned[np.ix_(*kept)]
    return placed
