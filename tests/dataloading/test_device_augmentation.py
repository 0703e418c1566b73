"""Batches that a device augments equal those that threads augment."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from augmented_batches import PATCH, SHAPE, make_batches
from changed_patches import CPU, OFF

from autoseg.dataloading.device_augmentation import stack_unaugmented
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.imaging.targets import OUTSIDE
from autoseg.preprocessing.foreground import sample_foreground


@pytest.mark.parametrize(
    ("dimensions", "changes"),
    [(2, {}), (3, {}), (3, {"rotation_axes": (0,), "rotation_degrees": 180.0}), (3, dict.fromkeys(OFF, 1.0))],
)
def test_batches_are_those_of_the_threads(dimensions, changes):
    """The same parameters give the same patches, with all changes together, up to rounding."""
    threads = make_batches(dimensions, **changes)
    device = replace(threads, augmentation_device=CPU)
    for number in range(8):
        one, other = threads.make(number), device.make(number)
        assert one.images.shape == other.images.shape == (5, 2, *PATCH[-dimensions:])
        assert one.labels.dtype == other.labels.dtype == torch.int16
        assert torch.allclose(one.images, other.images, atol=3e-3)
        assert (one.labels != other.labels).float().mean() < 1e-3
        assert other.labels.min() == 0
        assert set(other.labels.unique().tolist()) <= {0, 1, 2, 3}


@pytest.mark.parametrize("name", sorted(OFF))
def test_each_row_is_that_of_the_threads(name):
    """Each change alone, with probability one, gives the same patches, and changes them."""
    alone = {**dict.fromkeys(OFF, 0.0), name: 1.0, "mirror_axes": (), "swap_axis": None, "swapped_labels": ()}
    threads = make_batches(**alone)
    plain = replace(threads, augmented=False)
    one, other = threads.make(0), replace(threads, augmentation_device=CPU).make(0)
    assert torch.allclose(one.images, other.images, atol=1e-3)
    assert not torch.allclose(one.images, plain.make(0).images, atol=1e-3)


def test_batches_without_changes_are_plain():
    """Without changes the images stay as they are; labels outside the case become background."""
    off = {**dict.fromkeys(OFF, 0.0), "mirror_axes": (), "swap_axis": None, "swapped_labels": ()}
    threads = make_batches(**off)
    batch = replace(threads, augmentation_device=CPU).make(0)
    assert torch.equal(batch.images, threads.make(0).images)
    assert torch.equal(batch.labels, threads.make(0).labels)


@pytest.mark.parametrize("way", [None, CPU])
def test_channels_that_are_zero_outside_stay_so(way):
    """Noise, contrast and gamma are undone there; the other channel keeps its values."""
    complete = make_batches(missing_channels_probability=0.0)
    batches = replace(complete, augmentation_device=way, cases=[one_sided_case()])
    for number in range(4):
        images = batches.make(number).images
        assert (images[:, 0] == 0).any()
        assert (images[:, 1] != 0).float().mean() > 0.9


def one_sided_case():
    """Returns a case that is outside in its first half, and nowhere zero in its second channel."""
    label = np.zeros(SHAPE, np.int8)
    label[:, :, :11] = OUTSIDE
    image = np.full((2, *SHAPE), 1.5, np.float32)
    image[0, label == OUTSIDE] = 0
    image += np.random.default_rng(0).normal(0, 0.1, image.shape).astype(np.float32) * (image != 0)
    return InMemoryCase(image=image, label=label, foreground=sample_foreground(label, []))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_finished(workers):
    """Threads prepare the batches, and the caller gets images and labels."""
    device = replace(make_batches(), augmentation_device=CPU)
    ahead = list(device.ahead(range(2, 6), workers=workers))
    assert all(torch.equal(batch.images, device.make(2 + index).images) for index, batch in enumerate(ahead))


def test_batches_that_are_not_augmented_are_ready():
    """Validation patches are not augmented on the device."""
    plain = replace(make_batches(), augmented=False)
    assert torch.equal(replace(plain, augmentation_device=CPU).make(1).images, plain.make(1).images)


def test_memory_of_a_batch_that_waits_is_bounded():
    """Patches that are not warped are held as they are, the others with their source regions only."""
    off = {**dict.fromkeys(OFF, 0.0), "rotation_probability": 0.5, "scaling_probability": 1.0}
    batches = make_batches(**off, scaling_factor=(2.0, 2.5))
    cuts = [batches._sample_region(index, np.random.default_rng(index)) for index in range(5)]
    settings = batches.configuration.augmentation
    unaugmented = stack_unaugmented(cuts, [cut.read_source_region(settings) for cut in cuts], settings, [])
    images, labels = unaugmented.to_warp
    assert images.shape[2:] == labels.shape[1:] == PATCH  # twice as large structures need half of the patch
    assert labels.dtype == torch.int16
    assert unaugmented.changes.noise is None
    assert unaugmented.plain[0].shape == (0, 2, *PATCH)
