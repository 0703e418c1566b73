"""The slices of a volume as pictures, upright as radiologists look at them, and prompts on these slices.

The patient's right is at the left of a picture, and anterior or superior at its top, whatever the order of the axes in
the file, since networks have seen pictures that way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import UsageError
from autoseg.imaging.geometry import SPACING_TOLERANCE, Geometry
from autoseg.imaging.orientation import Reorientation
from autoseg.prompting.prompts import PromptBox, PromptPoint

Plane = Literal["axial", "coronal", "sagittal"]

ORIENTATIONS: dict[Plane, str] = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
"""Plane to the orientation of a volume whose slices are pictures of it: the directions of slices, rows and columns."""

AS_IT_IS = Reorientation(axes=(0, 1, 2), reversed=(False, False, False))

Number = TypeVar("Number", bound=np.generic)

Rectangle = tuple[float, float, float, float]
"""A box on a slice, from border to border: top, left, bottom, right, as indices."""

Pixel = tuple[float, float, bool]
"""A point on a slice: row and column as indices, and whether it belongs to the structure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePrompt:
    """What is prompted on one slice.

    Attributes:
        box: The box, if there is one.
        points: The points.
    """

    box: Rectangle | None = None
    points: tuple[Pixel, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicedGrid:
    """A grid cut into slices, and the way back.

    Attributes:
        shape: Slices, rows and columns.
        pixel_mm: Distance between rows, and between columns; their proportion alone matters.
        reorientation: What brings an array of the file into slices.

    Example:
        >>> grid = slice_grid(Geometry(shape=(4, 6, 8), spacing_mm=(1.0, 1.0, 3.0)))
        >>> grid.shape, grid.pixel_mm
        ((8, 4, 6), (1.0, 1.0))
        >>> slices = grid.apply(np.zeros((4, 6, 8)))
        >>> slices.shape, grid.restore(slices).shape
        ((8, 4, 6), (4, 6, 8))
    """

    shape: tuple[int, int, int]
    pixel_mm: tuple[float, float]
    reorientation: Reorientation

    def apply(self, array: NDArray[Number]) -> NDArray[Number]:
        """Returns an array (..., z, y, x) of the file as (..., slices, rows, columns); a view of the same memory."""
        return self.reorientation.apply(array)

    def restore(self, slices: NDArray[Number]) -> NDArray[Number]:
        """Undoes `apply` for an array (slices, rows, columns)."""
        steps = tuple(slice(None, None, -1 if is_reversed else None) for is_reversed in self.reorientation.reversed)
        return slices[steps].transpose(np.argsort(self.reorientation.axes))

    def place(self, index: Sequence[float]) -> tuple[float, float, float]:
        """Returns where an index (z, y, x) of the file lies: slice, row and column."""
        permuted = (index[axis] for axis in self.reorientation.axes)
        number, row, column = (
            length - 1 - value if is_reversed else value
            for value, length, is_reversed in zip(permuted, self.shape, self.reorientation.reversed, strict=True)
        )
        return number, row, column

    def place_slice(self, number: int) -> int:
        """Returns the number of a slice, of that of its voxels along the axis of the file that it lies across."""
        return self.shape[0] - 1 - number if self.reorientation.reversed[0] else number

    def cut_box(self, box: PromptBox) -> tuple[range, SlicePrompt]:
        """Returns the slices whose centres a box holds, at least the nearest one, and the prompt on each of them."""
        corners = np.array([self.place(box.lower), self.place(box.upper)])
        (start, top, left), (stop, bottom, right) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        first, last = int(np.ceil(start)), int(np.floor(stop))
        if first > last:
            first = last = int(np.clip(round((start + stop) / 2), 0, self.shape[0] - 1))
        return range(first, last + 1), SlicePrompt(box=(top, left, bottom, right))

    def cut_points(self, points: Sequence[PromptPoint]) -> dict[int, SlicePrompt]:
        """Returns the slices on which points lie, and the prompt of each of them."""
        slices: dict[int, SlicePrompt] = {}
        for point in points:
            number, row, column = self.place(point.index)
            nearest = int(np.clip(round(number), 0, self.shape[0] - 1))
            before = slices.get(nearest, SlicePrompt())
            slices[nearest] = SlicePrompt(points=(*before.points, (row, column, point.is_foreground)))
        return slices


def slice_grid(geometry: Geometry, plane: str | None = None) -> SlicedGrid:
    """Cuts a grid into slices.

    Args:
        geometry: The grid of the scan.
        plane: "axial", "coronal" or "sagittal"; by default the one across the axis along which voxels lie farthest
            apart, because it was scanned in such slices, and axial if that is none.

    Raises:
        UsageError: There is no such plane, or a plane was named for a picture, which is one.
    """
    if plane is not None and plane not in ORIENTATIONS:
        raise UsageError(f"there is no plane {plane!r}", f"choose from {', '.join(ORIENTATIONS)}")
    if geometry.dimensions == 2:
        if plane is not None:
            raise UsageError("the scan is a picture, which has one plane", "leave the plane out")
        _, row_mm, column_mm = geometry.spacing_mm
        return SlicedGrid(shape=geometry.shape, pixel_mm=(row_mm, column_mm), reorientation=AS_IT_IS)
    grids = [_slice_along(geometry, name) for name in ORIENTATIONS if plane in (None, name)]
    areas = [row_mm * column_mm for row_mm, column_mm in (grid.pixel_mm for grid in grids)]
    finest = min(areas) * (1 + SPACING_TOLERANCE)
    return next(grid for grid, area in zip(grids, areas, strict=True) if area <= finest)


def _slice_along(geometry: Geometry, plane: Plane) -> SlicedGrid:
    reorientation = geometry.reorientation_to(ORIENTATIONS[plane])
    turned = geometry.permute(reorientation.axes)
    return SlicedGrid(shape=turned.shape, pixel_mm=turned.spacing_mm[1:], reorientation=reorientation)
