"""Postprocessing: which connected components are kept and which are removed."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.errors import ArtifactError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.postprocessing import (
    NO_RULES,
    PostprocessingRules,
    SmallestSize,
    Trial,
    apply_rules,
    apply_to_mask,
    largest_component,
)

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7))
MASKS = SHAPES.flatmap(lambda shape: arrays(np.bool_, shape))
MAPS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 3)))
RULES = st.builds(
    PostprocessingRules,
    keep_largest_foreground=st.booleans(),
    keep_largest=st.lists(st.tuples(st.integers(1, 4)), unique=True).map(tuple),
    smallest=st.lists(
        st.builds(SmallestSize, structure=st.tuples(st.integers(1, 4)), mm3=st.sampled_from([1.5, 3.0, 4.5])),
        unique_by=lambda rule: rule.structure,
    ).map(tuple),
)


def on_grid(array, spacing_mm=(1.0, 1.0, 1.0), dimensions=3):
    """An array with its place in space."""
    return Volume(array=array, geometry=Geometry(shape=array.shape, spacing_mm=spacing_mm, dimensions=dimensions))


def apply(array, rules, **grid):
    """The rules, from array to array."""
    return apply_rules(on_grid(array, **grid), rules).array


def slow_components(mask):
    """All components, one after the other: the largest, and again of what is left."""
    while mask.any():
        component = slow_largest(mask)
        yield component
        mask = mask & ~component


def slow_largest(mask):
    """The first of the largest components, by flooding from each voxel in turn."""
    left = {tuple(voxel) for voxel in np.argwhere(mask).tolist()}
    best = set()
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        component, border = {start}, [start]
        while border:
            z, y, x = border.pop()
            near = set(product((z - 1, z, z + 1), (y - 1, y, y + 1), (x - 1, x, x + 1))) & left
            left -= near
            component |= near
            border += near
        best = max(best, component, key=len)  # the earlier one on a tie
    result = np.zeros_like(mask)
    for voxel in best:
        result[voxel] = True
    return result


@given(MASKS)
@settings(max_examples=150, deadline=None)
def test_the_first_of_the_largest_components_stays(mask):
    """Voxels that touch by a corner belong together; on a tie the first in array order wins."""
    np.testing.assert_array_equal(largest_component(mask), slow_largest(mask))


@given(MASKS)
@settings(max_examples=40, deadline=None)
def test_the_memory_layout_makes_no_difference(mask):
    """A transposed view gives what a copy of it gives."""
    view = mask.transpose(2, 0, 1)
    np.testing.assert_array_equal(largest_component(view), slow_largest(view.copy()))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 3), (1, 9, 9), (1, 1, 99)])
def test_thin_masks_of_single_voxels_are_no_trouble(shape):
    """The first voxel stays of a grid of voxels that do not touch."""
    mask = np.zeros(shape, dtype=bool)
    mask[::2, ::2, ::2] = True
    assert np.argwhere(largest_component(mask)).tolist() == [[0, 0, 0]]


def test_a_diagonal_of_voxels_is_one_component():
    """Corners connect."""
    mask = np.eye(4, dtype=bool)[np.newaxis]
    np.testing.assert_array_equal(largest_component(mask), mask)


@given(MAPS, RULES)
@settings(max_examples=60, deadline=None)
def test_rules_only_ever_remove_voxels(label_map, rules):
    """The result holds the old label or background, and the input is left alone.

    Rules about single labels change nothing the second time.
    """
    before = label_map.copy()
    result = apply(label_map, rules)
    np.testing.assert_array_equal(label_map, before)
    assert result.dtype == label_map.dtype
    assert np.all((result == label_map) | (result == 0))
    if not rules.keep_largest_foreground:
        np.testing.assert_array_equal(apply(result, rules), result)


@given(MAPS, RULES)
@settings(max_examples=60, deadline=None)
def test_each_label_of_a_rule_keeps_its_largest_component(label_map, rules):
    """Foreground first, then each label in what is left, then what is too small; other labels stay."""
    expected = label_map.copy()
    if rules.keep_largest_foreground:
        expected[~slow_largest(label_map > 0)] = 0
    left = expected.copy()
    for (label,) in rules.keep_largest:
        expected[(left == label) & ~slow_largest(left == label)] = 0
    for rule in rules.smallest:
        for component in slow_components(expected == rule.structure[0]):
            expected[component] *= component.sum() >= rule.mm3
    np.testing.assert_array_equal(apply(label_map, rules), expected)


@given(MAPS)
@settings(max_examples=10, deadline=None)
def test_no_rules_change_nothing(label_map):
    """The default is to leave a segmentation as it is, in memory of its own."""
    result = apply(label_map, NO_RULES)
    np.testing.assert_array_equal(result, label_map)
    assert not np.shares_memory(result, label_map)


def test_rules_round_trip_with_their_evidence(tmp_path):
    """postprocessing.json gives back what was saved, undefined Dice included."""
    trial = Trial(rule="keep", before={"a": 0.5, "b": float("nan")}, after={"a": 0.75, "b": float("nan")}, adopted=True)
    sizes = (SmallestSize(structure=(1, 2), mm3=0.05),)
    rules = PostprocessingRules(keep_largest_foreground=True, keep_largest=(2,), smallest=sizes, evidence=(trial,))
    rules.save(tmp_path / "postprocessing.json")
    assert PostprocessingRules.load(tmp_path / "postprocessing.json") == rules


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (NO_RULES, "postprocessing: none"),
        (PostprocessingRules(keep_largest=(2,)), "postprocessing: keep the largest component of label 2"),
        (
            PostprocessingRules(keep_largest_foreground=True, keep_largest=(1,)),
            "postprocessing: keep the largest component of the foreground, then of label 1",
        ),
        (
            PostprocessingRules(
                smallest=tuple(SmallestSize(structure=(number,), mm3=mm3) for number, mm3 in ((1, 5), (3, 5), (9, 2)))
            ),
            (
                "postprocessing: remove components of label 9 below 2 mm3, "
                "then remove components of label 1, label 3 below 5 mm3"
            ),
        ),
        (
            PostprocessingRules(keep_largest=(1,), smallest=(SmallestSize(structure=(2,), mm3=0.5),)),
            "postprocessing: keep the largest component of label 1, then remove components of label 2 below 0.5 mm3",
        ),
    ],
)
def test_rules_are_described_in_one_line(rules, line):
    """The description follows the order of application; labels with the same smallest size stand together."""
    assert rules.describe() == line


def test_a_size_is_one_in_space():
    """The same two voxels are small where voxels are small; a plane is measured by its area."""
    rules = PostprocessingRules(smallest=(SmallestSize(structure=(1,), mm3=3.0),))
    array = np.array([[[1, 1, 0, 2]]], dtype=np.uint8)
    assert apply(array, rules).tolist() == [[[0, 0, 0, 2]]]
    assert apply(array, rules, spacing_mm=(1.0, 1.5, 1.0)).tolist() == array.tolist()
    plane = on_grid(array, (4.0, 3.0, 0.5), dimensions=2)
    assert apply_rules(plane, rules).array.tolist() == array.tolist()
    assert not apply_rules(on_grid(array, (4.0, 2.0, 0.5), dimensions=2), rules).array[..., :2].any()


def test_a_mask_follows_the_rules_of_its_structure_only():
    """Only rules with the numbers of the structure apply, whatever other rules say."""
    mask = on_grid(np.array([[[1, 1, 0, 1, 0, 1, 1]]], dtype=np.uint8))
    small = PostprocessingRules(smallest=(SmallestSize(structure=(1, 3), mm3=2.0),))
    assert apply_to_mask(mask, (1, 3), small).array.tolist() == [[[1, 1, 0, 0, 0, 1, 1]]]
    assert apply_to_mask(mask, (1,), small).array.tolist() == mask.array.tolist()
    largest = PostprocessingRules(keep_largest=((1, 3),))
    assert apply_to_mask(mask, (1, 3), largest).array.tolist() == [[[1, 1, 0, 0, 0, 0, 0]]]


def test_rules_of_earlier_versions_can_be_read():
    """A file without sizes, and with a number in place of a structure's numbers."""
    text = '{"format_version": 1, "keep_largest_foreground": true, "keep_largest": [2, [1, 2]], "evidence": []}'
    rules = PostprocessingRules.parse(text, source="")
    assert (rules.keep_largest, rules.smallest) == (((2,), (1, 2)), ())


def test_the_evidence_of_a_rule_is_one_line():
    """The line names the rule and its effect; labels that are in no case do not enter the mean."""
    trial = Trial(rule="keep it", before={"a": 0.5, "b": float("nan")}, after={"a": 0.75, "b": 0.25}, adopted=False)
    assert trial.describe() == "keep it: mean Dice 0.5000 -> 0.5000, not adopted"


def test_the_background_has_no_rule(tmp_path):
    """An edited file that names label 0 is refused, by field."""
    path = tmp_path / "postprocessing.json"
    path.write_text('{"keep_largest": [0]}')
    with pytest.raises(ArtifactError, match=r"postprocessing\.json: keep_largest\.0"):
        PostprocessingRules.load(path)
