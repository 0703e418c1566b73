"""Surfaces of segmented structures: triangles in the space of the patient, closed and with their outer sides outwards.

    label map -> mask of a structure -> marching cubes -> Taubin smoothing -> mm in LPS

The frame is LPS, as in DICOM and ITK: x grows to the patient's left, y to the back, z to the head.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.targets import Targets

SMOOTHING_STEPS = 10
"""Number of pairs of steps of smoothing. Decision: the stairs of voxels are gone, and a ball keeps its volume within
three percent."""

SHRINK, GROW = 0.5, -0.53
"""How far a point moves towards the mean of its neighbours, in turns. Source: Taubin 1995, "A signal processing
approach to fair surface design": the second step undoes the shrinking of the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The closed surface of a structure.

    Attributes:
        name: Name of the structure.
        points_mm: Corners of the triangles, shape (n, 3), float32, as (x, y, z) in mm in LPS.
        triangles: Indices of the corners of each triangle, shape (m, 3), uint32; anticlockwise as seen from outside.
    """

    name: str
    points_mm: NDArray[np.float32]
    triangles: NDArray[np.uint32]

    @property
    def volume_mm3(self) -> float:
        """The volume inside; negative if the triangles showed their outer sides inwards."""
        corners = self.points_mm.astype(np.float64)[self.triangles]
        corners = corners - corners.reshape(-1, 3).mean(axis=0)
        return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def make_meshes(label_map: Volume, targets: Targets) -> Iterator[Mesh]:
    """Yields the surface of each structure that a label map holds.

    Args:
        label_map: Shape (z, y, x), a volume.
        targets: The structures, and their numbers in the map.
    """
    for name, numbers in targets.structures.items():
        mask = np.isin(label_map.array, numbers)
        if mask.any():
            yield make_mesh(name, mask, label_map.geometry)


def make_mesh(name: str, mask: NDArray[np.bool_], geometry: Geometry) -> Mesh:
    """Makes the surface of a mask.

    It runs half-way between the centres of voxels inside and outside, also at the border of the image, and is then
    smoothed. Structures of a few voxels lose most of their volume, since their corners are cut off.

    Args:
        name: Name of the structure.
        mask: Shape (z, y, x); it holds at least one voxel.
        geometry: Grid of the mask.

    Example: a box of 4 x 8 x 8 voxels in a larger image.
        >>> mask = np.zeros((10, 10, 10), dtype=bool)
        >>> mask[2:6, 1:9, 1:9] = True
        >>> mesh = make_mesh("box", mask, Geometry(shape=mask.shape, spacing_mm=(1.0, 1.0, 1.0)))
        >>> 230 < mesh.volume_mm3 < 256
        True
    """
    from skimage.measure import marching_cubes, regionprops  # noqa: PLC0415 - only predictions with meshes need it

    [structure] = regionprops(mask.view(np.uint8))
    corner = np.asarray(structure.bbox[: mask.ndim])
    bordered = np.pad(structure.image.astype(np.float32), 1)  # a border of background closes the surface
    points, triangles, _, _ = marching_cubes(bordered, 0.5)
    index = points + (corner - 1)
    smooth_mm = smooth(index * np.asarray(geometry.spacing_mm), triangles)
    zyx_mm = smooth_mm @ np.asarray(geometry.direction).T + geometry.origin_mm
    mesh = Mesh(
        name=name,
        points_mm=np.ascontiguousarray(zyx_mm[:, ::-1], dtype=np.float32),
        triangles=np.ascontiguousarray(triangles, dtype=np.uint32),
    )
    if mesh.volume_mm3 >= 0:
        return mesh
    return Mesh(name=name, points_mm=mesh.points_mm, triangles=np.ascontiguousarray(mesh.triangles[:, ::-1]))


def smooth(points: NDArray[np.floating], triangles: NDArray[np.integer]) -> NDArray[np.float64]:
    """Smooths a surface without shrinking it; see `SHRINK`.

    Args:
        points: Shape (n, 3).
        triangles: Shape (m, 3).

    Returns:
        The moved points, shape (n, 3).
    """
    count = len(points)
    first, second = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).T
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    neighbours = scipy.sparse.csr_matrix((np.ones(len(ends[0])), ends), shape=(count, count))
    neighbours.data[:] = 1  # each edge is of two triangles
    mean_of_neighbours = scipy.sparse.diags(1 / np.asarray(neighbours.sum(axis=1)).ravel()) @ neighbours
    moved = np.asarray(points, dtype=np.float64)
    for step in (SHRINK, GROW) * SMOOTHING_STEPS:
        moved = moved + step * (mean_of_neighbours @ moved - moved)
    return moved
