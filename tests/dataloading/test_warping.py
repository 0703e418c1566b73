"""Patches that are warped as a batch equal those that are warped one by one."""

import numpy as np
import pytest
import torch
from changed_patches import WAYS, change, cut_out, make_case, only
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataloading import label_warping, warping
from autoseg.dataloading.augmentation_parameters import AugmentationParameters
from autoseg.dataloading.sampling import read_patch
from autoseg.dataloading.warping import interpolate_labels
from autoseg.imaging.targets import OUTSIDE

QUARTER = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def blobs(shape, labels=3, seed=0):
    """Returns a label map of connected components."""
    coarse = np.random.default_rng(seed).integers(-1, labels, [-(-size // 3) for size in shape]).astype(np.int8)
    for axis, size in enumerate(shape):
        coarse = np.repeat(coarse, 3, axis=axis).take(range(size), axis=axis)
    return coarse


def last_voxels(shape):
    """Returns the index of the last voxel along each axis, the last axis first."""
    return torch.tensor([size - 1.0 for size in reversed(shape)])


def shares(labels, voxels):
    """Returns the interpolated share of each label at a position, calculated by hand."""
    found = {}
    for value in np.unique(labels):
        share = np.zeros(voxels.shape[1:])
        for corner in np.ndindex(*(2,) * labels.ndim):
            weight, index = np.ones(voxels.shape[1:]), []
            for axis, end in enumerate(corner):
                place = np.clip(voxels[axis], 0, labels.shape[axis] - 1)
                low = np.floor(place)
                weight *= (place - low) if end else 1 - (place - low)
                index.append(np.minimum(low.astype(int) + end, labels.shape[axis] - 1))
            share += weight * (labels[tuple(index)] == value)
        found[int(value)] = share
    return found


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 7), (1, 6, 7)])
def test_label_with_the_largest_share_wins(shape):
    """The label is that of the calculation by hand, but for ties; beyond the border, the border counts."""
    labels = blobs(shape, labels=4)
    voxels = np.random.default_rng(1).uniform(-1, np.array(shape)[:, None], (len(shape), 500)).astype(np.float32)
    positions = torch.from_numpy(np.ascontiguousarray(voxels[::-1]))[None]
    elected = interpolate_labels(torch.from_numpy(labels)[None], positions, last_voxels(shape))[0].numpy()
    by_hand = shares(labels, voxels)
    best = np.max(list(by_hand.values()), axis=0)
    assert all(by_hand[int(value)][place] >= best[place] - 1e-5 for place, value in enumerate(elected))
    assert elected.dtype == labels.dtype


def test_smallest_label_wins_a_tie():
    """The positions are half way between two voxels; the numbers of the labels are never averaged."""
    labels = torch.tensor([[9, 2, 255, -1]], dtype=torch.int16)
    places = torch.tensor([[0.5, 1.5, 2.5, 0.0]])
    assert interpolate_labels(labels, places[None], last_voxels((4,))).tolist() == [[2, 2, -1, 9]]


def test_slabs_change_nothing(monkeypatch):
    """Many positions are calculated in several slabs."""
    labels = torch.from_numpy(blobs((9, 9, 9)))[None].expand(2, 9, 9, 9)
    positions = torch.rand(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(0)) * 8
    whole = interpolate_labels(labels, positions, last_voxels((9, 9, 9)))
    monkeypatch.setitem(warping.MOST_CORNERS, "cpu", 500)
    assert torch.equal(interpolate_labels(labels, positions, last_voxels((9, 9, 9))), whole)


def test_many_labels_are_read_as_few(monkeypatch):
    """Above a number of labels the corners are compared, with the same result."""
    case = make_case(np.zeros((1, 20, 20, 20)), blobs((20, 20, 20), labels=6))
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    _, few = read_patch(case, (4, 4, 4), (12, 12, 12), matrix)
    monkeypatch.setattr(label_warping, "MOST_SHARES", 1)
    _, many = read_patch(case, (4, 4, 4), (12, 12, 12), matrix)
    assert few.dtype == many.dtype
    assert (few != many).float().mean() < 1e-3
    assert len(few.unique()) == 7


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("patch", [(7, 9, 11), (8, 10, 12), (9, 11), (8, 12)])
def test_identity_reads_the_patch_itself(way, patch):
    """This holds for a deformation of zeros, along axes of even and odd size."""
    image = np.random.default_rng(0).normal(size=(2, 13, 15, 17))
    case = make_case(image, blobs((13, 15, 17)))
    points = np.zeros((len(patch), *(2,) * len(patch)), np.float32)
    settings = only(deformation_spacing_voxels=50.0, rotation_axes=() if len(patch) == 3 else (0,))
    pairs = [
        change(way, [cut_out(case, patch, draw)], settings)
        for draw in (AugmentationParameters(), AugmentationParameters(displacements=points))
    ]
    assert torch.allclose(pairs[0][0], pairs[1][0], atol=1e-4)
    assert torch.equal(pairs[0][1], pairs[1][1])
    assert pairs[0][0].shape == (1, 2, *patch)


