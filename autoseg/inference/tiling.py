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
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Box
from autoseg.imaging.zero_padding import pad_to_size
from autoseg.inference.axis_tiling import OVERLAP_STEP, AxisTile, add_neighbours, axis_tiles, mirrored_tiles
from autoseg.networks.patch_sizes import PatchSizes

Slices = tuple[slice, ...]
Image = NDArray[np.float32]


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

    def meets(self, part: Slices) -> bool:
        """Returns whether the tile has voxels in a part of the regions of all tiles, (z, y, x)."""
        axes = zip(self.axes, part, strict=True)
        return all(tile.region.start < wanted.stop and wanted.start < tile.region.stop for tile, wanted in axes)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledImage:
    """An image that is divided into tiles.

    Attributes:
        volume: The image from which patches are taken, padded if it was smaller than a tile, (c, z, y, x).
        tiles: All tiles.
        shape: Shape (z, y, x) of the regions of all tiles of the image together.
        inside: Where in that the image is.
        wanted: Where in that voxels are predicted; all of the image, unless `only` left out some.
    """

    volume: Image
    tiles: list[Tile]
    shape: tuple[int, ...]
    inside: Slices
    wanted: Slices

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape (z, y, x) of the image."""
        return tuple(axis.stop - axis.start for axis in self.inside)

    @property
    def wanted_in_image(self) -> Slices:
        """Where in the image voxels are predicted, (z, y, x)."""
        axes = zip(self.wanted, self.inside, strict=True)
        return tuple(slice(wanted.start - image.start, wanted.stop - image.start) for wanted, image in axes)

    def only(self, box: Box) -> Self:
        """Returns those tiles of the image that any voxel of a box depends on.

        They lie where they lie among all tiles of the image, and each voxel of the box has all of its tiles. So it is
        predicted as it is with all of them.

        Example:
            >>> image = np.zeros((1, 1, 1, 10), dtype=np.float32)
            >>> some = tile_image(image, (1, 1, 4)).only(Box(start=(0, 0, 0), stop=(1, 1, 3)))
            >>> [(tile.region[-1].start, tile.region[-1].stop) for tile in some.tiles], some.wanted_in_image[-1]
            ([(0, 4), (2, 6)], slice(0, 3, None))

        Args:
            box: Voxels of the image, (z, y, x).
        """
        wanted = tuple(
            slice(image.start + start, image.start + stop)
            for image, start, stop in zip(self.inside, box.start, box.stop, strict=True)
        )
        tiles = [tile for tile in self.tiles if tile.meets(wanted)]
        return replace(self, tiles=tiles, wanted=wanted)


def tile_image(
    image: Image,
    patch_size: tuple[int, ...],
    patches: PatchSizes | None = None,
    neighbours: int = 0,
    overlap_step: float = OVERLAP_STEP,
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
        along_z, *in_plane = (
            axis_tiles(length, tile, overlap_step) for length, tile in zip(volume.shape[1:], size, strict=True)
        )
        tiles = [Tile(axes) for axes in product(add_neighbours(along_z, neighbours), *in_plane)]
        return TiledImage(volume=volume, tiles=tiles, shape=tuple(volume.shape[1:]), inside=inside, wanted=inside)
    arguments = zip(
        image.shape[1:],
        (*flat, *patches.centre(patch_size)),
        (*flat, *patches.step),
        (*(0 for _ in flat), *patches.margin),
        strict=True,
    )
    per_axis = [mirrored_tiles(*of_axis) for of_axis in arguments]
    bounds = tuple(bounds for _, bounds in per_axis)
    return TiledImage(
        volume=image,
        tiles=[
            Tile(axes) for axes in product(add_neighbours(per_axis[0][0], neighbours), *(t for t, _ in per_axis[1:]))
        ],
        shape=tuple(tiles[-1].region.stop for tiles, _ in per_axis),
        inside=bounds,
        wanted=bounds,
    )


def group_identical(volume: Image, tiles: Sequence[Tile]) -> list[list[Tile]]:
    """Groups tiles with the same constant value in each channel; every other tile is a group of its own."""
    groups: list[list[Tile]] = []
    constant: dict[tuple[float, ...], list[Tile]] = {}
    for tile in tiles:
        values = _constant_values(volume[tile.source])
        if values is not None and values in constant:
            constant[values].append(tile)
            continue
        groups.append([tile])
        if values is not None:
            constant[values] = groups[-1]
    return groups


def _constant_values(patch: Image) -> tuple[float, ...] | None:
    """Returns the constant value of each channel, or None if one is not constant, which mostly its corners show."""
    first = patch[:, :1, :1, :1]
    if not np.array_equal(patch[:, -1:, -1:, -1:], first) or not bool((patch == first).all()):
        return None
    return tuple(first.flatten().tolist())
