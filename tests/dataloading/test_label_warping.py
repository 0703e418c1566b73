"""Only the borders of structures are interpolated, and the result is that of interpolating all voxels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from autoseg.dataloading import label_warping
from autoseg.dataloading.label_warping import warp_labels
from autoseg.dataloading.warping import interpolate_labels

MATRICES = {
    "rotation": np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0],
    "identity": np.eye(3),
    "right angle": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "halves": np.diag([0.5, 0.5, 1.5]),
}


def make_label(shape, numbers, block):
    """Returns a label map of blocks."""
    coarse = np.random.default_rng(1).integers(-1, numbers - 1, [-(-size // block) for size in shape]).astype(np.int8)
    for axis, size in enumerate(shape):
        coarse = np.repeat(coarse, block, axis=axis).take(range(size), axis=axis)
    return coarse


def place(label, patch, matrix):
    """Returns offsets and grid of a patch about the centre of a label map."""
    axes = [torch.arange(size, dtype=torch.float32) - (size - 1) / 2 for size in patch]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) @ torch.from_numpy(matrix.T).float()
    extent = torch.tensor([max(size - 1, 1) for size in label.shape], dtype=torch.float32)
    return offsets, (offsets / extent * 2).flip(-1)[None]


def compare_all_shares(label, grid):
    """Interpolates the share of each label at all positions."""
    lowest, *others = np.unique(label)
    shares = [
        F.grid_sample(
            torch.from_numpy((label == value).astype(np.float32))[None, None],
            grid,
            align_corners=True,
            padding_mode="border",
        )[0, 0]
        for value in (lowest, *others)
    ]
    winner, best = torch.full(shares[0].shape, int(lowest), dtype=torch.int16), shares[0]
    for value, share in zip(others, shares[1:], strict=True):
        winner[share > best] = int(value)
        best = torch.maximum(best, share)
    return winner


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("shape", "patch", "block"),
    [((13, 14, 15), (9, 12, 20), 3), ((1, 14, 15), (1, 12, 20), 4), ((9, 9, 9), (8, 8, 8), 1)],
)
def test_labels_are_those_of_all_shares(matrix, shape, patch, block):
    """Each voxel is the same, also on the borders of cells, where half of a share ties, and beyond the case."""
    if shape[0] == 1:
        matrix_in_plane = MATRICES[matrix].copy()
        matrix_in_plane[0], matrix_in_plane[:, 0] = [1, 0, 0], [1, 0, 0]
    label = make_label(shape, 6, block)
    offsets, grid = place(label, patch, MATRICES[matrix] if shape[0] > 1 else matrix_in_plane)
    assert torch.equal(warp_labels(label, offsets, grid), compare_all_shares(label, grid))


def test_each_voxel_of_a_large_patch_is_that_of_all_shares():
    """Also where two shares differ in their last bit."""
    label = make_label((40, 44, 42), 9, 2)
    offsets, grid = place(label, (48, 40, 44), MATRICES["rotation"] / 1.1)
    assert torch.equal(warp_labels(label, offsets, grid), compare_all_shares(label, grid))


@pytest.mark.parametrize("matrix", MATRICES)
def test_many_labels_are_those_of_all_corners(matrix, monkeypatch):
    """The same holds where corners are compared."""
    monkeypatch.setattr(label_warping, "MOST_SHARES", 1)
    label = make_label((13, 14, 15), 40, 3)
    offsets, grid = place(label, (9, 12, 20), MATRICES[matrix])
    last = torch.tensor([14.0, 13.0, 12.0])
    expected = interpolate_labels(
        torch.from_numpy(label)[None], (offsets.flip(-1) + last / 2).movedim(-1, 0)[None], last
    )
    assert torch.equal(warp_labels(label, offsets, grid), expected[0].short())


def test_inside_of_structures_is_not_interpolated(monkeypatch):
    """A label map of large blocks has few voxels at their borders; one of a single label has none."""
    counted, interpolate = [], label_warping.interpolate_labels

    def count(labels, positions, *rest, **options):
        counted.append(positions[0, 0].numel())
        return interpolate(labels, positions, *rest, **options)

    monkeypatch.setattr(label_warping, "interpolate_labels", count)
    label = make_label((40, 40, 40), 4, 20)
    warp_labels(label, *place(label, (32, 32, 32), MATRICES["rotation"]))
    assert 0 < sum(counted) < 0.3 * 32**3
    counted.clear()
    assert (warp_labels(np.full((5, 5, 5), 7, np.int8), *place(np.zeros((5, 5, 5)), (4, 4, 4), np.eye(3))) == 7).all()
    assert counted == []
