"""Sliding-window inference: the logits of an image of any size, from a network that predicts tiles."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.errors import ModelError
from autoseg.inference.accumulation import add_weighted, allocate_logits
from autoseg.inference.predictor import Predictor
from autoseg.inference.tile_weights import TileWeights
from autoseg.inference.tiling import Tile, tile_image
from autoseg.networks.patch_sizes import PatchSizes
from autoseg.runtime.copy_ahead import CopyAhead, copy_ahead
from autoseg.runtime.deferred_read import read_later

OnProgress = Callable[[float], None]


def ignore_progress(share: float) -> None:
    """Ignores progress, for callers who show none."""


def predict_volume(  # noqa: PLR0913 - two of them are mostly left out
    image: Tensor | NDArray[np.float32],
    predictor: Predictor,
    *,
    patch_size: tuple[int, ...],
    batch_size: int,
    device: torch.device,
    patches: PatchSizes | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Tensor:
    """Predicts the logits of a whole image.

    An image that is smaller than a tile along some axis is padded with zeros, half on each side, as the reference
    method does; with its mirror image, if the network has a margin. Only the result and two batches of tiles are in
    memory. Of all tiles that hold the same constant value everywhere, such as air that was clipped, only the first is
    predicted: the logits of the others would be the same.

    Example:
        >>> from autoseg.inference.predictor import FunctionPredictor
        >>> image = torch.arange(10.0).reshape(1, 1, 1, 10)
        >>> double = FunctionPredictor(lambda patches: 2 * patches)
        >>> logits = predict_volume(image, double, patch_size=(1, 1, 4), batch_size=2, device=torch.device("cpu"))
        >>> torch.allclose(logits, 2 * image)
        True

    Args:
        image: Shape (c, z, y, x), float32.
        predictor: Maps patches (n, c, *patch_size) to logits (n, classes, *patch_size), or (n, classes, *centre) with a
            margin; the logits of a patch do not depend on the others of its batch. It is told where each patch lies.
        patch_size: Size of a patch in voxels. Two values mean a 2D network: every slice along z is predicted on its
            own.
        batch_size: Number of tiles that are predicted at once.
        device: Device to which patches are sent.
        patches: Patch sizes and margin of the network; left out, it has no margin.
        on_progress: Called after each batch with its share of all tiles.

    Returns:
        Logits (outputs, z, y, x), float32 or float16, on a device with memory for them; see `accumulation`.

    Raises:
        ModelError: The predictor returned infinite values or NaN.
        AutosegError: Neither memory nor disk hold the result.
    """
    is_flat = len(patch_size) == 2
    tiled = tile_image(_as_tensor(image), patch_size, patches)
    groups = _group_identical(tiled.volume, tiled.tiles)
    predictor.begin_image(tiled.shape, tiled.inside)
    result: Tensor | None = None
    weights = TileWeights(device)
    check = _FiniteCheck()
    for batch, inputs in _copy_batches(groups, tiled.volume, batch_size, device):
        logits = predictor(inputs.squeeze(2)).unsqueeze(2) if is_flat else predictor(inputs)
        check.add(logits)
        logits = logits.contiguous()  # a map for each class, to which those of other tiles are added
        if result is None:
            result = allocate_logits((logits.shape[1], *image.shape[1:]), device)
            weights = TileWeights(result.device)
        for number, (group, prediction) in enumerate(zip(batch, logits, strict=True)):
            for tile in group:
                region, part = tile.clip(tiled.inside)
                add_weighted(result[(slice(None), *region)], prediction[(slice(None), *part)], weights(tile)[part])
            predictor.locate_patch(number, group)
        on_progress(sum(map(len, batch)) / len(tiled.tiles))
    check.finish()
    if result is None:
        raise ValueError(f"an image of shape {tuple(image.shape)} has no voxels")
    return result


def _copy_batches(
    groups: Sequence[list[Tile]], volume: Tensor, batch_size: int, device: torch.device
) -> Iterator[tuple[Sequence[list[Tile]], Tensor]]:
    """Yields batches of tiles and their patches (n, c, *patch) on the device, to which the next are being copied."""
    ahead: tuple[Sequence[list[Tile]], CopyAhead[Tensor]] | None = None
    for start in range(0, len(groups), batch_size):
        batch = groups[start : start + batch_size]
        patches = copy_ahead(torch.stack([group[0].extract(volume) for group in batch]), device).start()
        if ahead is not None:
            yield ahead[0], ahead[1].finish().to(device)
        ahead = batch, patches
    if ahead is not None:
        yield ahead[0], ahead[1].finish().to(device)


def _group_identical(volume: Tensor, tiles: Sequence[Tile]) -> list[list[Tile]]:
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


def _constant_values(patch: Tensor) -> tuple[float, ...] | None:
    """Returns the constant value of each channel, or None if one is not constant, which mostly its corners show."""
    first = patch[:, :1, :1, :1]
    if not patch[:, -1:, -1:, -1:].equal(first) or not bool((patch == first).all()):
        return None
    return tuple(first.flatten().tolist())


def _as_tensor(image: Tensor | NDArray[np.float32]) -> Tensor:
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.require(image, np.float32, ["C", "W"]))  # torch refuses read-only and reversed arrays


class _FiniteCheck:
    """Refuses logits that are infinite or NaN: on a CUDA GPU a batch later, while the GPU calculates the next.

    Decision: waiting for each batch would leave the GPU idle while the CPU adds up its tiles and cuts out the next
    ones. Waiting for the batch before keeps at most two in the queue, so that the progress bar stays true and little
    memory is taken by tiles that wait.
    """

    def __init__(self) -> None:
        self._totals: list[Callable[[], Tensor]] = []  # of the batches that were not checked yet

    def add(self, logits: Tensor) -> None:
        """Checks the logits, or those of the batch before."""
        total = logits.sum(dtype=torch.float32)  # one bad value spoils the sum, which is quick to compute
        self._totals.append(read_later(total))
        self._check(1 if logits.device.type == "cuda" else 0)

    def finish(self) -> None:
        """Checks what was not checked yet."""
        self._check(0)

    def _check(self, left: int) -> None:
        """Checks the oldest batches until some are left."""
        while len(self._totals) > left:
            if not torch.isfinite(self._totals.pop(0)()):
                raise ModelError(
                    "the network returned infinite values or NaN for a part of the image",
                    "look for extreme intensities in the image, or train the model again with a lower learning rate",
                )
