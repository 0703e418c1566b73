"""Where structures are in labels, as a network sees them."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.imaging.targets import OUTSIDE, Numbers, Targets

Labels = TypeVar("Labels", NDArray[Any], torch.Tensor)


def base_of(targets: Targets) -> int:
    """How many numbers labels have."""
    return max(targets.values) + 1


def join(label: NDArray[np.integer], previous: NDArray[np.integer], base: int) -> NDArray[np.int16]:
    """Codes of a label map and a segmentation of the same shape."""
    codes = label.astype(np.int32) + previous.astype(np.int32) * base
    return np.where(label == OUTSIDE, OUTSIDE, codes).astype(np.int16)


def split_labels(codes: Labels, base: int) -> Labels:
    """The labels of codes, `OUTSIDE` among them."""
    labels: Labels = codes % base * (codes != OUTSIDE) + OUTSIDE * (codes == OUTSIDE)
    return labels


def split_previous(codes: Labels, base: int) -> Labels:
    """The segmentation of codes, 0 outside."""
    previous: Labels = codes // base * (codes != OUTSIDE)
    return previous


def as_channels(previous: torch.Tensor, structures: Iterable[Numbers]) -> torch.Tensor:
    """A channel for each structure, 1 where it is: (n, structures, *patch), float32, for (n, *patch)."""
    return find_structures(previous, structures).float()


@lru_cache(maxsize=4)  # each batch asks anew
def pair_codes(pairs: tuple[tuple[int, int], ...], base: int) -> tuple[tuple[int, int], ...]:
    """The pairs of codes that change places where labels change places, in both maps at once.

    Each code is in one pair at most.
    """
    partner = list(range(base))
    for first, second in pairs:
        partner[first], partner[second] = second, first
    every = [(label, former) for label in range(base) for former in range(base)]
    moved = [(label + former * base, partner[label] + partner[former] * base) for label, former in every]
    return tuple((one, other) for one, other in moved if one < other)


def find_structures(labels: torch.Tensor, structures: Iterable[Numbers]) -> torch.Tensor:
    """Where each structure is: (n, structures, *size), bool, for labels (n, *size) and the numbers of each."""
    found = []
    for numbers in structures:
        where = labels == numbers[0]
        for number in numbers[1:]:
            where = where | (labels == number)
        found.append(where)
    return torch.stack(found, dim=1)
