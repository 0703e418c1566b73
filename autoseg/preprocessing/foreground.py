"""Foreground of a case: a sample of the voxels of each structure, for patches that are centred on them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Numbers

VoxelIndex = tuple[int, int, int]

# Voxels per structure whose indices are stored. Source: the reference method.
FOREGROUND_VOXELS = 10_000
FOREGROUND_SHARE = 0.01
FOREGROUND_SEED = 1234


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreground:
    """A sample of the voxels of each structure.

    Attributes:
        counts: Number of sampled voxels of each structure; 0 for one that does not occur.
        labelled: Number of sampled voxels that were annotated, as background or otherwise; 0 if all voxels were.
        voxels: Indices (z, y, x) of the voxels, shape (n, 3): structure after structure, then the annotated ones. Not
            always in memory: single rows are read.
    """

    counts: tuple[int, ...]
    labelled: int
    voxels: Any

    @classmethod
    def of(cls, structures: Sequence[NDArray[np.integer]], labelled: NDArray[np.integer] | None = None) -> "Foreground":
        """Returns the foreground of given voxels.

        Args:
            structures: Indices of voxels of each structure, each of shape (n, 3).
            labelled: Indices of annotated voxels, shape (n, 3); None if all voxels were annotated.
        """
        groups = [np.zeros((0, 3), dtype=np.int32), *structures, *([] if labelled is None else [labelled])]
        return cls(
            counts=tuple(map(len, structures)),
            labelled=0 if labelled is None else len(labelled),
            voxels=np.concatenate(groups, dtype=np.int32),
        )

    def draw(self, random: np.random.Generator) -> VoxelIndex | None:
        """Draws a voxel of a structure, which is drawn evenly from those that occur; None if none occurs."""
        present = [number for number, count in enumerate(self.counts) if count]
        if not present:
            return None
        number = present[int(random.integers(len(present)))]
        return self._read(sum(self.counts[:number]) + int(random.integers(self.counts[number])))

    def draw_labelled(self, random: np.random.Generator) -> VoxelIndex | None:
        """Draws a voxel that was annotated; None if all were, so that any voxel will do."""
        return self._read(sum(self.counts) + int(random.integers(self.labelled))) if self.labelled else None

    def _read(self, row: int) -> VoxelIndex:
        z, y, x = self.voxels[row]
        return int(z), int(y), int(x)


def sample_foreground(
    label: NDArray[np.integer], structures: Sequence[Numbers] | None = None, ignore: int | None = None
) -> Foreground:
    """Draws voxels of each structure, evenly and each at most once; and of all annotated voxels, if not all were.

    Source of the numbers: the reference method. Of a structure with more than `FOREGROUND_VOXELS` voxels, that many or
    `FOREGROUND_SHARE` of them are drawn, whichever is more; of a smaller one all are taken.

    Args:
        label: Shape (z, y, x).
        structures: Numbers of each structure; by default every number above 0 is one, up to the highest.
        ignore: Number of voxels that were not annotated, if the dataset has any.

    Returns:
        The voxels; those of a structure are in random order.

    Example:
        >>> foreground = sample_foreground(np.array([[[0, 1, 2, 2]]]))
        >>> foreground.counts, sorted(foreground.voxels[:, 2].tolist())
        ((1, 2), [1, 2, 3])
    """
    random = np.random.default_rng(FOREGROUND_SEED)
    if structures is None:
        structures = [(number,) for number in range(1, int(label.max(initial=0)) + 1)]
    by_number = group_voxels(label)

    def draw(voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        size = min(len(voxels), max(FOREGROUND_VOXELS, math.ceil(FOREGROUND_SHARE * len(voxels))))
        drawn = random.choice(voxels, size=size, replace=False) if size else voxels
        return np.stack(np.unravel_index(drawn, label.shape), axis=1)

    drawn = [draw(_gather(by_number, numbers)) for numbers in structures]
    return Foreground.of(drawn, None if ignore is None else draw(np.flatnonzero(label != ignore)))


def group_voxels(label: NDArray[np.integer]) -> dict[int, NDArray[np.intp]]:
    """Returns the indices, in the flattened map, of each number above 0."""
    voxels = np.flatnonzero(label > 0)
    values = label.ravel()[voxels]
    voxels = voxels[np.argsort(values, kind="stable")]
    numbers, counts = np.unique(values, return_counts=True)
    return dict(zip(numbers.tolist(), np.split(voxels, np.cumsum(counts)[:-1]), strict=True)) if len(numbers) else {}


def _gather(by_number: Mapping[int, NDArray[np.intp]], numbers: Numbers) -> NDArray[np.intp]:
    """Returns the indices of the voxels of some numbers, sorted."""
    groups = [by_number[number] for number in numbers if number in by_number]
    if len(groups) == 1:
        return groups[0]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.intp), *groups]))
