"""Label maps of structures that may overlap: each combination of structures that occurs has a number of its own.

Where ribs are 1 and lung is 2, voxels of both may be 3. That takes two bytes per voxel, however many structures there
are, and all code for label maps works: a structure is the region of all its numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape
from autoseg.imaging.targets import Targets

Combination = tuple[int, ...]
"""The structures that a voxel belongs to, by their index in the list of names, ascending."""


def combine(
    masks: Iterable[tuple[int, NDArray[np.generic]]], shape: Shape
) -> tuple[NDArray[np.int32], list[Combination]]:
    """Finds the combination of structures at each voxel.

    Only the voxels of each structure are visited, so a hundred small structures take no longer than a few large ones.

    Args:
        masks: Index of each structure, ascending, and its mask (z, y, x), whose nonzero voxels belong to it. If masks
            are made when they are asked for, only one at a time is in memory.
        shape: Shape of the masks, (z, y, x).

    Returns:
        A code for each voxel, 0 for no structure, and the combination that each code stands for.

    Example:
        >>> ribs, lung = np.array([[[1, 1, 0, 0]]]), np.array([[[0, 1, 1, 0]]])
        >>> codes, combinations = combine([(0, ribs), (1, lung)], (1, 1, 4))
        >>> codes.tolist(), combinations
        ([[[1, 3, 2, 0]]], [(), (0,), (1,), (0, 1)])
    """
    codes = np.zeros(shape, dtype=np.int32)
    flat = codes.reshape(-1)
    codes_by_combination: dict[Combination, int] = {(): 0}
    for index, mask in masks:
        voxels = np.flatnonzero(mask)
        before = flat[voxels]
        by_code = list(codes_by_combination)
        table = np.zeros(len(by_code), dtype=np.int32)
        for code in np.unique(before):
            table[code] = codes_by_combination.setdefault((*by_code[code], index), len(codes_by_combination))
        flat[voxels] = table[before]
    return codes, list(codes_by_combination)


def number_masks(
    masks: Iterable[NDArray[np.generic]], shape: Shape, targets: Targets
) -> tuple[NDArray[np.int32], Targets]:
    """Returns the label map of masks in the numbers of a dataset; the inverse of `split_label_map`.

    Args:
        masks: Masks (z, y, x) of all structures, in order.
        shape: Shape of the masks.
        targets: Structures whose numbers stand for combinations.

    Returns:
        The label map, and the same targets with further numbers for combinations that the dataset lacks.

    Example:
        >>> targets = Targets(structures={"ribs": (1, 3), "lung": (2, 3)}, exclusive=False)
        >>> masks = [np.array([[[1, 1, 0, 0]]]), np.array([[[0, 1, 1, 0]]])]
        >>> label, numbered = number_masks(masks, (1, 1, 4), targets)
        >>> label.tolist()
        [[[1, 3, 2, 0]]]
        >>> [mask.astype(int).tolist() for mask in split_label_map(label, numbered)]
        [[[[1, 1, 0, 0]]], [[[0, 1, 1, 0]]]]
    """
    codes, combinations = combine(enumerate(masks), shape)
    numbers = {combination: number for number, combination in _read_numbers(targets).items()}
    following = max(targets.values) + 1
    for combination in combinations:
        if combination not in numbers:
            numbers[combination] = following
            following += 1
    structures = {
        name: tuple(sorted(number for combination, number in numbers.items() if index in combination))
        for index, name in enumerate(targets.names)
    }
    table = np.array([numbers[combination] for combination in combinations], dtype=np.int32)
    return table[codes], replace(targets, structures=structures)


def split_label_map(label: NDArray[np.integer], targets: Targets) -> Iterator[NDArray[np.bool_]]:
    """Yields the mask of each structure of a label map, in order; each is made when it is asked for.

    Voxels whose number belongs to no structure, such as voxels that were not annotated, are in no mask.
    """
    within = np.where(label < 0, 0, label) if label.min(initial=0) < 0 else label
    size = max(int(within.max(initial=0)), *targets.values) + 1
    for numbers in targets.structures.values():
        table = np.zeros(size, dtype=bool)
        table[list(numbers)] = True
        yield table[within]


def _read_numbers(targets: Targets) -> dict[int, Combination]:
    """Returns the combination that each number of a label map stands for."""
    combinations: dict[int, Combination] = {0: ()}
    for index, numbers in enumerate(targets.structures.values()):
        for number in numbers:
            combinations[number] = (*combinations.get(number, ()), index)
    return combinations
