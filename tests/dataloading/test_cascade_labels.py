"""Tests of the coarse segmentation that the network of a cascade gets beside the image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from autoseg.dataloading import cascade_labels as module
from autoseg.dataloading.cascade_labels import DisturbedCase, FollowingCase, disturb
from autoseg.dataloading.label_swaps import swap_labels, swap_table
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.imaging.geometry import Box
from autoseg.imaging.label_encoding import code_base, decode_labels, decode_previous, encode_cascade, swapped_code_pairs
from autoseg.imaging.structure_masks import structure_channels
from autoseg.imaging.targets import Targets
from autoseg.preprocessing.foreground import Foreground, sample_foreground

TARGETS = Targets.of_labels({"first": 1, "second": 2, "third": 3})
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))
BASE = code_base(TARGETS)
SHAPE = (12, 14, 16)


def blobs(seed: int = 0) -> np.ndarray:
    """Returns a segmentation of three structures, with components of several sizes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    return np.digitize(noise, np.quantile(noise, [0.4, 0.8, 0.9])).astype(np.int16)


@settings(max_examples=40, deadline=None)
@given(
    label=arrays(np.int8, (2, 3, 4), elements=st.integers(-1, 3)),
    previous=arrays(np.int8, (2, 3, 4), elements=st.integers(0, 3)),
)
def test_label_and_segmentation_come_back_from_their_codes(label, previous):
    """Decoding works for arrays and tensors; voxels outside stay outside."""
    codes = encode_cascade(label, previous, BASE)
    for given_codes in (codes, torch.from_numpy(codes).long()):
        np.testing.assert_array_equal(np.asarray(decode_labels(given_codes, BASE)), label)
        expected = np.where(label == -1, 0, previous)
        np.testing.assert_array_equal(np.asarray(decode_previous(given_codes, BASE)), expected)


def test_the_codes_of_the_docstring():
    """With the base 3, label 2 and segmentation 1 are the code 5."""
    assert encode_cascade(np.array([[[2]]]), np.array([[[1]]]), 3).item() == 5


def test_each_structure_has_a_channel():
    """The channel of a region holds all numbers of the region."""
    previous = torch.tensor([[[[0, 1, 2]]]])
    assert structure_channels(previous, REGIONS.structures.values()).tolist() == [[[[[0, 1, 1]]], [[[0, 0, 1]]]]]


def test_pairs_of_codes_exchange_both_maps_at_once():
    """A flip from left to right swaps the kidneys in the labels and in the segmentation."""
    label = torch.tensor([[0, 1, 2, 3, 1, 0, -1]])
    previous = torch.tensor([[1, 1, 0, 3, 2, 3, 0]])
    codes = torch.from_numpy(encode_cascade(label.numpy(), previous.numpy(), BASE))
    swapped = swap_labels(codes, swap_table(swapped_code_pairs(((1, 3),), BASE)))
    assert decode_labels(swapped, BASE).tolist() == [[0, 3, 2, 1, 3, 0, -1]]
    assert decode_previous(swapped, BASE).tolist() == [[3, 3, 0, 1, 2, 1, 0]]
    assert swapped_code_pairs((), BASE) == ()


# --- Disturbance ------------------------------------------------------------------------------------------------------


def only(monkeypatch: pytest.MonkeyPatch, **probabilities: float) -> None:
    """Sets the probabilities of the changes; those that are not named are zero."""
    for name in ("OPERATION", "REMOVAL"):
        monkeypatch.setattr(module, f"{name}_PROBABILITY", probabilities.get(name.lower(), 0.0))
    monkeypatch.setattr(module, "STRUCTURE_PROBABILITY", 1.0)


def test_labels_are_never_disturbed(monkeypatch):
    """Only the segmentation changes, and voxels outside stay outside."""
    only(monkeypatch, operation=1.0, removal=1.0)
    label = blobs(1)
    label[:2] = -1
    codes = encode_cascade(label, blobs(), BASE)
    for seed in range(10):
        changed = disturb(codes, TARGETS, np.random.default_rng(seed))
        np.testing.assert_array_equal(decode_labels(changed, BASE), label)
        assert changed.min() == -1
        assert decode_previous(changed, BASE).max() <= 3


def test_nothing_changes_where_chance_says_so(monkeypatch):
    """The probabilities of the reference method are 0.4 and 0.2."""
    assert (module.OPERATION_PROBABILITY, module.REMOVAL_PROBABILITY) == (0.4, 0.2)
    codes = encode_cascade(blobs(1), blobs(), BASE)
    changed = [not np.array_equal(disturb(codes, TARGETS, np.random.default_rng(seed)), codes) for seed in range(300)]
    assert 0.3 < np.mean(changed) < 0.52
    only(monkeypatch)
    np.testing.assert_array_equal(disturb(codes, TARGETS, np.random.default_rng(0)), codes)


def test_structures_grow_shrink_and_lose_components(monkeypatch):
    """Each of the changes happens, to each of the structures."""
    one = Targets.of_labels({"first": 1})
    label, previous = np.zeros(SHAPE, np.int16), np.zeros(SHAPE, np.int16)
    previous[3:8, 3:9, 3:10] = 1
    previous[10:11, 12:13, 13:14] = 1
    codes, base = encode_cascade(label, previous, code_base(one)), code_base(one)
    only(monkeypatch, operation=1.0)
    monkeypatch.setattr(module, "RADIUS", (1.5, 2.5))

    def count(seed: int) -> int:
        return int((decode_previous(disturb(codes, one, np.random.default_rng(seed)), base) == 1).sum())

    sizes = {count(seed) for seed in range(30)}
    before = int((previous == 1).sum())
    assert min(sizes) < before < max(sizes)
    only(monkeypatch, removal=1.0)
    assert {count(seed) for seed in range(20)} == {before - 1, before - 5 * 6 * 7}
    large = encode_cascade(label, np.ones(SHAPE, np.int16), base)
    np.testing.assert_array_equal(disturb(large, one, np.random.default_rng(0)), large)


def test_a_case_is_disturbed_the_same_way_each_time(monkeypatch):
    """The changes depend on the seed alone, however often a box is read."""
    only(monkeypatch, operation=1.0)
    label, previous = blobs(1).astype(np.int8), blobs()
    image = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    case = InMemoryCase(image=image, label=label, foreground=sample_foreground(label))
    codes = InMemoryCase(image=image[:0], label=encode_cascade(label, previous, BASE), foreground=Foreground.of([]))
    both = FollowingCase(case=case, codes=codes)
    box = Box(start=(1, 2, 3), stop=(9, 12, 14))
    np.testing.assert_array_equal(both.read(box)[0], case.read(box)[0])
    np.testing.assert_array_equal(both.read(box)[1], codes.read(box)[1])
    assert both.shape == SHAPE
    assert both.foreground is case.foreground
    disturbed = DisturbedCase(case=both, targets=TARGETS, seed=5)
    np.testing.assert_array_equal(disturbed.read(box)[1], disturbed.read(box)[1])
    assert not np.array_equal(disturbed.read(box)[1], both.read(box)[1])
