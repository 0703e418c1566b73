"""Weights of a trained network, taken over by a new one where they fit.

Weights are known by the names that the network gives them: a weight fits if the old network has one of the same name
and shape. Two places may differ and still fit in part, because their rows and columns stand for something that has a
name of its own: the channels that the first convolution reads, and the structures that the heads predict.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from autoseg.datasets.info import BACKGROUND, DatasetInfo
from autoseg.models.checkpoint import Weights

FIRST_CONVOLUTIONS = ("stem.conv.weight", "encoder.0.blocks.0.conv.weight")
"""Which convolution reads the image: the stem of a residual encoder, else the first of the first stage."""

HEADS = "heads."

Fit = Literal["taken", "fitted", "fresh"]
"""As it was; in part, channel by channel or structure by structure; or not at all."""

FITS: tuple[Fit, ...] = ("taken", "fitted", "fresh")

Places = tuple[int | None, ...]
"""Of each of the new: where it stands among the old, or None if it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Where the channels and outputs of a new network stand in an old one.

    Attributes:
        channels: Of its input.
        outputs: Of its heads.
        old_channels: How many the old network reads.
        old_outputs: How many it predicts.
    """

    channels: Places
    outputs: Places
    old_channels: int
    old_outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a new network took over.

    Attributes:
        weights: All of the new network, by name.
        fits: How far each was taken over, by name.
    """

    weights: Weights
    fits: Mapping[str, Fit]


def match_networks(new: DatasetInfo, old: DatasetInfo, *, previous: int = 0, old_previous: int = 0) -> Matching:
    """Finds channels and structures of the same name.

    The background is an output of its own if labels exclude each other, and matches if they do in both datasets.

    Args:
        new: Channels and labels of the new dataset.
        old: And of the old one.
        previous: Further channels: segmentations of structures that a former network gives, in their order.
        old_previous: Likewise.
    """
    channels, old_channels = _name_channels(new, previous), _name_channels(old, old_previous)
    outputs, old_outputs = _name_outputs(new), _name_outputs(old)
    return Matching(
        channels=match_names(channels, old_channels),
        outputs=match_names(outputs, old_outputs),
        old_channels=len(old_channels),
        old_outputs=len(old_outputs),
    )


def _name_channels(info: DatasetInfo, previous: int) -> list[str]:
    """A line break keeps a structure apart from an image channel of its name."""
    return [*info.channel_names.values(), *(f"segmentation\n{name}" for name in info.targets.names[:previous])]


def _name_outputs(info: DatasetInfo) -> list[str]:
    return [*([BACKGROUND] if info.targets.exclusive else []), *info.targets.names]


def match_names(new: Sequence[str], old: Sequence[str]) -> Places:
    """Of each new name the place of the same old one; of several that are equal, the first is the first.

    Example: of "T1", "T1", "T2", "CT", among "T2", "T1": 1, None, 0, None.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(old):
        places[name].append(place)
    return tuple(places[name].pop(0) if places[name] else None for name in new)


def sort_weights(new: Weights, old: Weights, matching: Matching) -> dict[str, Fit]:
    """How far each weight of a new network can be taken over; looks at names and shapes alone."""
    return {name: _judge(name, value, old.get(name), matching) for name, value in new.items()}


def take_weights(new: Weights, old: Weights, matching: Matching) -> Report:
    """Takes over what fits; what does not keeps its fresh weights.

    Args:
        new: Fresh weights, by name; they are not changed.
        old: Of a trained network.
        matching: Where channels and outputs of the new one stand in the old one.
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


def _judge(name: str, new: torch.Tensor, old: object, matching: Matching) -> Fit:
    if not isinstance(old, torch.Tensor) or not old.is_floating_point() or old.ndim != new.ndim:
        return "fresh"
    if name in FIRST_CONVOLUTIONS:
        axis, places, there = 1, matching.channels, matching.old_channels
    elif name.startswith(HEADS):
        axis, places, there = 0, matching.outputs, matching.old_outputs
    else:
        return "taken" if new.shape == old.shape else "fresh"
    if old.shape[axis] != there or new.shape[axis] != len(places) or _without(new, axis) != _without(old, axis):
        return "fresh"
    if places == tuple(range(there)):
        return "taken"
    return "fresh" if axis == 0 and not any(place is not None for place in places) else "fitted"


def _without(weights: torch.Tensor, axis: int) -> tuple[int, ...]:
    return (*weights.shape[:axis], *weights.shape[axis + 1 :])


def fit_channels(kernel: torch.Tensor, places: Places) -> torch.Tensor:
    """The first convolution for other channels.

    A channel of the same name keeps its weights, a further one starts with the mean of all old ones. Then all are
    multiplied by old channels / new channels. Decision: the sum over channels is what the next layer sees; so it is as
    large as before if channels look alike, and does not grow with their number. Source: Carreira and Zisserman 2017,
    who inflate kernels in this way.

    Example: weights 2 and 4 of "T1" and "T2", for "T2", "FLAIR" and "T1": 4, 3 and 2, times 2 / 3.

    Args:
        kernel: Shape (features, old channels, *size).
        places: Of the new channels.

    Returns:
        Shape (features, new channels, *size).
    """
    mean = kernel.mean(dim=1)
    columns = [mean if place is None else kernel[:, place] for place in places]
    return torch.stack(columns, dim=1) * (kernel.shape[1] / len(places))


def _fit_rows(fresh: torch.Tensor, old: torch.Tensor, places: Places) -> torch.Tensor:
    """A head, or its bias: rows of structures that both networks predict are the old ones, all others fresh."""
    rows = [row if place is None else old[place].to(row.dtype) for row, place in zip(fresh, places, strict=True)]
    return torch.stack(rows)


def count_share(names: Sequence[str], weights: Weights) -> float:
    """The share of all weights that those of some names are, 0 to 1."""
    return sum(weights[name].numel() for name in names) / sum(value.numel() for value in weights.values())


def share_taken(fits: Mapping[str, Fit], weights: Weights) -> float:
    """The share of the weights of a new network that are not all fresh, 0 to 1."""
    return count_share([name for name, fit in fits.items() if fit != "fresh"], weights)


def describe_report(report: Report, new: DatasetInfo, matching: Matching) -> Iterator[str]:
    """Lines for people: how many tensors were taken over, and which channels and structures start fresh."""
    for fit in FITS:
        names = [name for name, found in report.fits.items() if found == fit]
        if names:
            yield describe_group(fit, names, report.weights)
    structures = [name for name, place in zip(_name_outputs(new), matching.outputs, strict=True) if place is None]
    if structures:
        yield f"structures that start fresh: {', '.join(structures)}"
    names = list(new.channel_names.values())
    channels = [name for name, place in zip(names, matching.channels, strict=False) if place is None]
    if channels:
        yield f"channels that start as the mean of the old ones: {', '.join(channels)}"


def describe_group(title: str, names: Sequence[str], weights: Weights) -> str:
    """One line: how many tensors, which share of the weights."""
    tensors = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"{title}: {tensors}, {count_share(names, weights):.2%} of the weights"
