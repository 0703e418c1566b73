"""What number a voxel of a label map gets when it joins a structure, or leaves it.

Where regions overlap, the number of a voxel stands for all regions that it belongs to: with a whole tumour of 1, 2 and
3 and its core of 2 and 3, a voxel of 1 that joins the core becomes 2, and one of 2 that leaves it becomes 1.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Numbers, Targets


def numbers_with(numbers: Numbers, targets: Targets | None) -> dict[int, int]:
    """Returns which numbers may join a structure, and what they become.

    A voxel stays in all structures that it was in, and joins as few others as there can be. Labels that exclude each
    other take background alone.

    Example:
        >>> regions = Targets(structures={"tumour": (1, 2, 3), "core": (2, 3)}, exclusive=False)
        >>> numbers_with((2, 3), regions)
        {0: 2, 1: 2}
        >>> numbers_with((2,), Targets.of_labels({"kidney": 1, "tumour": 2}))
        {0: 2}

    Args:
        numbers: Numbers of the structure.
        targets: All structures; None if no voxel belongs to several.
    """
    members = _members(numbers, targets)
    joined = {}
    for old in sorted(set(members) - set(numbers)):
        complete = [new for new in numbers if members[old] < members[new]]
        if complete:
            joined[old] = min(complete, key=lambda new: len(members[new]))
    return joined


def numbers_without(numbers: Numbers, targets: Targets | None) -> dict[int, int]:
    """Returns which numbers may leave a structure, and what they become.

    A voxel stays in all other structures that it was in; where no number stands for these, it cannot leave.

    Example:
        >>> regions = Targets(structures={"tumour": (1, 2), "core": (2,)}, exclusive=False)
        >>> numbers_without((2,), regions), numbers_without((1, 2), regions)
        ({2: 1}, {1: 0})

    Args:
        numbers: Numbers of the structure.
        targets: All structures; None if no voxel belongs to several.
    """
    members = _members(numbers, targets)
    own = frozenset.intersection(*(members[number] for number in numbers))
    name = {numbers} & own
    by_members = {names: number for number, names in sorted(members.items(), reverse=True)}
    return {old: by_members[rest] for old in numbers if (rest := members[old] - name) in by_members}


def renumber(label_map: NDArray[np.integer], where: NDArray[np.bool_], new_numbers: Mapping[int, int]) -> None:
    """Gives voxels of a label map new numbers, in place.

    Args:
        label_map: The label map.
        where: The voxels, in its shape.
        new_numbers: Number to new number; voxels of other numbers stay as they are.
    """
    before = label_map[where]
    after = before.copy()
    for old, new in new_numbers.items():
        after[before == old] = new
    label_map[where] = after


def _members(numbers: Numbers, targets: Targets | None) -> dict[int, frozenset[Numbers]]:
    """Returns the structures that each number stands for, each structure as its own numbers."""
    structures = [numbers] if targets is None else list(targets.structures.values())
    values = {0, *numbers} if targets is None else targets.values - {targets.ignore}
    return {number: frozenset(each for each in structures if number in each) for number in sorted(values)}
