"""Label maps that were cut to a part of their image, laid on the whole of it."""

from dataclasses import replace

import numpy as np

from autoseg.imaging.geometry import ORIGIN_TOLERANCE, Geometry, Volume


def lay_on_grid(label_map: Volume, grid: Geometry) -> Volume | None:
    """Returns a label map on a larger or smaller grid whose voxels lie on its own; 0 where it says nothing.

    Args:
        label_map: Shape (z, y, x).
        grid: The grid, such as that of the image.

    Returns:
        The label map on the grid; None if the voxels of one lie between those of the other.

    Example:
        >>> part = Geometry(shape=(1, 1, 2), spacing_mm=(3.0, 1.0, 1.0), origin_mm=(3.0, 0.0, 1.0))
        >>> whole = Geometry(shape=(2, 1, 4), spacing_mm=(3.0, 1.0, 1.0))
        >>> lay_on_grid(Volume(array=np.array([[[5, 6]]]), geometry=part), whole).array.tolist()
        [[[0, 0, 0, 0]], [[0, 5, 6, 0]]]
    """
    here = label_map.geometry
    same_shape = replace(here, shape=grid.shape, origin_mm=grid.origin_mm, nifti=None)
    if here.dimensions != grid.dimensions or same_shape.difference(replace(grid, nifti=None)) is not None:
        return None
    steps = np.asarray(grid.direction) * np.asarray(grid.spacing_mm)
    exact = np.linalg.solve(steps, np.asarray(here.origin_mm) - np.asarray(grid.origin_mm))
    start = np.rint(exact).astype(int)
    if np.abs(exact - start).max() > ORIGIN_TOLERANCE:
        return None
    array = np.zeros(grid.shape, dtype=label_map.array.dtype)
    source, target = [], []
    for first, size, whole in zip(start, here.shape, grid.shape, strict=True):
        low, high = max(first, 0), max(first, 0, min(first + size, whole))
        target.append(slice(low, high))
        source.append(slice(low - first, high - first))
    array[tuple(target)] = label_map.array[tuple(source)]
    return Volume(array=array, geometry=grid)


def find_displacement(grid: Geometry, other: Geometry) -> float:
    """Returns how far voxels of the same index lie apart in two grids: the most along an axis of the first, in voxels.

    Below one half each voxel of one grid is the nearest to that of the same index in the other, so that resampling by
    the nearest voxel would change nothing.

    Args:
        grid: A grid.
        other: A grid of the same shape.

    Example:
        >>> grid = Geometry(shape=(2, 5, 5), spacing_mm=(3.0, 1.0, 1.0))
        >>> round(find_displacement(grid, replace(grid, origin_mm=(0.3, 0.0, 0.2))), 3)
        0.2
    """
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in grid.shape], indexing="ij")).reshape(3, -1)
    steps, other_steps = (np.asarray(each.direction) * np.asarray(each.spacing_mm) for each in (grid, other))
    shift = np.asarray(other.origin_mm)[:, np.newaxis] - np.asarray(grid.origin_mm)[:, np.newaxis]
    index = np.linalg.solve(steps, shift + other_steps @ corners)
    return float(np.abs(index - corners).max())
