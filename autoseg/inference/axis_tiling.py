"""How one axis of an image is divided into tiles; see `tiling`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.mirror_padding import mirror_indices

OVERLAP_STEP = 0.5
"""Largest distance of neighbouring tiles, as a fraction of a tile. Source: the reference method."""

Vector = NDArray[np.float32]


def tile_starts(size: int, tile: int, overlap_step: float = OVERLAP_STEP) -> list[int]:
    """Returns where tiles start along an axis: the first at 0, the last flush with the end, the others spread evenly.

    Source: the reference method.

    Example:
        >>> tile_starts(9, 4)
        [0, 2, 3, 5]

    Args:
        size: Number of voxels along the axis, at least `tile`.
        tile: Number of voxels of a tile.
        overlap_step: Largest distance of neighbouring starts, as a fraction of a tile; at least one voxel is taken.
    """
    if size < tile:
        raise ValueError(f"an axis of {size} voxels has no room for a tile of {tile}; pad it first")
    last = size - tile
    count = ceil(last / max(1, tile * overlap_step)) + 1
    return [round(last * number / (count - 1)) for number in range(count)] if count > 1 else [0]


def gaussian_weights(tile: int) -> Vector:
    """Returns the weights of the voxels of a tile along one axis: 1 at the centre, voxel `tile // 2`, less outwards.

    The weight of a voxel is the product over its axes. Source: the reference method: a Gaussian whose standard
    deviation is an eighth of the tile. Its map peaks at 10 rather than at 1, which cancels in a weighted mean.

    Example:
        >>> [round(weight, 3) for weight in gaussian_weights(4).tolist()]
        [0.0, 0.135, 1.0, 0.135]

    Returns:
        Shape (tile,), float32. The smallest value is about exp(-8), at the first voxel.
    """
    distance = (np.arange(tile, dtype=np.float32) - tile // 2) / np.float32(tile / 8)
    weights: Vector = np.exp(np.float32(-0.5) * distance**2)
    return weights


@dataclass(frozen=True, slots=True)
class AxisTile:
    """One tile along one axis.

    Attributes:
        region: The voxels of the tile.
        shares: The weight of the tile in the result at each of them, shape (tile,); over the tiles of an axis the
            weights add up to 1.
        source: The voxels of the image from which the tile is predicted.
        source_order: Indices of these voxels in the order in which they make up the patch, where the image is mirrored;
            None if they are taken as they are.
    """

    region: slice
    shares: Vector
    source: slice
    source_order: NDArray[np.intp] | None = None


def axis_tiles(size: int, tile: int, overlap_step: float = OVERLAP_STEP) -> list[AxisTile]:
    """Returns the tiles along an axis, with shares that follow from their Gaussian weights.

    The tiles of an image are the product of those along its axes, and so are the weights. Hence the division by the
    sum of the weights can be done here, axis by axis, and no volume of weights is needed.
    """
    starts = tile_starts(size, tile, overlap_step)
    return [AxisTile(region, shares, region) for region, shares in _compute_shares(starts, tile)]


def _compute_shares(starts: Sequence[int], tile: int) -> list[tuple[slice, Vector]]:
    """Returns the regions of tiles, the first of which starts at 0, and the weight of each in the result."""
    weights = gaussian_weights(tile)
    regions = [slice(start, start + tile) for start in starts]
    total = np.zeros(starts[-1] + tile, dtype=np.float32)
    for region in regions:
        total[region] += weights
    return [(region, weights / total[region]) for region in regions]


def add_neighbours(slices: Sequence[AxisTile], neighbours: int) -> list[AxisTile]:
    """Returns tiles of one slice with the slices around as their sources; the first and last stand for those beyond.

    Example:
        >>> [tile.source_order.tolist() for tile in add_neighbours(axis_tiles(3, 1), 1)]
        [[0, 0, 1], [0, 1, 2], [0, 1, 1]]

    Args:
        slices: The tiles along z, in their order.
        neighbours: Number of slices on each side.
    """
    if not neighbours:
        return list(slices)
    tiles = []
    for number, tile in enumerate(slices):
        seen = np.arange(number - neighbours, number + neighbours + 1).clip(0, len(slices) - 1)
        first, last = int(seen[0]), int(seen[-1])
        tiles.append(AxisTile(tile.region, tile.shares, slice(first, last + 1), (seen - first).astype(np.intp)))
    return tiles


def aligned_starts(size: int, tile: int, step: int) -> list[int]:
    """Returns where tiles start along an axis that they may stick out of: at multiples of a step, as few as cover it.

    Where a tile is shorter than the step, this would leave gaps; then `tile_starts` says where they start.

    Example:
        >>> aligned_starts(18, tile=12, step=8)
        [0, 8]

    Args:
        size: Number of voxels along the axis.
        tile: Number of voxels of a tile.
        step: See `PatchSizes`.
    """
    if tile < step:
        return tile_starts(max(size, tile), tile)
    last = ceil(max(0, size - tile) / step)
    count = ceil(last / (tile // step)) + 1
    return [round(last * number / (count - 1)) * step for number in range(count)] if count > 1 else [0]


def mirrored_tiles(size: int, tile: int, step: int, margin: int) -> tuple[list[AxisTile], slice]:
    """Returns the tiles along an axis, of a network that sees a margin around each; see the top of the module.

    Returns:
        The tiles, which may reach beyond the axis, half on each side; and where among their regions the axis is.
    """
    starts = aligned_starts(size, tile, step)
    before = (starts[-1] + tile - size) // 2
    tiles = []
    for region, shares in _compute_shares(starts, tile):
        voxels = mirror_indices(region.start - before - margin, tile + 2 * margin, size)
        first, last = int(voxels.min()), int(voxels.max())
        is_in_order = np.array_equal(voxels, np.arange(first, last + 1))
        source_order = None if is_in_order else (voxels - first).astype(np.intp)
        tiles.append(AxisTile(region, shares, slice(first, last + 1), source_order))
    return tiles, slice(before, before + size)
