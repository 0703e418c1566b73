"""The weights of tiles in the result, on the device that adds the tiles up."""

from autoseg.inference.axis_tiling import AxisTile
from autoseg.inference.tiling import Slices, Tile
from autoseg.runtime.arrays import Array, Device, arrays_on, namespace


class TileWeights:
    """Calculates the weights of the tiles of one image on a device.

    Only the weights along the axes are copied there, once for each place along an axis; a volume of weights is their
    product.

    Example:
        >>> from autoseg.inference.tiling import tile_image
        >>> import numpy as np
        >>> from autoseg.runtime.arrays import NumpyDevice
        >>> [tile] = tile_image(np.zeros((1, 1, 1, 4)), (1, 1, 4)).tiles
        >>> TileWeights(NumpyDevice())(tile).tolist()
        [[[1.0, 1.0, 1.0, 1.0]]]
    """

    def __init__(self, device: Device) -> None:
        self._arrays = arrays_on(device)
        self._copied: dict[int, tuple[AxisTile, Array]] = {}  # with the tile, so that its id is not given away again

    def __call__(self, tile: Tile) -> Array:
        """Returns `tile.shares` on the device."""
        z, y, x = (self._copy(axis) for axis in tile.axes)
        return z[:, None, None] * y[:, None] * x

    def inside(self, tile: Tile, image: Slices) -> Array:
        """Returns the weights with 0 outside the image.

        Args:
            tile: The tile.
            image: Where the image is among the regions of the tiles, (z, y, x).
        """
        weights = self(tile)
        _, part = tile.clip(image)
        kept = namespace(weights).zeros_like(weights)
        kept[part] = weights[part]
        return kept

    def _copy(self, axis: AxisTile) -> Array:
        if id(axis) not in self._copied:
            self._copied[id(axis)] = axis, self._arrays.copy(axis.shares)
        return self._copied[id(axis)][1]
