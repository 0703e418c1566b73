"""Reads contours of DICOM structure sets (RTSTRUCT) as masks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.functional_groups import numbers_of, text_of
from autoseg.dicom.mask_placement import MaskGrid
from autoseg.dicom.safe_reading import damage_named, damaged, read_dataset
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Geometry

FURTHEST_FROM_SLICE = 0.3
"""Slices that a contour may lie aside of one. Decision: positions are rounded; halfway it could belong to two."""

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Types of contours that bound an area; points and open lines do not. Source: PS3.3, section C.8.8.6."""


def list_structures(dataset: Any) -> dict[int, str]:
    """Returns the names of the structures of a structure set that have contours, by number."""
    drawn = {
        int(item.get("ReferencedROINumber") or 0)
        for item in dataset.get("ROIContourSequence") or ()
        if any(_is_closed(contour) for contour in item.get("ContourSequence") or ())
    }
    names = {}
    for item in dataset.get("StructureSetROISequence") or ():
        number = int(item.get("ROINumber") or 0)
        if number in drawn:
            names[number] = text_of(item.get("ROIName")) or f"structure_{number}"
    return names


def read_structures(path: Path, geometry: Geometry) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields the name and mask of each structure of a structure set that has contours.

    A voxel belongs to a structure if its centre lies inside of an odd number of its contours: a contour inside another
    one is a hole, and a contour that cuts into itself to leave out a hole (a keyhole) works as well.

    Args:
        path: The DICOM file.
        geometry: Grid of the series that it was drawn on.

    Yields:
        Name, and mask of shape (z, y, x) on that grid.

    Raises:
        ImageError: The file is damaged, or its contours do not lie on slices of the series.
    """
    dataset, _ = read_dataset(path)
    with damage_named(path):
        names, grid = list_structures(dataset), MaskGrid(geometry, path)
        contours: dict[int, list[Any]] = {}
        for item in dataset.get("ROIContourSequence") or ():
            number = int(item.get("ReferencedROINumber") or 0)
            contours.setdefault(number, []).extend(filter(_is_closed, item.get("ContourSequence") or ()))
    for number, name in sorted(names.items()):
        mask = np.zeros(geometry.shape, dtype=bool)
        with damage_named(path):
            for contour in contours[number]:
                _add_contour(mask, grid.index_of(_points_of(contour, path)), name, path)
        yield name, mask


def _is_closed(contour: Any) -> bool:
    return str(contour.get("ContourGeometricType") or "").upper().replace(" ", "") in CLOSED


def _points_of(contour: Any, path: Path) -> NDArray[np.floating]:
    """Returns the points (x, y, z) of a contour in mm, shape (n, 3)."""
    numbers = numbers_of(contour.get("ContourData")) or []
    if not numbers or len(numbers) % 3:
        raise damaged(path, "a contour does not consist of points")
    return np.asarray(numbers, dtype=float).reshape(-1, 3)


def _add_contour(mask: NDArray[np.bool_], points: NDArray[np.floating], name: str, path: Path) -> None:
    """Adds the area of a contour, given by fractional indices (z, y, x), to a mask; what it holds already leaves it."""
    slice_index = int(np.rint(points[:, 0].mean()))
    if np.abs(points[:, 0] - slice_index).max() > FURTHEST_FROM_SLICE:
        what = f"{path}: contours of {name!r} do not lie on slices of the series that they were drawn on"
        raise ImageError(what, "draw them on this series, or leave them out")
    if not 0 <= slice_index < mask.shape[0]:
        what = f"{path}: contours of {name!r} lie outside of the series that they were drawn on"
        raise ImageError(what, "bring the whole series, or leave them out")
    mask[slice_index] ^= fill_polygon(points[:, 1:], mask.shape[1:])


def fill_polygon(points: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns which pixels have their centre inside a polygon, by the even-odd rule.

    Args:
        points: Corners (y, x) in pixels, shape (n, 2); the last is joined to the first.
        shape: Number of rows and columns.

    Example:
        >>> fill_polygon(np.array([[-0.5, 0.5], [-0.5, 2.5], [1.5, 2.5], [1.5, 0.5]]), (3, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    rows, columns = shape
    filled = np.zeros((rows, columns), dtype=bool)
    y, x = points.T
    next_y, next_x = np.roll(y, -1), np.roll(x, -1)
    first, last = max(0, int(np.ceil(y.min()))), min(rows - 1, int(np.floor(y.max())))
    centres = np.arange(columns)
    for row in range(first, last + 1):
        crosses = (y <= row) != (next_y <= row)
        if crosses.any():
            share = (row - y[crosses]) / (next_y[crosses] - y[crosses])
            edges = np.sort(x[crosses] + share * (next_x[crosses] - x[crosses]))
            filled[row] = np.searchsorted(edges, centres, side="left") % 2 == 1
    return filled
