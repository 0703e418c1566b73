"""Lays masks on the grid of the series that they were drawn on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.geometry import Geometry, Vector

LARGEST_OFFSET = 0.25
"""Voxels that the centre of a mask's voxel may lie aside of one of the series. Decision: headers round, and half
a voxel would be another voxel."""


class MaskGrid:
    """The grid of a series, with the way from positions in the patient to voxels.

    Args:
        geometry: The grid; it may be sheared.
        path: File of the mask, for messages.
    """

    def __init__(self, geometry: Geometry, path: Path) -> None:
        self.shape, self._path = geometry.shape, path
        steps = np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm)
        self._to_index, self._origin = np.linalg.inv(steps), np.asarray(geometry.origin_mm)

    def index_of(self, points_mm: NDArray[np.floating]) -> NDArray[np.floating]:
        """Returns the fractional indices (z, y, x) of points (x, y, z) in mm; both of shape (n, 3)."""
        return np.asarray((points_mm[:, ::-1] - self._origin) @ self._to_index.T)

    def place(
        self,
        mask: NDArray[np.bool_],
        frame: NDArray[np.generic],
        position_mm: Vector,
        cosines: Sequence[Vector],
        spacing_mm: tuple[float, float],
    ) -> None:
        """Marks the voxels of a mask that the pixels of a frame, other than 0, lie on.

        Args:
            mask: Shape (z, y, x), on the grid of the series; it is changed.
            frame: Shape (rows, columns).
            position_mm: Centre of the first pixel, (x, y, z).
            cosines: Directions along rows and along columns.
            spacing_mm: Distance between the centres of rows and of columns.

        Raises:
            ImageError: The pixels do not lie on voxels of the series, or outside of it.
        """
        rows, columns = np.nonzero(frame)
        if rows.size == 0:
            return
        across, down = (np.asarray(cosine) for cosine in cosines)
        steps = np.stack([down * spacing_mm[0], across * spacing_mm[1]])
        points = np.asarray(position_mm) + np.stack([rows, columns], axis=1) @ steps
        exact = self.index_of(points)
        index = np.rint(exact).astype(np.int64)
        lengths = np.linalg.norm(steps[:, ::-1] @ self._to_index.T, axis=1)
        if np.abs(exact - index).max() > LARGEST_OFFSET or np.abs(lengths - 1).max() > LARGEST_OFFSET:
            what = f"{self._path}: its segments do not lie on the voxels of the series that they were drawn on"
            raise ImageError(what, "resample them onto it, or leave them out")
        if (index < 0).any() or (index >= self.shape).any():
            what = f"{self._path}: its segments reach out of the series that they were drawn on"
            raise ImageError(what, "bring the whole series, or leave them out")
        mask[tuple(index.T)] = True
