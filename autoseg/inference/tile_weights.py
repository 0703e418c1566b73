"""The weights of tiles in the result, on the device that adds the tiles up."""

import torch
from torch import Tensor

from autoseg.inference.tiling import AxisTile, Slices, Tile
from autoseg.runtime.device import copy_to


class TileWeights:
    """Calculates the weights of the tiles of one image on a device.

    Only the weights along the axes are copied there, once for each place along an axis; a volume of weights is their
    product.

    Example:
        >>> from autoseg.inference.tiling import tile_image
        >>> [tile] = tile_image(torch.zeros(1, 1, 1, 4), (1, 1, 4)).tiles
        >>> TileWeights(torch.device("cpu"))(tile).tolist()
        [[[1.0, 1.0, 1.0, 1.0]]]
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copied: dict[int, tuple[AxisTile, Tensor]] = {}  # with the tile, so that its id is not given away again

    def __call__(self, tile: Tile) -> Tensor:
        """Returns `tile.shares` on the device."""
        z, y, x = (self._copy(axis) for axis in tile.axes)
        return z[:, None, None] * y[:, None] * x

    def inside(self, tile: Tile, image: Slices) -> Tensor:
        """Returns the weights with 0 outside the image.

        Args:
            tile: The tile.
            image: Where the image is among the regions of the tiles, (z, y, x).
        """
        weights = self(tile)
        _, part = tile.clip(image)
        kept = torch.zeros_like(weights)
        kept[part] = weights[part]
        return kept

    def _copy(self, axis: AxisTile) -> Tensor:
        if axis.shares.device == self._device:
            return axis.shares
        if id(axis) not in self._copied:
            self._copied[id(axis)] = axis, copy_to(axis.shares, self._device)
        return self._copied[id(axis)][1]
