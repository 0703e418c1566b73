"""Label maps of structures that may overlap: each combination of structures that occurs has a number of its own.

Where ribs are 1 and lung is 2, voxels of both may be 3. That is two bytes for each voxel, however many structures there
are, and everything that knows label maps knows what to do: a structure is the region of all its numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape
from autoseg.imaging.targets import Targets

Combination = tuple[int, ...]
"""Structures that a voxel belongs to, by their place in the list of names, in order."""


def combine(
    masks: Iterable[tuple[int, NDArray[np.generic]]], shape: Shape
) -> tuple[NDArray[np.int32], list[Combination]]:
    """Finds the combination at each voxel.

    Only the voxels of a structure are looked at, so a hundred small structures take no longer than a few large ones.

    Args:
        masks: Places of structures, rising, and their masks, (z, y, x): whatever is not zero belongs to them. One at a
            time is in memory if they are made when they are asked for.
        shape: Of the masks.

    Returns:
        A code for each voxel, 0 for no structure, and the combination that each code stands for.
    """
    codes = np.zeros(shape, dtype=np.int32)
    flat = codes.reshape(-1)
    known: dict[Combination, int] = {(): 0}
    for place, mask in masks:
        voxels = np.flatnonzero(mask)
        before = flat[voxels]
        by_code = list(known)
        table = np.zeros(len(by_code), dtype=np.int32)
        for code in np.unique(before):
            table[code] = known.setdefault((*by_code[code], place), len(known))
        flat[voxels] = table[before]
    return codes, list(known)


def number_masks(
    masks: Iterable[NDArray[np.generic]], shape: Shape, targets: Targets
) -> tuple[NDArray[np.int32], Targets]:
    """The label map of a mask for each structure, in the numbers of a dataset.

    Args:
        masks: Of all structures in order, (z, y, x).
        shape: Of the masks.
        targets: Structures whose numbers stand for combinations.

    Returns:
        The label map, and the same targets with further numbers for combinations that the dataset lacks.
    """
    codes, found = combine(enumerate(masks), shape)
    numbers = {combination: number for number, combination in _read_numbers(targets).items()}
    following = max(targets.values) + 1
    for combination in found:
        if combination not in numbers:
            numbers[combination] = following
            following += 1
    structures = {
        name: tuple(sorted(number for combination, number in numbers.items() if place in combination))
        for place, name in enumerate(targets.names)
    }
    table = np.array([numbers[combination] for combination in found], dtype=np.int32)
    return table[codes], replace(targets, structures=structures)


def split_label_map(label: NDArray[np.integer], targets: Targets) -> Iterator[NDArray[np.bool_]]:
    """The mask of each structure of a label map, in order; made when it is asked for.

    Values that no structure has, such as voxels that nobody labelled, are in no mask.
    """
    within = np.where(label < 0, 0, label) if label.min(initial=0) < 0 else label
    size = max(int(within.max(initial=0)), *targets.values) + 1
    for numbers in targets.structures.values():
        table = np.zeros(size, dtype=bool)
        table[list(numbers)] = True
        yield table[within]


def _read_numbers(targets: Targets) -> dict[int, Combination]:
    """The combination that each number of a label map stands for."""
    found: dict[int, Combination] = {0: ()}
    for place, numbers in enumerate(targets.structures.values()):
        for number in numbers:
            found[number] = (*found.get(number, ()), place)
    return found
