"""Where the foreground of a case is: some voxels of each label, for patches that are centred on it."""

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Voxels per label whose places are kept. Source: the reference method.
FOREGROUND_VOXELS = 10_000
FOREGROUND_SHARE = 0.01
FOREGROUND_SEED = 1234

# What reading a file can raise that is cut off, overwritten, or was never one of ours.
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def sample_foreground(label: NDArray[np.integer]) -> dict[int, NDArray[np.int32]]:
    """Draws voxels of each label above 0, evenly and each at most once.

    Source of the numbers: the reference method. All voxels of a label up to `FOREGROUND_VOXELS`, else that many or
    `FOREGROUND_SHARE` of them, whichever is more.

    Args:
        label: Shape (z, y, x).

    Returns:
        Label to places, shape (n, 3), in random order; labels that do not occur are left out.
    """
    random = np.random.default_rng(FOREGROUND_SEED)
    places = np.flatnonzero(label > 0)
    values = label.ravel()[places]
    places = places[np.argsort(values, kind="stable")]
    found, counts = np.unique(values, return_counts=True)
    ends = np.cumsum(counts)
    result = {}
    for value, start, end in zip(found, ends - counts, ends, strict=True):
        group = places[start:end]
        kept = min(len(group), max(FOREGROUND_VOXELS, math.ceil(FOREGROUND_SHARE * len(group))))
        drawn = random.choice(group, size=kept, replace=False)
        result[int(value)] = np.stack(np.unravel_index(drawn, label.shape), axis=1).astype(np.int32)
    return result


def write_foreground(path: Path, foreground: dict[int, NDArray[np.int32]]) -> None:
    """Writes what `sample_foreground` gave."""
    labels = np.fromiter(foreground, dtype=np.int32)
    counts = np.array([len(places) for places in foreground.values()], dtype=np.int64)
    places = np.concatenate([np.zeros((0, 3), dtype=np.int32), *foreground.values()])
    with path.open("wb") as file:
        np.savez(file, labels=labels, counts=counts, places=places)


def read_foreground(path: Path) -> dict[int, NDArray[np.int32]]:
    """Reads what `write_foreground` wrote.

    Raises:
        DAMAGE: One of these, if the file is missing or damaged.
    """
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        labels, counts, places = file["labels"], file["counts"], file["places"]
    ends = np.cumsum(counts)
    return {int(label): places[start:end] for label, start, end in zip(labels, ends - counts, ends, strict=True)}
