"""How an image is divided into tiles of the size that the network predicts.

Example, along an axis of 10 voxels with tiles of 4: neighbours start at most 4 * 0.5 = 2 voxels apart, so four tiles
start at 0, 2, 4 and 6. With 9 voxels the last one must start at 5, and the others spread evenly: 0, 1.67, 3.33 and 5,
rounded to 0, 2, 3 and 5.

    voxel   0 1 2 3 4 5 6 7 8 9
    tile 0  # # # #
    tile 1      # # # #
    tile 2          # # # #
    tile 3              # # # #

Near its border a tile lacks context, so where tiles overlap, each voxel of a tile counts by how near it is to the
centre.

A network that predicts less than it sees (see `networks.patch_sizes`) has context beyond its border. Its tiles have the
size of its logits, and each is predicted from a patch that is larger by the margin on each side; beyond the border of
the image the patch holds the image's mirror image. The voxels of two tiles meet the same voxels at all resolutions if
the distance of the tiles is a multiple of the network's step. Then both predict the same, up to rounding, and the tiles
together are what one pass over the whole image would be; so they need not overlap, except to keep to that step. Source:
Ronneberger et al. 2015, "U-Net", figure 2. Example, with tiles of 12, a step of 8 and a margin of 1: an axis of 18
voxels has tiles that start at -1 and 7, and stick out by one voxel on both sides.

    position       -2 -1  0 ...  6  7 ... 10 11 ... 18 19
    tile 0             #  #      #  #      #
    its patch       .  #  #      #  #      #  .
    tile 1                          #      #  #      #
    its patch                    .  #      #  #      #  .
    voxel seen      2  1  0      6  7     10 11     16 15
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.mirror_padding import mirror_indices
from autoseg.imaging.zero_padding import pad_to_size
from autoseg.networks.patch_sizes import PatchSizes

OVERLAP_STEP = 0.5
"""Largest distance of neighbouring tiles, as a fraction of a tile. Source: the reference method."""

Slices = tuple[slice, ...]
Vector = NDArray[np.float32]
Image = NDArray[np.float32]


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


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of an image of shape (c, z, y, x).

    Attributes:
        axes: The tile along z, y and x.
    """

    axes: tuple[AxisTile, ...]

    @property
    def region(self) -> Slices:
        """The voxels of the tile, in all channels."""
        return (slice(None), *(axis.region for axis in self.axes))

    @property
    def source(self) -> Slices:
        """The voxels of the image from which the tile is predicted, in all channels."""
        return (slice(None), *(axis.source for axis in self.axes))

    def extract(self, volume: Image) -> Image:
        """Returns the patch (c, *patch) of an image (c, z, y, x) from which the tile is predicted."""
        patch = volume[self.source]
        for number, axis in enumerate(self.axes, start=1):
            if axis.source_order is not None:
                patch = patch.take(axis.source_order, axis=number)
        return patch

    def clip(self, inside: Slices) -> tuple[Slices, Slices]:
        """Clips the tile to the image.

        Args:
            inside: Where the image is among the regions of the tiles, (z, y, x).

        Returns:
            The region of the tile in the image, and the part of the tile that lies in the image.
        """
        ends = [
            (max(axis.region.start, image.start), min(axis.region.stop, image.stop))
            for axis, image in zip(self.axes, inside, strict=True)
        ]
        region = tuple(slice(a - image.start, b - image.start) for (a, b), image in zip(ends, inside, strict=True))
        part = tuple(
            slice(a - axis.region.start, b - axis.region.start) for (a, b), axis in zip(ends, self.axes, strict=True)
        )
        return region, part

    @property
    def shares(self) -> Image:
        """The weight of the tile in the result at each voxel, of the shape of the tile."""
        z, y, x = (axis.shares for axis in self.axes)
        return z[:, None, None] * y[:, None] * x


def axis_tiles(size: int, tile: int) -> list[AxisTile]:
    """Returns the tiles along an axis, with shares that follow from their Gaussian weights.

    The tiles of an image are the product of those along its axes, and so are the weights. Hence the division by the
    sum of the weights can be done here, axis by axis, and no volume of weights is needed.
    """
    return [AxisTile(region, shares, region) for region, shares in _compute_shares(tile_starts(size, tile), tile)]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledImage:
    """An image that is divided into tiles.

    Attributes:
        volume: The image from which patches are taken, padded if it was smaller than a tile, (c, z, y, x).
        tiles: All tiles.
        shape: Shape (z, y, x) of the regions of all tiles together.
        inside: Where in that the image is.
    """

    volume: Image
    tiles: list[Tile]
    shape: tuple[int, ...]
    inside: Slices


def tile_image(
    image: Image, patch_size: tuple[int, ...], patches: PatchSizes | None = None, neighbours: int = 0
) -> TiledImage:
    """Divides an image (c, z, y, x) into tiles; for the other arguments see `predict_volume`.

    The weighted sum of the tiles is the image again.

    Example:
        >>> image = np.arange(10, dtype=np.float32).reshape(1, 1, 1, 10)
        >>> tiled = tile_image(image, (1, 1, 4))
        >>> [(tile.region[-1].start, tile.region[-1].stop) for tile in tiled.tiles]
        [(0, 4), (2, 6), (4, 8), (6, 10)]
        >>> assembled = np.zeros((1, *tiled.shape))
        >>> for tile in tiled.tiles:
        ...     assembled[tile.region] += tile.shares * tile.extract(tiled.volume)
        >>> bool(np.allclose(assembled, image))
        True
    """
    flat = (1,) * (3 - len(patch_size))
    size = (*flat, *patch_size)
    if patches is None or not patches.has_margin:
        volume, inside = pad_to_size(image, size)
        along_z, *in_plane = map(axis_tiles, volume.shape[1:], size)
        tiles = [Tile(axes) for axes in product(add_neighbours(along_z, neighbours), *in_plane)]
        return TiledImage(volume=volume, tiles=tiles, shape=tuple(volume.shape[1:]), inside=inside)
    arguments = zip(
        image.shape[1:],
        (*flat, *patches.centre(patch_size)),
        (*flat, *patches.step),
        (*(0 for _ in flat), *patches.margin),
        strict=True,
    )
    per_axis = [mirrored_tiles(*of_axis) for of_axis in arguments]
    return TiledImage(
        volume=image,
        tiles=[
            Tile(axes) for axes in product(add_neighbours(per_axis[0][0], neighbours), *(t for t, _ in per_axis[1:]))
        ],
        shape=tuple(tiles[-1].region.stop for tiles, _ in per_axis),
        inside=tuple(bounds for _, bounds in per_axis),
    )
