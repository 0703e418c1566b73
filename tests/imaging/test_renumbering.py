"""A voxel that joins or leaves a structure stays in all others."""

import numpy as np
import pytest

from autoseg.imaging.renumbering import numbers_with, numbers_without, renumber
from autoseg.imaging.targets import Targets

LABELS = Targets.of_labels({"a": 1, "b": 2, "c": 3}, ignore=4)
NESTED = Targets(structures={"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, exclusive=False)
CROSSED = Targets(structures={"left": (1, 3), "right": (2, 3)}, exclusive=False)


def regions_of(number, targets):
    """Returns the names of the structures of a voxel."""
    return {name for name, numbers in targets.structures.items() if number in numbers}


@pytest.mark.parametrize("targets", [LABELS, NESTED, CROSSED])
def test_only_the_structure_itself_is_joined_or_left(targets):
    """What else a number stands for stays, and what is joined beside it is the least that there is a number for."""
    for name, numbers in targets.structures.items():
        for old, new in numbers_without(numbers, targets).items():
            assert regions_of(new, targets) == regions_of(old, targets) - {name}
        joined = numbers_with(numbers, targets)
        assert targets.ignore not in {*joined, *joined.values()}
        for old, new in joined.items():
            wanted = regions_of(old, targets) | {name}
            assert wanted <= regions_of(new, targets)
            sizes = [len(regions_of(number, targets)) for number in numbers if wanted <= regions_of(number, targets)]
            assert len(regions_of(new, targets)) == min(sizes)


def test_numbers_of_nested_and_of_crossed_regions():
    """Background joins the core as tumour and core; what would leave the others is not changed."""
    assert numbers_with((2, 3), NESTED) == {0: 2, 1: 2}
    assert numbers_without((2, 3), NESTED) == {2: 1}
    assert numbers_with((1, 3), CROSSED) == {0: 1, 2: 3}
    assert numbers_without((1, 3), CROSSED) == {1: 0, 3: 2}
    assert numbers_with((2,), LABELS) == numbers_with((2,), None) == {0: 2}
    assert numbers_without((2,), LABELS) == numbers_without((2,), None) == {2: 0}


def test_new_numbers_are_given_where_asked_for():
    """All at once: a number that becomes another is not changed again."""
    label = np.array([0, 1, 2, 3, 0, 1], dtype=np.uint8)
    renumber(label, np.array([1, 1, 1, 1, 0, 0], dtype=bool), {0: 1, 1: 2, 2: 3})
    assert label.tolist() == [1, 2, 3, 3, 0, 1]
    assert label.dtype == np.uint8
