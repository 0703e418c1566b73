"""Label maps of structures that may overlap."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.imaging.label_combinations import combine, number_masks, split_label_map
from autoseg.imaging.targets import Targets

MASKS = st.integers(1, 5).flatmap(lambda count: arrays(np.uint8, (count, 2, 3, 4), elements=st.integers(0, 1)))
OVERLAPPING = Targets(structures={"ribs": (1, 3), "lung": (2, 3), "tube": (4,)}, exclusive=False)


@settings(max_examples=50, deadline=None)
@given(masks=MASKS)
def test_codes_stand_for_the_structures_of_their_voxels(masks):
    """Each voxel's code leads to exactly the masks that hold it; no structure is 0."""
    codes, combinations = combine(enumerate(masks), masks.shape[1:])
    assert combinations[0] == ()
    assert len(set(combinations)) == len(combinations)
    for place, mask in enumerate(masks):
        holds = np.array([place in combination for combination in combinations])
        np.testing.assert_array_equal(holds[codes], mask.astype(bool))


@settings(max_examples=50, deadline=None)
@given(masks=arrays(np.uint8, (3, 2, 3, 4), elements=st.integers(0, 1)))
def test_masks_come_back_from_their_label_map(masks):
    """Known combinations keep the dataset's numbers, others get new ones beyond them."""
    label, known = number_masks(masks, masks.shape[1:], OVERLAPPING)
    for mask, again in zip(masks, split_label_map(label, known), strict=True):
        np.testing.assert_array_equal(again, mask.astype(bool))
    only_ribs = (masks[0] == 1) & (masks[1] == 0) & (masks[2] == 0)
    both = (masks[0] == 1) & (masks[1] == 1) & (masks[2] == 0)
    assert set(label[only_ribs]) <= {1}
    assert set(label[both]) <= {3}
    for name, numbers in OVERLAPPING.structures.items():
        assert set(numbers) <= set(known.structures[name])
        assert not set(known.structures[name]) - set(numbers) & OVERLAPPING.values


def test_values_of_no_structure_are_in_no_mask():
    """Neither what lies outside nor what nobody labelled."""
    label = np.array([[[-1, 0, 3, 9, 4]]], dtype=np.int16)
    masks = [mask.ravel().tolist() for mask in split_label_map(label, OVERLAPPING)]
    assert masks == [[False, False, True, False, False]] * 2 + [[False] * 4 + [True]]