@pytest.mark.parametrize("way", WAYS)
def test_turn_by_a_right_angle_equals_rot90(way):
    """The same voxels are read in another order, beside a patch that is not warped."""
    case = make_case(np.random.default_rng(0).normal(size=(1, 5, 8, 8)), blobs((5, 8, 8)))
    cuts = [cut_out(case, (5, 8, 8)), cut_out(case, (5, 8, 8), AugmentationParameters(affine=QUARTER))]
    images, labels = change(way, cuts, only())
    assert torch.equal(images[0], torch.from_numpy(case.image))
    assert torch.allclose(images[1], torch.rot90(images[0], -1, (2, 3)), atol=1e-4)
    assert torch.equal(labels[1], torch.rot90(labels[0], -1, (1, 2)))


@pytest.mark.parametrize("way", WAYS)
def test_corners_of_a_turned_patch_are_read_from_the_case(way):
    """The patch includes voxels around it; zeros begin where the case ends."""
    case = make_case(np.ones((1, 40, 40, 40)))
    draw = AugmentationParameters(affine=np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0] / 0.8)
    images, _ = change(way, [cut_out(case, (16, 16, 16), draw)], only())
    assert torch.allclose(images, torch.ones_like(images), atol=1e-4)
    images, _ = change(way, [cut_out(case, (40, 40, 40), draw)], only())
    assert (images == 0).any()


def test_turned_patch_marks_what_is_outside():
    """Where the image is padded with zeros, the label is `OUTSIDE`."""
    case = make_case(np.ones((1, 12, 12, 12)))
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    image, label = read_patch(case, (0, 0, 0), (12, 12, 12), turned)
    assert (label[image[0] < 0.01] == OUTSIDE).all()
    assert (label[image[0] > 0.99] == 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_deformation_moves_voxels_by_its_field(way):
    """With equal displacements of all points, the patch is read at another place."""
    case = make_case(np.random.default_rng(0).normal(size=(1, 20, 20, 20)), blobs((20, 20, 20)))
    points = np.zeros((3, 2, 2, 2), np.float32)
    points[0], points[2] = 2.0, -3.0
    settings = only(deformation_spacing_voxels=30.0)
    images, labels = change(way, [cut_out(case, (8, 8, 8), AugmentationParameters(displacements=points))], settings)
    assert torch.allclose(images[0, 0], torch.from_numpy(case.image[0, 8:16, 6:14, 3:11]), atol=1e-4)
    assert np.array_equal(labels[0].numpy(), np.maximum(case.label[8:16, 6:14, 3:11], 0))


@pytest.mark.parametrize("way", WAYS)
def test_thick_slices_are_deformed_within_themselves(way):
    """All slices of a patch are deformed alike, so each equals the plane of a 2D patch."""
    case = make_case(np.random.default_rng(0).normal(size=(1, 5, 30, 30)), blobs((5, 30, 30)))
    points = np.random.default_rng(1).normal(0, 2, (2, 3, 3)).astype(np.float32)
    settings = only(deformation_spacing_voxels=10.0, rotation_axes=(0,))
    draw = AugmentationParameters(displacements=points)
    volume, labels = change(way, [cut_out(case, (3, 20, 20), draw)], settings)
    plane, plane_labels = change(way, [cut_out(case, (20, 20), draw)], settings)
    assert torch.allclose(volume[:, :, 1], plane, atol=1e-4)
    assert torch.equal(labels[:, 1], plane_labels)


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 9), st.integers(2, 12), st.integers(2, 12)),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_both_ways_read_the_same_patch(seed, patch, flat, deformed):
    """This holds for any rotation, scaling, deformation and size, inside the case and partly beyond it."""
    random = np.random.default_rng(seed)
    case = make_case(random.normal(size=(2, 9, 11, 10)), blobs((9, 11, 10), seed=seed))
    settings = only(rotation_axes=(0,) if flat else (0, 1, 2), deformation_spacing_voxels=6.0)
    patch_size = patch[1:] if flat else patch
    axes = len(patch_size)
    affine = np.linalg.qr(random.normal(size=(axes, axes)))[0] / random.uniform(0.7, 1.4)
    points = [2 if size <= 7 else 3 for size in patch_size]
    moves = random.normal(0, 1.5, (axes, *points)).astype(np.float32)
    draws = [
        AugmentationParameters(affine=affine, displacements=moves if deformed else None),
        AugmentationParameters(affine=affine.T),
        AugmentationParameters(),
    ]
    cuts = [cut_out(case, patch_size, draw) for draw in draws]
    one, other = (change(way, cuts, settings) for way in WAYS)
    assert torch.allclose(one[0], other[0], atol=2e-3)
    assert (one[1] != other[1]).float().mean() < 0.01
