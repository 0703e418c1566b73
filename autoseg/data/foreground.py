"""Where the foreground of a case is: some voxels of each label, for patches that are centred on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Voxels per label whose places are kept. Source: the reference method.
FOREGROUND_VOXELS = 10_000
FOREGROUND_SHARE = 0.01
FOREGROUND_SEED = 1234


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreground:
    """Some voxels of each label.

    Attributes:
        counts: Label to how many of its voxels are known; labels that do not occur are left out.
        places: Shape (n, 3), label after label in the order of `counts`. Not always in memory: single rows are read.
    """

    counts: Mapping[int, int]
    places: Any

    @classmethod
    def of(cls, groups: Mapping[int, NDArray[np.integer]]) -> "Foreground":
        """Foreground of label to voxels, each of shape (n, 3)."""
        places = np.concatenate([np.zeros((0, 3), dtype=np.int32), *groups.values()], dtype=np.int32)
        return cls(counts={label: len(group) for label, group in groups.items() if len(group)}, places=places)

    def draw(self, random: np.random.Generator) -> tuple[int, int, int] | None:
        """A voxel of a label drawn evenly from those that occur; None if none does."""
        if not self.counts:
            return None
        counts = list(self.counts.values())
        label = int(random.integers(len(counts)))
        z, y, x = self.places[sum(counts[:label]) + int(random.integers(counts[label]))]
        return int(z), int(y), int(x)


def sample_foreground(label: NDArray[np.integer]) -> Foreground:
    """Draws voxels of each label above 0, evenly and each at most once.

    Source of the numbers: the reference method. All voxels of a label up to `FOREGROUND_VOXELS`, else that many or
    `FOREGROUND_SHARE` of them, whichever is more.

    Args:
        label: Shape (z, y, x).

    Returns:
        Their places; those of a label are in random order.
    """
    random = np.random.default_rng(FOREGROUND_SEED)
    places = np.flatnonzero(label > 0)
    values = label.ravel()[places]
    places = places[np.argsort(values, kind="stable")]
    found, counts = np.unique(values, return_counts=True)
    ends = np.cumsum(counts)
    groups = {}
    for value, start, end in zip(found, ends - counts, ends, strict=True):
        group = places[start:end]
        kept = min(len(group), max(FOREGROUND_VOXELS, math.ceil(FOREGROUND_SHARE * len(group))))
        drawn = random.choice(group, size=kept, replace=False)
        groups[int(value)] = np.stack(np.unravel_index(drawn, label.shape), axis=1).astype(np.int32)
    return Foreground.of(groups)
