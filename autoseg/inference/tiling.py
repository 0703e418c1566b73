"""How an image is taken apart into tiles of the size that the network predicts.

Example, along an axis of 10 voxels with tiles of 4: neighbours start at most 4 * 0.5 = 2 voxels apart, so four tiles
start at 0, 2, 4 and 6. With 9 voxels the last one must start at 5, and the others spread evenly: 0, 1.67, 3.33 and 5,
rounded to 0, 2, 3 and 5.

    voxel   0 1 2 3 4 5 6 7 8 9
    tile 0  # # # #
    tile 1      # # # #
    tile 2          # # # #
    tile 3              # # # #

A tile knows little of what lies beyond its border, so where tiles overlap each counts by how near its centre is.

A network that predicts less than it sees (see `networks.patches`) knows what lies beyond. Its tiles have the size of
its logits, and each is predicted from a patch that reaches further by the margin; beyond the border of the image its
mirror image is seen. The voxels of two tiles meet the same voxels at all resolutions if the tiles are as far apart as
the network's step, or several times that. Then both predict the same, up to rounding, and the tiles together are what
one pass over the whole image would be; so they need not overlap but to keep to that step. Source: Ronneberger et al.
2015, "U-Net", figure 2. Example, with tiles of 12, a step of 8 and a margin of 1: an axis of 18 voxels has tiles that
start at -1 and 7, and stick out by one voxel on both sides.

    place          -2 -1  0 ...  6  7 ... 10 11 ... 18 19
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
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor

from autoseg.imaging.mirror_padding import mirror_indices
from autoseg.networks.patch_sizes import PatchSizes

OVERLAP_STEP = 0.5
"""Largest distance of neighbouring tiles, as a fraction of a tile. Source: the reference method."""

Slices = tuple[slice, ...]


def tile_starts(size: int, tile: int, overlap_step: float = OVERLAP_STEP) -> list[int]:
    """Where tiles start along an axis: the first at 0, the last flush with the end, the others spread evenly.

    Source: the reference method; the module's text has an example.

    Args:
        size: Voxels along the axis, at least `tile`.
        tile: Voxels of a tile.
        overlap_step: Largest distance of neighbouring starts, as a fraction of a tile; at least one voxel is taken.
    """
    if size < tile:
        raise ValueError(f"an axis of {size} voxels has no room for a tile of {tile}; pad it first")
    last = size - tile
    count = ceil(last / max(1, tile * overlap_step)) + 1
    return [round(last * number / (count - 1)) for number in range(count)] if count > 1 else [0]


def gaussian_weights(tile: int) -> Tensor:
    """How much the voxels of a tile count along one axis: 1 at the centre, voxel `tile // 2`, and less outwards.

    The weight of a voxel is the product over its axes. Source: the reference method: a Gaussian whose standard
    deviation is an eighth of the tile. Its map peaks at 10 rather than at 1, which cancels in a weighted mean.

    Returns:
        Shape (tile,), float32. The smallest value is about exp(-8), at the first voxel.
    """
    distance = torch.arange(tile) - tile // 2
    return torch.exp(-0.5 * (distance / (tile / 8)) ** 2)


@dataclass(frozen=True, slots=True)
class AxisTile:
    """One tile along one axis.

    Attributes:
        place: Its voxels.
        shares: Its part in the result at each of them, shape (tile,); over the tiles of an axis they add up to 1.
        seen: Voxels of the image from which it is predicted.
        order: Which of these are seen one after the other, where the image is mirrored; None if just as they are.
    """

    place: slice
    shares: Tensor
    seen: slice
    order: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of an image of shape (c, z, y, x)."""

    along: tuple[AxisTile, ...]

    @property
    def place(self) -> Slices:
        """Its voxels, in all channels."""
        return (slice(None), *(axis.place for axis in self.along))

    @property
    def seen(self) -> Slices:
        """The voxels of the image from which it is predicted, in all channels."""
        return (slice(None), *(axis.seen for axis in self.along))

    def look(self, volume: Tensor) -> Tensor:
        """The patch (c, *patch) of an image (c, z, y, x) from which it is predicted."""
        patch = volume[self.seen]
        for number, axis in enumerate(self.along, start=1):
            patch = patch if axis.order is None else patch.index_select(number, axis.order.to(patch.device))
        return patch

    def clip(self, inside: Slices) -> tuple[Slices, Slices]:
        """Where it lies in an image, and the part of it that does; `inside` says where the image is, (z, y, x)."""
        ends = [
            (max(axis.place.start, image.start), min(axis.place.stop, image.stop))
            for axis, image in zip(self.along, inside, strict=True)
        ]
        place = tuple(slice(a - image.start, b - image.start) for (a, b), image in zip(ends, inside, strict=True))
        part = tuple(
            slice(a - axis.place.start, b - axis.place.start) for (a, b), axis in zip(ends, self.along, strict=True)
        )
        return place, part

    @property
    def shares(self) -> Tensor:
        """Its part in the result at each voxel, of the shape of the tile."""
        z, y, x = (axis.shares for axis in self.along)
        return z[:, None, None] * y[:, None] * x


