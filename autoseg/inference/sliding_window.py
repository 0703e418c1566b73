"""Predicts an image of any size in overlapping tiles of the size that the network was trained on.

Example, along an axis of 10 voxels with tiles of 4: neighbours start at most 4 * 0.5 = 2 voxels apart, so four tiles
start at 0, 2, 4 and 6. With 9 voxels the last one must start at 5, and the others spread evenly: 0, 1.67, 3.33 and 5,
rounded to 0, 2, 3 and 5.

    voxel   0 1 2 3 4 5 6 7 8 9
    tile 0  # # # #
    tile 1      # # # #
    tile 2          # # # #
    tile 3              # # # #

A tile knows little of what lies beyond its border, so where tiles overlap each counts by how near its centre is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from numpy.typing import NDArray
from torch import Tensor

from autoseg.errors import ModelError
from autoseg.inference.accumulation import add_weighted, make_room
from autoseg.inference.agreement import Poll
from autoseg.inference.predictor import Predictor

OVERLAP_STEP = 0.5
"""Largest distance of neighbouring tiles, as a fraction of a tile. Source: the reference method."""

Slices = tuple[slice, ...]
OnProgress = Callable[[float], None]


def ignore_progress(share: float) -> None:
    """Nobody watches."""


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
    """

    place: slice
    shares: Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of an image of shape (c, z, y, x)."""

    along: tuple[AxisTile, ...]

    @property
    def place(self) -> Slices:
        """Its voxels, in all channels."""
        return (slice(None), *(axis.place for axis in self.along))

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
    weights = gaussian_weights(tile)
    places = [slice(start, start + tile) for start in tile_starts(size, tile)]
    total = torch.zeros(size)
    for place in places:
        total[place] += weights
    return [AxisTile(place, weights / total[place]) for place in places]


def predict_volume(
    image: Tensor | NDArray[np.float32],
    predictor: Predictor,
    *,
    patch_size: tuple[int, ...],
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress = ignore_progress,
) -> Tensor:
    """Predicts the logits of a whole image.

    An image that is smaller than a tile along some axis is padded with zeros, half on each side, as the reference
    method does. Only the result and one batch of tiles are in memory. Of all tiles that hold one value everywhere, such
    as air that was clipped, and the same, only the first is predicted: the logits of the others would be the same.

    Args:
        image: Shape (c, z, y, x), float32.
        predictor: Maps patches (n, c, *patch_size) to logits (n, classes, *patch_size), each by itself. A `Poll` is
            told where they lie.
        patch_size: Of a tile. Two values mean a 2D network: every slice along z is predicted on its own.
        batch_size: Tiles that are predicted at once.
        device: Where patches are sent.
        on_progress: Called after each batch with the share of all tiles that it held.

    Returns:
        Logits (outputs, z, y, x), float32 or float16, where there is room for them; see `accumulation`.

    Raises:
        ModelError: The predictor returned infinite values or NaN.
        AutosegError: Neither memory nor disk hold the result.
    """
    is_flat = len(patch_size) == 2
    size = (1, *patch_size) if is_flat else patch_size
    volume, inside = pad_nd_image(_as_tensor(image), size, "constant", {"value": 0}, return_slicer=True)
    tiles = [Tile(along) for along in product(*map(axis_tiles, volume.shape[1:], size))]
    groups = _group_alike(volume, tiles)
    poll = predictor if isinstance(predictor, Poll) else None
    if poll is not None:
        poll.begin(volume.shape[1:], inside[1:])
    result: Tensor | None = None
    for start in range(0, len(groups), batch_size):
        batch = groups[start : start + batch_size]
        patches = torch.stack([volume[group[0].place] for group in batch]).to(device)
        logits = predictor(patches.squeeze(2)).unsqueeze(2) if is_flat else predictor(patches)
        _check_finite(logits)
        logits = logits.contiguous()  # a map for each class, to which those of other tiles are added
        if result is None:
            result = make_room((logits.shape[1], *volume.shape[1:]), device)
        for number, (group, prediction) in enumerate(zip(batch, logits, strict=True)):
            for tile in group:
                add_weighted(result[tile.place], prediction, tile.shares)
            if poll is not None:
                poll.count(number, [tile.place[1:] for tile in group], [tile.shares for tile in group])
        on_progress(sum(map(len, batch)) / len(tiles))
    if result is None:
        raise ValueError(f"an image of shape {tuple(image.shape)} has no voxels")
    return result[(slice(None), *inside[1:])].contiguous()  # as many classes as there are, not channels


def _group_alike(volume: Tensor, tiles: Sequence[Tile]) -> list[list[Tile]]:
    """Tiles that look the same: those that hold one value in each channel, and the same. All others stand alone."""
    groups: list[list[Tile]] = []
    plain: dict[tuple[float, ...], list[Tile]] = {}
    for tile in tiles:
        values = _plain_values(volume[tile.place])
        if values is not None and values in plain:
            plain[values].append(tile)
            continue
        groups.append([tile])
        if values is not None:
            plain[values] = groups[-1]
    return groups


def _plain_values(patch: Tensor) -> tuple[float, ...] | None:
    """The one value that each channel has, or None if one has several, which mostly its corners show."""
    first = patch[:, :1, :1, :1]
    if not patch[:, -1:, -1:, -1:].equal(first) or not bool((patch == first).all()):
        return None
    return tuple(first.flatten().tolist())


def _as_tensor(image: Tensor | NDArray[np.float32]) -> Tensor:
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.require(image, np.float32, ["C", "W"]))  # torch refuses read-only and reversed arrays


def _check_finite(logits: Tensor) -> None:
    if not torch.isfinite(logits.sum(dtype=torch.float32)):  # which one bad value spoils, in a fraction of the time
        raise ModelError(
            "the network returned infinite values or NaN for a part of the image",
            "look for extreme intensities in the image, or train the model again with a lower learning rate",
        )
