"""Fields are smooth and go through their points."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataloading.deformation import count_points, smooth_field, spline_tensors, spline_weights


@pytest.mark.parametrize(
    ("size", "spacing", "points"), [(5, 4, 2), (128, 127, 2), (64, 127, 2), (128, 32, 5), (1, 32, 2), (10, 0.5, 19)]
)
def test_points_reach_over_the_axis(size, spacing, points):
    """There are at least two points, as V-Net has them for a whole scan."""
    assert count_points(size, spacing) == points
    assert spline_weights(size, spacing).shape == (size, points)


@given(st.integers(1, 60), st.floats(1, 80))
@settings(max_examples=40, deadline=None)
def test_constant_movements_stay_constant_and_mirror(size, spacing):
    """The weights of each voxel sum to one, and are symmetric about the middle of the axis."""
    weights = spline_weights(size, spacing)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(weights, weights[::-1, ::-1], atol=1e-5)


def test_field_goes_through_its_points():
    """Nine voxels with a spacing of 4 have points on the voxels 0, 4 and 8."""
    displacements = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    field = smooth_field(displacements, spline_tensors((9, 9), 4.0))
    assert field.shape == (2, 9, 9)
    assert torch.allclose(field[:, ::4, ::4], displacements, atol=1e-5)


def test_field_is_smooth():
    """Neighbouring voxels have similar displacements, and between points the spline is the usual cubic."""
    field = smooth_field(torch.tensor([[0.0, 1.0]]), spline_tensors((33,), 32.0))[0]
    assert field.diff().abs().max() < 0.06
    assert field.diff().diff().abs().max() < 0.01
    assert field[16].item() == pytest.approx(0.5, abs=1e-5)
    assert (field.diff() > 0).all()


def test_batches_of_fields_are_those_of_each():
    """Leading axes stay as they are."""
    displacements = torch.randn(4, 3, 2, 3, 2, generator=torch.Generator().manual_seed(1))
    together = smooth_field(displacements, spline_tensors((6, 20, 9), 10.0))
    for one, field in zip(displacements, together, strict=True):
        assert torch.allclose(smooth_field(one, spline_tensors((6, 20, 9), 10.0)), field, atol=1e-6)
