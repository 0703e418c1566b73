"""Patches of networks with a margin: their voxels beyond the border of a case, and the labels that are predicted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from margin_cases import TARGETS, batches_of, case_of, configuration_of
from small_models import small_configuration

from autoseg.dataloading.cascade_labels import Beyond
from autoseg.dataloading.patch import crop_to_centre, place_patch
from autoseg.dataloading.sampling import InMemoryCase, MirroredCase
from autoseg.imaging.geometry import Box
from autoseg.imaging.label_encoding import code_base, decode_labels, decode_previous, encode_cascade
from autoseg.imaging.mirror_padding import mirror_indices
from autoseg.imaging.targets import OUTSIDE
from autoseg.preprocessing.foreground import sample_foreground

CPU = torch.device("cpu")


@given(size=st.integers(1, 9), first=st.integers(-40, 40), count=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_reflection_is_that_of_numpy(size, first, count):
    """This holds far beyond the border too, where numpy mirrors several times; the voxels read are contiguous."""
    far = 100
    expected = np.pad(np.arange(size), far, mode="reflect" if size > 1 else "edge")[far + first : far + first + count]
    found = mirror_indices(first, count, size)
    np.testing.assert_array_equal(found, expected)
    assert set(range(found.min(), found.max() + 1)) == set(found.tolist())


def test_case_goes_on_as_its_mirror_image_with_labels_that_do_not_count():
    """The ignore label is that of the dataset, or the next free number; voxels outside stay outside."""
    case = case_of((3, 4, 5))
    case.label[0, 0, 0] = OUTSIDE
    mirrored = MirroredCase(case=case, mark=Beyond(targets=TARGETS))
    image, label = mirrored.read(Box(start=(-7, -2, 1), stop=(5, 9, 4)))
    where = ((7, 2), (2, 5), (0, 0))
    full = np.pad(case.image[0, :, :, 1:4], where, mode="reflect")
    np.testing.assert_array_equal(image[0], full)
    labels = np.pad(case.label[:, :, 1:4], where, mode="reflect")
    beyond = np.pad(np.zeros((3, 4, 3), bool), where, constant_values=True)
    np.testing.assert_array_equal(label, np.where(beyond & (labels != OUTSIDE), 3, labels))
    ignoring = replace(TARGETS, ignore=7)
    assert ignoring.with_ignore is ignoring
    far = MirroredCase(case=case, mark=Beyond(targets=ignoring)).read(Box(start=(50, 50, 50), stop=(52, 52, 52)))[1]
    assert set(far.ravel().tolist()) <= {7, OUTSIDE}
    assert (mirrored.shape, mirrored.foreground) == (case.shape, case.foreground)


def test_codes_of_a_cascade_go_on_with_their_segmentation():
    """The labels are ignored there, and the segmentation is mirrored as the image is."""
    label, previous = (np.random.default_rng(seed).integers(0, 3, (1, 4, 5)).astype(np.int16) for seed in (0, 1))
    beyond = np.zeros(label.shape, bool)
    beyond[..., 3:] = True
    codes = Beyond(targets=TARGETS, is_cascade=True)(encode_cascade(label, previous, code_base(TARGETS)), beyond)
    base = code_base(TARGETS.with_ignore)
    np.testing.assert_array_equal(decode_labels(codes, base), np.where(beyond, 3, label))
    np.testing.assert_array_equal(decode_previous(codes, base), previous)


# --- Batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "patch"), [("unet", (24, 28)), ("unet_3d", (20, 24, 22))])
def test_labels_are_those_of_the_centre(name, patch):
    """A patch of the size of the centre would lie there; around it the case continues as its mirror image."""
    configuration, case = configuration_of(name, patch), case_of((6, 14, 13))
    batches, seen = batches_of(configuration, [case]), 0
    for number in range(30):
        batch = batches.make(number)
        assert batch.images.shape == (2, 1, *patch)
        assert batch.labels.shape == (2, *(edge - 16 for edge in patch))
        for image, labels in zip(batch.images[:, 0].numpy(), batch.labels.numpy(), strict=True):
            centre = image[tuple(slice(8, edge - 8) for edge in patch)]
            flat = dict(zip(case.image.ravel().tolist(), case.label.ravel().tolist(), strict=True))
            true = np.vectorize(flat.__getitem__)(centre)  # each voxel of the image is one of the case
            assert ((labels == true) | (labels == 3)).all()
            seen += int((labels == 3).any())
            assert (labels != 3).any()
    assert seen > 0  # forced patches stick out near the upper border


def test_centres_lie_where_patches_of_that_size_lie():
    """This holds for every draw, also where the case is smaller than the centre."""
    for shape in ((6, 14, 13), (30, 40, 50), (2, 3, 2)):
        case, margin = case_of(shape), np.array([8, 8, 8])
        one = configuration_of("unet_3d", (20, 24, 22))
        alone = small_configuration().model_copy(update={"patch_size": (4, 8, 6)})
        for forced in (False, True):
            places = [
                [place_patch(case, which, forced=forced, random=np.random.default_rng(seed)) for seed in range(20)]
                for which in (one, alone)
            ]
            np.testing.assert_array_equal(np.array(places[0]) + margin, places[1])


@pytest.mark.parametrize("augmentation_device", [None, CPU])
def test_changed_patches_see_no_border(augmentation_device):
    """A case of ones gives patches of ones with any warping, in both implementations."""
    configuration = configuration_of("unet_3d", (20, 24, 22))
    turning = configuration.augmentation.model_copy(
        update={
            **{key: 0.0 for key in type(configuration.augmentation).model_fields if key.endswith("probability")},
            "rotation_probability": 1.0,
            "scaling_probability": 1.0,
            "deformation_probability": 1.0,
        }
    )
    configuration = configuration.model_copy(update={"augmentation": turning})
    label = np.ones((7, 9, 8), np.int8)
    case = InMemoryCase(image=np.ones((1, 7, 9, 8), np.float32), label=label, foreground=sample_foreground(label))
    batch = batches_of(configuration, [case], augmented=True, augmentation_device=augmentation_device).make(0)
    torch.testing.assert_close(batch.images, torch.ones_like(batch.images), rtol=1e-4, atol=1e-4)
    assert set(batch.labels.unique().tolist()) == {1, 3}
    assert batch.labels.shape == (2, 4, 8, 6)


def test_both_ways_of_changing_patches_give_the_same():
    """This holds with all changes, also beyond the border."""
    configuration = configuration_of("unet", (24, 28))
    cases = [case_of((4, 20, 22), seed) for seed in range(2)]
    for number in range(4):
        one, other = (
            batches_of(configuration, cases, augmented=True, augmentation_device=where).make(number)
            for where in (None, CPU)
        )
        torch.testing.assert_close(one.images, other.images, rtol=1e-3, atol=1e-3)
        assert (one.labels == other.labels).float().mean() > 0.98


def test_cascade_sees_the_segmentation_beyond_the_border():
    """It sees it as it sees the image: the channels are as large as the patch, the labels as the centre."""
    channels = small_configuration().architecture.model_copy(update={"in_channels": 3})
    configuration = configuration_of("unet_3d", (20, 24, 22), architecture=channels, previous="3d_lowres")
    case = case_of((6, 14, 13))
    former = np.where(case.image[0] > 0, 1, 2).astype(np.int16)
    codes = InMemoryCase(
        image=case.image, label=encode_cascade(case.label, former, code_base(TARGETS)), foreground=case.foreground
    )
    batch = batches_of(configuration, [codes], previous=TARGETS).make(0)
    assert batch.images.shape == (2, 3, 20, 24, 22)
    np.testing.assert_array_equal(batch.images[:, 1] == 1, batch.images[:, 0] > 0)
    np.testing.assert_array_equal(batch.images[:, 2] == 1, batch.images[:, 0] <= 0)
    plain = batches_of(configuration_of("unet_3d", (20, 24, 22)), [case]).make(0)
    assert torch.equal(batch.labels, plain.labels)
    assert torch.equal(batch.images[:, :1], plain.images)


def test_labels_are_cropped_evenly():
    """As many voxels are cropped on both sides of each axis."""
    labels = torch.arange(2 * 6 * 8).reshape(2, 6, 8)
    assert torch.equal(crop_to_centre(labels, (2, 0)), labels[:, 2:4])
    assert torch.equal(crop_to_centre(labels, (1, 3)), labels[:, 1:5, 3:5])
    assert crop_to_centre(labels, (0, 0)) is not None
