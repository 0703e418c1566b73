"""Patches are placed where they should be, and warped patches are read correctly."""

import numpy as np
import pytest
import torch

from autoseg.dataloading.affine import draw_affine
from autoseg.dataloading.sampling import InMemoryCase, choose_start, count_forced, read_patch
from autoseg.imaging.targets import OUTSIDE
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.foreground import Foreground


def make_case(shape, voxel=None):
    """Returns a case whose image holds the index of each voxel and whose label marks one of them."""
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    label = np.zeros(shape, dtype=np.int8)
    groups = []
    if voxel is not None:
        label[voxel] = 1
        groups.append(np.array([voxel]))
    return InMemoryCase(image=image, label=label, foreground=Foreground.of(groups))


@pytest.mark.parametrize(("batch", "forced"), [(2, 1), (3, 1), (4, 1), (5, 2), (9, 3), (12, 4), (49, 16)])
def test_number_of_forced_patches_is_golden(batch, forced):
    """The counts are those of nnU-Net v2.8.1 for a third."""
    assert count_forced(batch, 0.33) == forced


def test_ordinary_patches_lie_inside_and_reach_both_borders():
    """Starts along 10 voxels with a patch of 4 are 0 to 6, and all of them occur."""
    random = np.random.default_rng(0)
    case = make_case((10, 10, 10))
    starts = {choose_start(case, (4, 4, 4), forced=False, random=random)[0] for _ in range(200)}
    assert starts == set(range(7))


def test_patch_larger_than_the_case_is_centred():
    """As in the docstring's example, a patch of 14 on 10 voxels starts at -2."""
    start = choose_start(make_case((10, 10, 10)), (14, 14, 14), forced=False, random=np.random.default_rng(0))
    assert start == (-2, -2, -2)


@pytest.mark.parametrize(("voxel", "expected"), [(1, 0), (5, 3), (9, 7)])
def test_forced_patches_are_centred_on_foreground(voxel, expected):
    """The docstring's examples hold, along one axis of 10 voxels with a patch of 4."""
    case = make_case((10, 10, 10), (voxel, voxel, voxel))
    assert choose_start(case, (4, 4, 4), forced=True, random=np.random.default_rng(0)) == (expected,) * 3


def test_case_without_foreground_is_sampled_anyway():
    """A forced patch of an empty case is an ordinary one."""
    start = choose_start(make_case((6, 6, 6)), (4, 4, 4), forced=True, random=np.random.default_rng(0))
    assert all(0 <= first <= 2 for first in start)


def test_patch_that_sticks_out_is_padded():
    """Beyond the border the image is 0 and the label is `OUTSIDE`."""
    image, label = read_patch(make_case((3, 3, 3)), (-1, 0, 2), (3, 3, 3), None)
    assert image.shape == (1, 3, 3, 3)
    assert (image[0, 0] == 0).all()
    assert (label[0] == OUTSIDE).all()
    assert (label[1:, :, 1:] == OUTSIDE).all()
    assert image[0, 1, 0, 0] == 2


def test_patch_beside_the_case_is_all_outside():
    """A patch that lies beside the case is empty."""
    image, label = read_patch(make_case((3, 3, 3)), (9, 9, 9), (2, 2, 2), None)
    assert (image == 0).all()
    assert (label == OUTSIDE).all()


def test_turn_by_a_right_angle_equals_rot90():
    """A rotation of 90 degrees about z reads the same voxels in another order."""
    case = make_case((5, 7, 7), (2, 1, 5))
    quarter = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    image, label = read_patch(case, (0, 0, 0), (5, 7, 7), quarter)
    straight = torch.from_numpy(case.image)
    assert torch.allclose(image, torch.rot90(straight, 1, (2, 3)), atol=1e-2) or torch.allclose(
        image, torch.rot90(straight, -1, (2, 3)), atol=1e-2
    )
    assert image[0, label == 1].item() == pytest.approx(straight[0, 2, 1, 5].item(), abs=1e-2)


def test_scaling_makes_structures_larger():
    """A factor of 2 doubles the extent of a cube about the centre."""
    image = np.zeros((1, 21, 21, 21), dtype=np.float32)
    image[:, 8:13, 8:13, 8:13] = 1
    case = InMemoryCase(image=image, label=image[0].astype(np.int8), foreground=Foreground.of([]))
    _, label = read_patch(case, (0, 0, 0), (21, 21, 21), np.eye(3) / 2)
    assert label[10, 10].sum() in (9, 10, 11)
    assert 9**3 <= int(label.sum()) <= 11**3


def test_plane_is_turned_within_itself():
    """A 2D rotation of a slice reads that slice only."""
    case = make_case((3, 9, 9))
    quarter = np.array([[0.0, -1], [1, 0]])
    image, _ = read_patch(case, (1, 0, 0), (1, 9, 9), quarter)
    expected = sorted(case.image[0, 1].ravel().tolist())
    assert np.allclose(sorted(image.ravel().tolist()), expected, atol=1e-2)


def test_affine_is_drawn_as_often_as_its_probability_says():
    """With both probabilities zero there is no matrix; with both one, there is always one."""
    random = np.random.default_rng(0)
    never = AugmentationSettings(rotation_probability=0, scaling_probability=0)
    always = AugmentationSettings(rotation_probability=1, scaling_probability=0)
    assert all(draw_affine(never, 3, random) is None for _ in range(20))
    matrices = [draw_affine(always, 3, random) for _ in range(20)]
    assert all(np.allclose(matrix @ matrix.T, np.eye(3)) for matrix in matrices)


def test_scaling_matrix_is_the_inverse_of_the_factor():
    """Structures appear larger when the case is read in smaller steps."""
    random = np.random.default_rng(0)
    larger = AugmentationSettings(rotation_probability=0, scaling_probability=1, scaling_factor=(1.3, 1.4))
    matrix = draw_affine(larger, 2, random)
    assert matrix.shape == (2, 2)
    assert 1 / 1.4 <= matrix[0, 0] <= 1 / 1.3
