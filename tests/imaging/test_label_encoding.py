"""The encodings of label maps between image file and loss."""

import doctest

import numpy as np
import pytest
import torch

from autoseg.imaging import label_encoding, structure_masks
from autoseg.imaging.label_encoding import encode_targets, ignore_beyond, mark_outside
from autoseg.imaging.targets import OUTSIDE, Targets


@pytest.mark.parametrize("module", [label_encoding, structure_masks])
def test_the_examples_of_the_docstrings_hold(module):
    """Among them the ten voxels that go through all encodings."""
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(("highest", "dtype"), [(1, np.int8), (127, np.int8), (128, np.int16), (40000, np.int32)])
def test_marking_the_zero_border_takes_the_smallest_type(highest, dtype):
    """Structures outside the nonzero region stay; only background is marked."""
    labels = np.array([0, highest, 0, highest], dtype=np.int32)
    marked = mark_outside(labels, np.array([True, True, False, False]))
    assert marked.dtype == dtype
    assert marked.tolist() == [0, highest, OUTSIDE, highest]


def test_a_dataset_with_an_ignore_number_uses_it_beyond_the_border():
    """Without one it is the next free number, as the example of the module shows."""
    targets = Targets.of_labels({"liver": 1, "spleen": 2}, ignore=5)
    labels = ignore_beyond(np.array([0, 1, OUTSIDE], np.int8), np.array([True, True, True]), targets)
    assert labels.tolist() == [5, 5, OUTSIDE]


def test_targets_have_no_outside():
    """Their type stays that of patches, which is copied and compared faster than 64 bits."""
    targets = encode_targets(torch.tensor([-1, 0, 3], dtype=torch.int16))
    assert targets.dtype == torch.int16
    assert targets.tolist() == [0, 0, 3]
