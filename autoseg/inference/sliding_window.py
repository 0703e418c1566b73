"""Predicts an image of any size in tiles; see `tiling`."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.errors import ModelError
from autoseg.inference.accumulation import add_weighted, make_room
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.predictor import Predictor
from autoseg.inference.tiling import Tile, lay_out
from autoseg.networks.patch_sizes import PatchSizes

OnProgress = Callable[[float], None]


def ignore_progress(share: float) -> None:
    """Nobody watches."""


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
    method does; with its mirror image, if the network has a margin. Only the result and one batch of tiles are in
    memory. Of all tiles that see one value everywhere, such as air that was clipped, and the same, only the first is
    predicted: the logits of the others would be the same.

    Args:
        image: Shape (c, z, y, x), float32.
        predictor: Maps patches (n, c, *patch_size) to logits (n, classes, *patch_size), or (n, classes, *centre) with a
            margin, each by itself. A `EnsembleAgreement` is told where they lie.
        patch_size: What is seen of a tile. Two values mean a 2D network: every slice along z is predicted on its own.
        batch_size: Tiles that are predicted at once.
        device: Where patches are sent.
        patches: What patches the network takes; left out, it has no margin.
        on_progress: Called after each batch with the share of all tiles that it held.

    Returns:
        Logits (outputs, z, y, x), float32 or float16, where there is room for them; see `accumulation`.

    Raises:
        ModelError: The predictor returned infinite values or NaN.
        AutosegError: Neither memory nor disk hold the result.
    """
    is_flat = len(patch_size) == 2
    layout = lay_out(_as_tensor(image), patch_size, patches)
    groups = _group_alike(layout.volume, layout.tiles)
    poll = predictor if isinstance(predictor, EnsembleAgreement) else None
    if poll is not None:
        poll.begin(layout.shape, layout.inside)
    result: Tensor | None = None
    for start in range(0, len(groups), batch_size):
        batch = groups[start : start + batch_size]
        seen = torch.stack([group[0].look(layout.volume) for group in batch]).to(device)
        logits = predictor(seen.squeeze(2)).unsqueeze(2) if is_flat else predictor(seen)
        _check_finite(logits)
        logits = logits.contiguous()  # a map for each class, to which those of other tiles are added
        if result is None:
            result = make_room((logits.shape[1], *image.shape[1:]), device)
        for number, (group, prediction) in enumerate(zip(batch, logits, strict=True)):
            for tile in group:
                place, part = tile.clip(layout.inside)
                add_weighted(result[(slice(None), *place)], prediction[(slice(None), *part)], tile.shares[part])
            if poll is not None:
                poll.count(number, [tile.place[1:] for tile in group], [tile.shares for tile in group])
        on_progress(sum(map(len, batch)) / len(layout.tiles))
    if result is None:
        raise ValueError(f"an image of shape {tuple(image.shape)} has no voxels")
    return result


def _group_alike(volume: Tensor, tiles: Sequence[Tile]) -> list[list[Tile]]:
    """Tiles that look the same: those that hold one value in each channel, and the same. All others stand alone."""
    groups: list[list[Tile]] = []
    plain: dict[tuple[float, ...], list[Tile]] = {}
    for tile in tiles:
        values = _plain_values(volume[tile.seen])
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
