"""Transfer of the weights of a trained network to a new one, where they fit.

Weights are matched by their names in the network: a weight fits if the old network has one of the same name and shape.
Two kinds of weights may differ in shape and still fit in part, because their rows or columns stand for something with a
name: the channels that the first convolution reads, and the structures that the heads predict.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from autoseg.datasets.info import BACKGROUND, DatasetInfo
from autoseg.models.checkpoint import Weights

FIRST_CONVOLUTIONS = ("stem.conv.weight", "encoder.0.blocks.0.conv.weight")
"""Names of the convolution that reads the image: the stem of a residual encoder, else the first of the first stage."""

HEADS = "heads."
"""Prefix of the names of the weights that predict structures."""

Fit = Literal["taken", "fitted", "fresh"]
"""How far a weight tensor was taken over: as it was; in part, by channels or structures; or not at all."""

FITS: tuple[Fit, ...] = ("taken", "fitted", "fresh")

Indices = tuple[int | None, ...]
"""For each new channel or output, its index among the old ones, or None if it is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """The channels and outputs of a new network that an old one has too.

    Attributes:
        channels: For each input channel, its index in the old network.
        outputs: For each output of the heads, its index in the old network.
        old_channels: Number of input channels of the old network.
        old_outputs: Number of outputs of the old network.
        images: Names of the channels that the new network gets of a scan.
    """

    channels: Indices
    outputs: Indices
    old_channels: int
    old_outputs: int
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a transfer.

    Attributes:
        weights: All weights of the new network, by name.
        fits: How far each of them was taken over, by name.
    """

    weights: Weights
    fits: Mapping[str, Fit]


def match_networks(
    new: DatasetInfo,
    old: DatasetInfo,
    *,
    previous: int = 0,
    old_previous: int = 0,
    images: Sequence[str] = (),
    old_images: Sequence[str] = (),
) -> Matching:
    """Finds channels and structures of the same name.

    The background is an output of its own if labels exclude each other, and matches if they do in both datasets.

    Args:
        new: Channels and labels of the new dataset.
        old: Channels and labels of the old dataset.
        previous: Number of further channels of the new network: coarse segmentations that a cascade reads, of the first
            structures in their order.
        old_previous: Number of such channels of the old network.
        images: Names of the channels that the new network gets of a scan; by default those of the dataset.
        old_images: Such names of the old network.
    """
    channels, old_channels = _name_channels(new, previous, images), _name_channels(old, old_previous, old_images)
    outputs, old_outputs = _name_outputs(new), _name_outputs(old)
    return Matching(
        channels=match_names(channels, old_channels),
        outputs=match_names(outputs, old_outputs),
        images=tuple(images or new.channel_names.values()),
        old_channels=len(old_channels),
        old_outputs=len(old_outputs),
    )


def _name_channels(info: DatasetInfo, previous: int, images: Sequence[str]) -> list[str]:
    """Returns names of the input channels; a line break sets a structure apart from an image channel of its name."""
    return [
        *(images or info.channel_names.values()),
        *(f"segmentation\n{name}" for name in info.targets.names[:previous]),
    ]


def _name_outputs(info: DatasetInfo) -> list[str]:
    return [*([BACKGROUND] if info.targets.exclusive else []), *info.targets.names]


def match_names(new: Sequence[str], old: Sequence[str]) -> Indices:
    """Returns for each new name the index of the same old name; equal names are matched in their order.

    Example:
        >>> match_names(["T1", "T1", "T2", "CT"], ["T2", "T1"])
        (1, None, 0, None)
    """
    indices: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(old):
        indices[name].append(index)
    return tuple(indices[name].pop(0) if indices[name] else None for name in new)


def sort_weights(new: Weights, old: Weights, matching: Matching) -> dict[str, Fit]:
    """Returns how far each weight of a new network can be taken over, from names and shapes alone."""
    return {name: _compare(name, value, old.get(name), matching) for name, value in new.items()}


def take_weights(new: Weights, old: Weights, matching: Matching) -> Report:
    """Takes over the weights that fit; all others stay fresh.

    Args:
        new: Fresh weights of the new network, by name; they are not changed.
        old: Weights of a trained network, by name.
        matching: Channels and outputs of the new network in the old one, from `match_networks`.
    """
    fits = sort_weights(new, old, matching)
    weights = {}
    for name, fresh in new.items():
        if fits[name] == "fresh":
            weights[name] = fresh
        elif fits[name] == "taken":
            weights[name] = old[name].to(fresh.dtype).clone()
        elif name in FIRST_CONVOLUTIONS:
            weights[name] = fit_channels(old[name].to(fresh.dtype), matching.channels)
        else:
            weights[name] = _fit_rows(fresh, old[name], matching.outputs)
    return Report(weights=weights, fits=fits)


def _compare(name: str, new: torch.Tensor, old: object, matching: Matching) -> Fit:
    if not isinstance(old, torch.Tensor) or not old.is_floating_point() or old.ndim != new.ndim:
        return "fresh"
    if name in FIRST_CONVOLUTIONS:
        axis, indices, old_size = 1, matching.channels, matching.old_channels
    elif name.startswith(HEADS):
        axis, indices, old_size = 0, matching.outputs, matching.old_outputs
    else:
        return "taken" if new.shape == old.shape else "fresh"
    if old.shape[axis] != old_size or new.shape[axis] != len(indices) or _without(new, axis) != _without(old, axis):
        return "fresh"
    if indices == tuple(range(old_size)):
        return "taken"
    return "fresh" if axis == 0 and not any(index is not None for index in indices) else "fitted"


def _without(weights: torch.Tensor, axis: int) -> tuple[int, ...]:
    return (*weights.shape[:axis], *weights.shape[axis + 1 :])


def fit_channels(kernel: torch.Tensor, indices: Indices) -> torch.Tensor:
    """Returns the kernel of the first convolution for other channels.

    A channel of the same name keeps its weights, any other starts with the mean of all old ones. Then all are
    multiplied by old channels / new channels. Decision: the next layer sees the sum over channels; so it is as large as
    before if channels look alike, and does not grow with their number. Source: Carreira and Zisserman 2017, who inflate
    kernels in this way.

    Example: the old channels are "T1" and "T2"; the new ones "T2", "FLAIR" and "T1" get 4, 3 and 2, times 2 / 3.
        >>> (fit_channels(torch.tensor([[2.0, 4.0]]), (1, None, 0)) * 3 / 2).round()
        tensor([[4., 3., 2.]])

    Args:
        kernel: The old kernel, shape (features, old channels, *size).
        indices: For each new channel, its index among the old ones.

    Returns:
        The new kernel, shape (features, new channels, *size).
    """
    mean = kernel.mean(dim=1)
    columns = [mean if index is None else kernel[:, index] for index in indices]
    return torch.stack(columns, dim=1) * (kernel.shape[1] / len(indices))


def _fit_rows(fresh: torch.Tensor, old: torch.Tensor, indices: Indices) -> torch.Tensor:
    """Returns a head, or its bias, with the old rows of structures that both networks predict; the others are fresh."""
    rows = [row if index is None else old[index].to(row.dtype) for row, index in zip(fresh, indices, strict=True)]
    return torch.stack(rows)


def count_share(names: Sequence[str], weights: Weights) -> float:
    """Returns the number of weights that have some names, divided by that of all weights, 0 to 1."""
    return sum(weights[name].numel() for name in names) / sum(value.numel() for value in weights.values())


def share_taken(fits: Mapping[str, Fit], weights: Weights) -> float:
    """Returns the share of the weights of a new network whose tensors were taken over, at least in part, 0 to 1."""
    return count_share([name for name, fit in fits.items() if fit != "fresh"], weights)


def describe_report(report: Report, new: DatasetInfo, matching: Matching) -> Iterator[str]:
    """Yields lines for people: how many tensors were taken over, and which channels and structures start fresh."""
    for fit in FITS:
        names = [name for name, fit_of_name in report.fits.items() if fit_of_name == fit]
        if names:
            yield describe_group(fit, names, report.weights)
    structures = [name for name, index in zip(_name_outputs(new), matching.outputs, strict=True) if index is None]
    if structures:
        yield f"structures that start fresh: {', '.join(structures)}"
    channels = [name for name, index in zip(matching.images, matching.channels, strict=False) if index is None]
    if channels:
        yield f"channels that start as the mean of the old ones: {', '.join(channels)}"


def describe_group(title: str, names: Sequence[str], weights: Weights) -> str:
    """Returns one line: the number of tensors, and their share of the weights."""
    tensors = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"{title}: {tensors}, {count_share(names, weights):.2%} of the weights"
