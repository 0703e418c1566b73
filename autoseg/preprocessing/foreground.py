"""Where the foreground of a case is: some voxels of each label, for patches that are centred on it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Numbers

VoxelIndex = tuple[int, int, int]

# Voxels per structure whose places are kept. Source: the reference method.
FOREGROUND_VOXELS = 10_000
FOREGROUND_SHARE = 0.01
FOREGROUND_SEED = 1234


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreground:
    """Some voxels of each structure.

    Attributes:
        counts: How many voxels of each structure are known; 0 for one that does not occur.
        labelled: How many voxels are known that were labelled, as background or otherwise; 0 if all were.
        places: Shape (n, 3): structure after structure, then the labelled ones. Not always in memory: single rows are
            read.
    """

    counts: tuple[int, ...]
    labelled: int
    places: Any

    @classmethod
    def of(cls, structures: Sequence[NDArray[np.integer]], labelled: NDArray[np.integer] | None = None) -> "Foreground":
        """Foreground of these places, each of shape (n, 3)."""
        groups = [np.zeros((0, 3), dtype=np.int32), *structures, *([] if labelled is None else [labelled])]
        return cls(
            counts=tuple(map(len, structures)),
            labelled=0 if labelled is None else len(labelled),
            places=np.concatenate(groups, dtype=np.int32),
        )

    def draw(self, random: np.random.Generator) -> VoxelIndex | None:
        """A voxel of a structure drawn evenly from those that occur; None if none does."""
        present = [number for number, count in enumerate(self.counts) if count]
        if not present:
            return None
        number = present[int(random.integers(len(present)))]
        return self._read(sum(self.counts[:number]) + int(random.integers(self.counts[number])))

    def draw_labelled(self, random: np.random.Generator) -> VoxelIndex | None:
        """A voxel that was labelled; None if all were, so that any place will do."""
        return self._read(sum(self.counts) + int(random.integers(self.labelled))) if self.labelled else None

    def _read(self, row: int) -> VoxelIndex:
        z, y, x = self.places[row]
        return int(z), int(y), int(x)


def sample_foreground(
    label: NDArray[np.integer], structures: Sequence[Numbers] | None = None, ignore: int | None = None
) -> Foreground:
    """Draws voxels of each structure, evenly and each at most once; and of all that was labelled, if not all was.

    Source of the numbers: the reference method. All voxels of a structure up to `FOREGROUND_VOXELS`, else that many or
    `FOREGROUND_SHARE` of them, whichever is more.

    Args:
        label: Shape (z, y, x).
        structures: Numbers of each; by default every number above 0 is one, up to the highest.
        ignore: Number of voxels that were not labelled, if the dataset has any.

    Returns:
        Their places; those of a structure are in random order.
    """
    random = np.random.default_rng(FOREGROUND_SEED)
    if structures is None:
        structures = [(number,) for number in range(1, int(label.max(initial=0)) + 1)]
    by_number = _group(label)

    def draw(places: NDArray[np.intp]) -> NDArray[np.intp]:
        kept = min(len(places), max(FOREGROUND_VOXELS, math.ceil(FOREGROUND_SHARE * len(places))))
        drawn = random.choice(places, size=kept, replace=False) if kept else places
        return np.stack(np.unravel_index(drawn, label.shape), axis=1)

    drawn = [draw(_gather(by_number, numbers)) for numbers in structures]
    return Foreground.of(drawn, None if ignore is None else draw(np.flatnonzero(label != ignore)))


def _group(label: NDArray[np.integer]) -> dict[int, NDArray[np.intp]]:
    """Places, in the flattened map, of each number above 0."""
    places = np.flatnonzero(label > 0)
    values = label.ravel()[places]
    places = places[np.argsort(values, kind="stable")]
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), np.split(places, np.cumsum(counts)[:-1]), strict=True)) if len(found) else {}


def _gather(by_number: Mapping[int, NDArray[np.intp]], numbers: Numbers) -> NDArray[np.intp]:
    """The places of some numbers, in order."""
    groups = [by_number[number] for number in numbers if number in by_number]
    if len(groups) == 1:
        return groups[0]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.intp), *groups]))
