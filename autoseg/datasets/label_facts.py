"""Size, place and parts of each label of a label map, from the runs of equal voxels in its rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.imaging.geometry import Vector

# Number of voxels that are processed in one step. Decision: they fit into the processor's cache, and a slice of
# 512 x 512 is processed in full.
BLOCK_VOXELS = 2**18


class LabelFacts(BaseModel):
    """One label in one case.

    Attributes:
        label: Label number.
        voxels: Number of voxels with this label.
        center: Mean position of these voxels along (z, y, x), as a fraction of the cropped case: 0 at one border, 1 at
            the other.
        parts: Number of connected parts, whose voxels touch at their faces; None in files of earlier versions.
        largest_part: Number of voxels of the largest part; None likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: int
    voxels: int
    center: Vector
    parts: int | None = None
    largest_part: int | None = None


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of neighbouring voxels of a row that have the same label above 0, in the order of the voxels.

    Attributes:
        labels: Label of each run.
        starts: Number of the first voxel of each run, counted over the whole label map.
        lengths: Number of voxels of each run.
    """

    labels: NDArray[np.intp]
    starts: NDArray[np.intp]
    lengths: NDArray[np.intp]


def measure_labels(label: NDArray[np.integer]) -> tuple[LabelFacts, ...]:
    """Measures all labels by their runs, of which a label map has far fewer than voxels.

    The row 0 0 3 3 3 0 5 5 0 0 has two foreground runs: label 3 with 3 voxels and mean position 3, and label 5 with 2
    voxels and mean position 6.5.

    Args:
        label: Label map, shape (z, y, x).

    Example:
        >>> [facts] = measure_labels(np.array([[[0, 3, 3, 0, 3]]]))
        >>> facts.voxels, facts.parts, facts.largest_part
        (3, 2, 2)
    """
    _, height, width = label.shape
    runs = _find_runs(label)
    numbers = max(0, int(label.max())) + 1
    rows, x = np.divmod(runs.starts, width)
    z, y = np.divmod(rows, height)
    positions = (z, y, x + (runs.lengths - 1) / 2)  # multiples of 0.5, whose sums floats represent exactly
    voxels = np.bincount(runs.labels, weights=runs.lengths, minlength=numbers)
    present = np.flatnonzero(voxels)
    sums = [np.bincount(runs.labels, weights=runs.lengths * axis, minlength=numbers)[present] for axis in positions]
    centers = (np.stack(sums) / voxels[present] + 0.5).T / label.shape
    parts, largest = _measure_parts(runs, label.shape, numbers)
    return tuple(
        LabelFacts(
            label=int(number),
            voxels=int(voxels[number]),
            center=(float(center[0]), float(center[1]), float(center[2])),
            parts=int(parts[number]),
            largest_part=int(largest[number]),
        )
        for number, center in zip(present, centers, strict=True)
    )


def _measure_parts(runs: _Runs, shape: tuple[int, ...], numbers: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the number of connected parts of each label number, and the voxels of its largest part."""
    _, height, width = shape
    pairs = [_touching_runs(runs, width, (runs.starts // width + 1) % height > 0), _touching_runs(runs, width * height)]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    size = runs.starts.size
    graph = scipy.sparse.coo_array((np.ones(first.size, dtype=np.int8), (first, second)), shape=(size, size))
    count, part_of_run = scipy.sparse.csgraph.connected_components(graph, directed=False)
    voxels = np.bincount(part_of_run, weights=runs.lengths, minlength=count).astype(np.intp)
    labels = np.zeros(count, dtype=np.intp)
    labels[part_of_run] = runs.labels
    largest = np.zeros(numbers, dtype=np.intp)
    np.maximum.at(largest, labels, voxels)
    return np.bincount(labels, minlength=numbers), largest


def _touching_runs(
    runs: _Runs, step: int, has_next: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the pairs of runs of one label that touch across the border of two rows.

    Args:
        runs: All runs.
        step: Number of voxels from a voxel to its neighbour in the other row.
        has_next: Whether there is another row behind that of each run; None if there is one, or none has runs.
    """
    begins = np.searchsorted(runs.starts + runs.lengths, runs.starts + step, side="right")
    ends = np.searchsorted(runs.starts, runs.starts + runs.lengths + step, side="left")
    counts = np.maximum(ends - begins, 0)
    if has_next is not None:
        counts = counts * has_next
    first = np.repeat(np.arange(runs.starts.size), counts)
    second = np.arange(first.size) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
    same = runs.labels[first] == runs.labels[second]
    return first[same], second[same]


def split_into_blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Divides a grid into blocks of whole slices, or of whole rows if a slice is larger than a block may be."""
    z, y, x = shape
    slices = max(1, BLOCK_VOXELS // (y * x))
    rows = max(1, min(y, BLOCK_VOXELS // x))
    for z_start in range(0, z, slices):
        for y_start in range(0, y, rows):
            yield slice(z_start, min(z, z_start + slices)), slice(y_start, min(y, y_start + rows)), slice(0, x)


def _find_runs(label: NDArray[np.integer]) -> _Runs:
    """Returns the foreground runs of a label map, which is searched block by block."""
    found = [
        _find_runs_of_block(label[block], _first_voxel(block, label.shape)) for block in split_into_blocks(label.shape)
    ]
    labels, starts, lengths = (np.concatenate(values) for values in zip(*found, strict=True))
    return _Runs(labels=labels, starts=starts, lengths=lengths)


def _first_voxel(block: tuple[slice, slice, slice], shape: tuple[int, ...]) -> int:
    """Returns the number of the first voxel of a block of whole rows."""
    slice_start, row_start = int(block[0].start), int(block[1].start)
    return (slice_start * shape[1] + row_start) * shape[2]


def _find_runs_of_block(
    label: NDArray[np.integer], first_voxel: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Returns the label, the first voxel and the length of each foreground run."""
    flat = label.ravel()
    begins = np.empty(flat.size, dtype=bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[:: label.shape[2]] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=flat.size)
    kept = flat[starts] > 0
    starts, lengths = starts[kept], lengths[kept]
    return flat[starts].astype(np.intp), starts + first_voxel, lengths
