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
import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.imaging.mirror_padding import mirror_indices
from autoseg.networks.patch_sizes import PatchSizes

OVERLAP_STEP = 0.5
"""Largest distance of neighbouring tiles, as a fraction of a tile. Source: the reference method."""

Slices = tuple[slice, ...]


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


def gaussian_weights(tile: int) -> Tensor:
    """Returns the weights of the voxels of a tile along one axis: 1 at the centre, voxel `tile // 2`, less outwards.

    The weight of a voxel is the product over its axes. Source: the reference method: a Gaussian whose standard
    deviation is an eighth of the tile. Its map peaks at 10 rather than at 1, which cancels in a weighted mean.

    Example:
        >>> [round(weight, 3) for weight in gaussian_weights(4).tolist()]
        [0.0, 0.135, 1.0, 0.135]

    Returns:
        Shape (tile,), float32. The smallest value is about exp(-8), at the first voxel.
    """
    distance = torch.arange(tile) - tile // 2
    return torch.exp(-0.5 * (distance / (tile / 8)) ** 2)


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
    shares: Tensor
    source: slice
    source_order: Tensor | None = None


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

    def extract(self, volume: Tensor) -> Tensor:
        """Returns the patch (c, *patch) of an image (c, z, y, x) from which the tile is predicted."""
        patch = volume[self.source]
        for number, axis in enumerate(self.axes, start=1):
            if axis.source_order is not None:
                patch = patch.index_select(number, axis.source_order.to(patch.device))
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
    def shares(self) -> Tensor:
        """The weight of the tile in the result at each voxel, of the shape of the tile."""
        z, y, x = (axis.shares for axis in self.axes)
        return z[:, None, None] * y[:, None] * x


def axis_tiles(size: int, tile: int) -> list[AxisTile]:
    """Returns the tiles along an axis, with shares that follow from their Gaussian weights.

    The tiles of an image are the product of those along its axes, and so are the weights. Hence the division by the
    sum of the weights can be done here, axis by axis, and no volume of weights is needed.
    """
    return [AxisTile(region, shares, region) for region, shares in _compute_shares(tile_starts(size, tile), tile)]


def _compute_shares(starts: Sequence[int], tile: int) -> list[tuple[slice, Tensor]]:
    """Returns the regions of tiles, the first of which starts at 0, and the weight of each in the result."""
    weights = gaussian_weights(tile)
    regions = [slice(start, start + tile) for start in starts]
    total = torch.zeros(starts[-1] + tile)
    for region in regions:
        total[region] += weights
    return [(region, weights / total[region]) for region in regions]


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
        source_order = None if is_in_order else torch.from_numpy(voxels - first)
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

    volume: Tensor
    tiles: list[Tile]
    shape: tuple[int, ...]
    inside: Slices


def tile_image(image: Tensor, patch_size: tuple[int, ...], patches: PatchSizes | None = None) -> TiledImage:
    """Divides an image (c, z, y, x) into tiles; for the other arguments see `predict_volume`.

    The weighted sum of the tiles is the image again.

    Example:
        >>> image = torch.arange(10.0).reshape(1, 1, 1, 10)
        >>> tiled = tile_image(image, (1, 1, 4))
        >>> [(tile.region[-1].start, tile.region[-1].stop) for tile in tiled.tiles]
        [(0, 4), (2, 6), (4, 8), (6, 10)]
        >>> assembled = torch.zeros(1, *tiled.shape)
        >>> for tile in tiled.tiles:
        ...     assembled[tile.region] += tile.shares * tile.extract(tiled.volume)
        >>> torch.allclose(assembled, image)
        True
    """
    flat = (1,) * (3 - len(patch_size))
    size = (*flat, *patch_size)
    if patches is None or not patches.has_margin:
        volume, inside = pad_to_size(image, size)
        tiles = [Tile(axes) for axes in product(*map(axis_tiles, volume.shape[1:], size))]
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
        tiles=[Tile(axes) for axes in product(*(tiles for tiles, _ in per_axis))],
        shape=tuple(tiles[-1].region.stop for tiles, _ in per_axis),
        inside=tuple(bounds for _, bounds in per_axis),
    )


def pad_to_size(image: Tensor, size: Sequence[int]) -> tuple[Tensor, Slices]:
    """Pads an image with zeros, evenly on both sides, or with one more after it than before it.

    Source: the reference method.

    Args:
        image: Shape (c, z, y, x).
        size: The size (z, y, x) that the image has at least afterwards.

    Returns:
        The padded image, and where in it the image is.
    """
    missing = [max(0, wanted - length) for wanted, length in zip(size, image.shape[1:], strict=True)]
    before = [voxels // 2 for voxels in missing]
    widths = [(first, voxels - first) for first, voxels in zip(before, missing, strict=True)]
    inside = tuple(slice(first, first + length) for first, length in zip(before, image.shape[1:], strict=True))
    return F.pad(image, [width for axis in reversed(widths) for width in axis]), inside
