"""Closed contours of masks on a slice: halfway between the centres of pixels, with holes joined to what is around them.

Points are (column, row), in pixels; the centre of the first pixel is (0, 0). Every pixel whose centre lies inside of a
contour belongs to the mask, and no other, whether a reader counts crossings or windings.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

BETWEEN = 0.5
"""Level between pixels outside of a mask, 0, and inside, 1. Contours through the centres of border pixels would leave
these to the rounding of the reader."""

SMALLEST_POLYGON = 3
"""Points of a closed contour. Source: DICOM PS3.3, section C.8.8.6."""


def trace_contours(mask: NDArray[np.generic]) -> Iterator[Points]:
    """Yields the contours of a mask, one for each island.

    The contour of an island with holes is a keyhole: it leads along a channel of no width from its outer border around
    each hole and back. Source: DICOM PS3.3, section C.8.8.6, which describes inner and outer contours in this way.
    Decision: a reader that fills each contour and one that takes the symmetric difference of all read the same.

    Args:
        mask: Shape (rows, columns), 0 outside.

    Yields:
        Shape (points, 2); the last point is joined to the first by a straight line.

    Example:
        >>> [contour.tolist() for contour in trace_contours(np.array([[0, 1, 0]]))]
        [[[0.5, 0.0], [1.0, -0.5], [1.5, 0.0], [1.0, 0.5]]]
    """
    from contourpy import FillType, contour_generator

    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if len(rows) == 0:
        return
    part = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] != 0, 1).astype(np.float64)
    generator = contour_generator(z=part, name="serial", fill_type=FillType.OuterOffset)
    corner = np.array([columns[0] - 1, rows[0] - 1], dtype=float)
    filled: Any = generator.filled(BETWEEN, np.inf)
    for points, starts in zip(*filled, strict=True):
        borders = [_without_straight(points[start : stop - 1]) for start, stop in pairwise(starts)]
        yield _join_holes(borders[0], borders[1:]) + corner


def _without_straight(points: Points) -> Points:
    """Returns a closed polygon without the points that lie on a straight line between their neighbours."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    kept: Points = points[turns]
    return kept


def _join_holes(outer: Points, holes: list[Points]) -> Points:
    """Returns one polygon of an outer border and its holes, each joined by a channel to the nearest point of it.

    A channel may cross another hole: both of its banks do, which changes no pixel.
    """
    from scipy.spatial import cKDTree

    if not holes:
        return outer
    border, joined = cKDTree(outer), dict[int, list[Points]]()
    nearest: Any
    for hole in holes:
        distances, nearest = border.query(hole)
        entry = int(np.argmin(distances))
        leave = int(nearest[entry])
        joined.setdefault(leave, []).append(np.concatenate([hole[entry:], hole[: entry + 1], outer[leave : leave + 1]]))
    pieces, start = [], 0
    for leave in sorted(joined):
        pieces += [outer[start : leave + 1], *joined[leave]]
        start = leave + 1
    return np.concatenate([*pieces, outer[start:]])
