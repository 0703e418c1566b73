"""Sliding-window inference: the logits of an image of any size, from a network that predicts tiles."""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ModelError
from autoseg.inference.accumulation import allocate_logits
from autoseg.inference.axis_tiling import OVERLAP_STEP
from autoseg.inference.predictor import Predictor
from autoseg.inference.tile_weights import TileWeights
from autoseg.inference.tiling import Tile, TiledImage, group_identical, tile_image
from autoseg.networks.patch_sizes import PatchSizes
from autoseg.runtime.arrays import Array, Arrays, Device, arrays_on, as_numpy, device_of

OnProgress = Callable[[float], None]


def ignore_progress(share: float) -> None:
    """Ignores progress, for callers who show none."""


def predict_volume(  # noqa: PLR0913 - three of them are mostly left out
    image: Array,
    predictor: Predictor,
    *,
    patch_size: tuple[int, ...],
    batch_size: int,
    device: Device,
    patches: PatchSizes | None = None,
    neighbours: int = 0,
    overlap_step: float = OVERLAP_STEP,
    on_progress: OnProgress = ignore_progress,
) -> Array:
    """Predicts the logits of a whole image.

    An image that is smaller than a tile along some axis is padded with zeros, half on each side, as the reference
    method does; with its mirror image, if the network has a margin. Only the result and two batches of tiles are in
    memory. Of all tiles that hold the same constant value everywhere, such as air that was clipped, only the first is
    predicted: the logits of the others would be the same.

    Example:
        >>> from autoseg.inference.predictor import FunctionPredictor
        >>> from autoseg.runtime.arrays import NumpyDevice
        >>> image = np.arange(10, dtype=np.float32).reshape(1, 1, 1, 10)
        >>> double = FunctionPredictor(lambda patches: 2 * patches)
        >>> logits = predict_volume(image, double, patch_size=(1, 1, 4), batch_size=2, device=NumpyDevice())
        >>> bool(np.allclose(logits, 2 * image))
        True

    Args:
        image: Shape (c, z, y, x), float32, in the memory of the CPU.
        predictor: Maps patches (n, c, *patch_size) to logits (n, classes, *patch_size), or (n, classes, *centre) with a
            margin; the logits of a patch do not depend on the others of its batch. It is told where each patch lies.
        patch_size: Size of a patch in voxels. Two values mean a 2D network: every slice along z is predicted on its
            own, or with its neighbours.
        batch_size: Number of tiles that are predicted at once.
        device: Device to which patches are sent.
        patches: Patch sizes and margin of the network; left out, it has no margin.
        neighbours: Number of slices on each side of a slice that a 2D network sees as further channels.
        overlap_step: Largest distance of neighbouring tiles, as a fraction of a tile; see `tile_starts`.
        on_progress: Called after each batch with its share of all tiles.

    Returns:
        Logits (outputs, z, y, x), float32 or float16, on a device with memory for them; see `accumulation`.

    Raises:
        ModelError: The predictor returned infinite values or NaN.
        AutosegError: Neither memory nor disk hold the result.
    """
    tiled = tile_image(as_numpy(image), patch_size, patches, neighbours, overlap_step)
    return predict_tiles(
        tiled, predictor, patch_size=patch_size, batch_size=batch_size, device=device, on_progress=on_progress
    )


def predict_tiles(
    tiled: TiledImage,
    predictor: Predictor,
    *,
    patch_size: tuple[int, ...],
    batch_size: int,
    device: Device,
    on_progress: OnProgress = ignore_progress,
) -> Array:
    """Predicts the logits of an image that is divided into tiles; for the other arguments and errors see above.

    Args:
        tiled: The tiles, all of the image or some; see `TiledImage.only`.
        predictor: See above.
        patch_size: See above.
        batch_size: See above.
        device: See above.
        on_progress: See above.

    Returns:
        Logits (outputs, z, y, x) of the whole image, zeros where none are wanted.
    """
    is_flat, arrays = len(patch_size) == 2, arrays_on(device)
    groups = group_identical(tiled.volume, tiled.tiles)
    predictor.begin_image(tiled.shape, tiled.inside, tiled.wanted)
    result: Array | None = None
    wanted: Array | None = None  # the part of the result to which tiles are added
    weights = TileWeights(device)
    check = _FiniteCheck(arrays, device)
    for batch, inputs in _copy_batches(groups, tiled.volume, batch_size, arrays):
        logits = predictor(inputs.reshape(len(inputs), -1, *patch_size))[:, :, None] if is_flat else predictor(inputs)
        check.add(logits)
        logits = arrays.separate_maps(logits)  # to which those of other tiles are added
        if result is None or wanted is None:
            result = allocate_logits((logits.shape[1], *tiled.image_shape), device)
            wanted = result[(slice(None), *tiled.wanted_in_image)]
            weights = TileWeights(device_of(result))
        for number, (group, prediction) in enumerate(zip(batch, logits, strict=True)):
            for tile in group:
                region, part = tile.clip(tiled.wanted)
                arrays.add_weighted(
                    wanted[(slice(None), *region)], prediction[(slice(None), *part)], weights(tile)[part]
                )
            predictor.locate_patch(number, group)
        del logits, prediction  # before those of the next batch are calculated
        on_progress(sum(map(len, batch)) / len(tiled.tiles))
    check.finish()
    if result is None:
        raise ValueError(f"an image of shape {tiled.image_shape} has no voxels")
    return result


def _copy_batches(
    groups: Sequence[list[Tile]], volume: NDArray[np.float32], batch_size: int, arrays: Arrays
) -> Iterator[tuple[Sequence[list[Tile]], Array]]:
    """Yields batches of tiles and their patches (n, c, *patch) on the device, to which the next are being copied."""
    ahead: tuple[Sequence[list[Tile]], Callable[[], Array]] | None = None
    for start in range(0, len(groups), batch_size):
        batch = groups[start : start + batch_size]
        finish = arrays.start_copy(np.stack([group[0].extract(volume) for group in batch]))
        if ahead is not None:
            yield ahead[0], ahead[1]()
        ahead = batch, finish
    if ahead is not None:
        yield ahead[0], ahead[1]()


class _FiniteCheck:
    """Refuses logits that are infinite or NaN: on a CUDA GPU a batch later, while the GPU calculates the next.

    Decision: waiting for each batch would leave the GPU idle while the CPU adds up its tiles and cuts out the next
    ones. Waiting for the batch before keeps at most two in the queue, so that the progress bar stays true and little
    memory is taken by tiles that wait.
    """

    def __init__(self, arrays: Arrays, device: Device) -> None:
        self._arrays, self._waiting = arrays, 1 if device.type == "cuda" else 0
        self._totals: list[Callable[[], float]] = []  # of the batches that were not checked yet

    def add(self, logits: Array) -> None:
        """Checks the logits, or those of the batch before."""
        self._totals.append(self._arrays.read_sum(logits))  # one bad value spoils the sum, which is quick to compute
        self._check(self._waiting)

    def finish(self) -> None:
        """Checks what was not checked yet."""
        self._check(0)

    def _check(self, left: int) -> None:
        """Checks the oldest batches until some are left."""
        while len(self._totals) > left:
            if not isfinite(self._totals.pop(0)()):
                raise ModelError(
                    "the network returned infinite values or NaN for a part of the image",
                    "look for extreme intensities in the image, or train the model again with a lower learning rate",
                )