def axis_tiles(size: int, tile: int) -> list[AxisTile]:
    """Tiles along an axis, with shares that follow from their Gaussian weights.

    The tiles of an image are the product of those along its axes, and so are the weights. Hence the division by the
    sum of the weights can be done here, axis by axis, and no volume of weights is needed.
    """
    return [AxisTile(place, shares, place) for place, shares in _share_out(tile_starts(size, tile), tile)]


def _share_out(starts: Sequence[int], tile: int) -> list[tuple[slice, Tensor]]:
    """Places of tiles that start at 0 and further on, and the part of each in the result."""
    weights = gaussian_weights(tile)
    places = [slice(start, start + tile) for start in starts]
    total = torch.zeros(starts[-1] + tile)
    for place in places:
        total[place] += weights
    return [(place, weights / total[place]) for place in places]


def aligned_starts(size: int, tile: int, step: int) -> list[int]:
    """Where tiles start along an axis that they may stick out of: at multiples of a step, as few as cover the axis.

    Where a tile is shorter than the step, this would leave gaps: then as `tile_starts` says.

    Args:
        size: Voxels along the axis.
        tile: Voxels of a tile.
        step: See `Patches`.
    """
    if tile < step:
        return tile_starts(max(size, tile), tile)
    last = ceil(max(0, size - tile) / step)
    count = ceil(last / (tile // step)) + 1
    return [round(last * number / (count - 1)) * step for number in range(count)] if count > 1 else [0]


def mirrored_tiles(size: int, tile: int, step: int, margin: int) -> tuple[list[AxisTile], slice]:
    """Tiles along an axis, of a network that sees a margin around each; see the top of the module.

    Returns:
        The tiles, which may reach beyond the axis, half on each side; and where among their places the axis is.
    """
    starts = aligned_starts(size, tile, step)
    before = (starts[-1] + tile - size) // 2
    tiles = []
    for place, shares in _share_out(starts, tile):
        voxels = mirror_indices(place.start - before - margin, tile + 2 * margin, size)
        first, last = int(voxels.min()), int(voxels.max())
        plain = np.array_equal(voxels, np.arange(first, last + 1))
        order = None if plain else torch.from_numpy(voxels - first)
        tiles.append(AxisTile(place, shares, slice(first, last + 1), order))
    return tiles, slice(before, before + size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How an image is taken apart.

    Attributes:
        volume: What tiles look at, (c, z, y, x).
        tiles: All of them.
        shape: Of what they predict together, (z, y, x).
        inside: Where in that the image is.
    """

    volume: Tensor
    tiles: list[Tile]
    shape: tuple[int, ...]
    inside: Slices


def lay_out(image: Tensor, patch_size: tuple[int, ...], patches: PatchSizes | None = None) -> Layout:
    """Takes an image (c, z, y, x) apart into tiles; for the other arguments see `predict_volume`."""
    flat = (1,) * (3 - len(patch_size))
    size = (*flat, *patch_size)
    if patches is None or not patches.has_margin:
        volume, inside = pad_nd_image(image, size, "constant", {"value": 0}, return_slicer=True)
        tiles = [Tile(along) for along in product(*map(axis_tiles, volume.shape[1:], size))]
        shape = tuple(volume.shape[1:])
        whole = tuple(slice(*part.indices(length)) for part, length in zip(inside[1:], shape, strict=True))
        return Layout(volume=volume, tiles=tiles, shape=shape, inside=whole)
    axes = zip(
        image.shape[1:],
        (*flat, *patches.centre(patch_size)),
        (*flat, *patches.step),
        (*(0 for _ in flat), *patches.margin),
        strict=True,
    )
    lines = [mirrored_tiles(*axis) for axis in axes]
    return Layout(
        volume=image,
        tiles=[Tile(along) for along in product(*(line for line, _ in lines))],
        shape=tuple(line[-1].place.stop for line, _ in lines),
        inside=tuple(where for _, where in lines),
    )
