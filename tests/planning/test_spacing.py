"""The target grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_cases import fingerprint_of

from autoseg.errors import DatasetError
from autoseg.planning.presets import RULES
from autoseg.planning.spacing import choose_grid, explain_grid

sizes = st.tuples(*[st.integers(4, 400)] * 3)
steps = st.tuples(*[st.floats(0.05, 12)] * 3)


@given(st.lists(st.tuples(sizes, steps), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_the_first_axis_is_the_coarsest(cases):
    """For any cases, the axes are reordered such that none is coarser than the first."""
    grid = choose_grid(fingerprint_of([shape for shape, _ in cases], [spacing for _, spacing in cases]))
    assert sorted(grid.axis_order) == [0, 1, 2]
    assert grid.spacing_mm[0] == max(grid.spacing_mm)
    assert min(grid.median_shape) >= 1


@given(st.tuples(*[st.integers(1, 400)] * 3), steps, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_cases_of_one_grid_keep_it(shape, spacing, count):
    """Cases that agree are only reordered: spacing and shape of each axis stay."""
    grid = choose_grid(fingerprint_of([shape] * count, [spacing] * count))
    assert grid.median_shape == tuple(shape[axis] for axis in grid.axis_order)
    if min(shape) > 3:
        thick = grid.spacing_mm[0]
        assert grid.spacing_mm == pytest.approx([spacing[axis] for axis in grid.axis_order])
        assert thick == pytest.approx(max(spacing))
    assert grid.voxels == np.prod(shape) * count


def test_spacing_and_shape_are_medians():
    """Each axis gets its median spacing; the shape is the median of the shapes at that spacing, not of the files'."""
    shapes = [(100, 100, 100), (40, 50, 60), (10, 10, 10)]
    grid = choose_grid(fingerprint_of(shapes, [(1, 1, 1), (2, 2, 2), (4, 4, 4)]))
    assert grid.spacing_mm == (2, 2, 2)
    assert grid.median_shape == (40, 50, 50)


def test_thick_slices_get_the_tenth_percentile():
    """Few slices more than three times as thick as wide are resampled to the 10th percentile of the thicknesses."""
    thickness = [3.0, 5.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 7.0, 8.0]
    fingerprint = fingerprint_of([(512, 512, 30)] * 11, [(1.0, 1.0, step) for step in thickness])
    grid = choose_grid(fingerprint)
    assert grid.axis_order == (2, 0, 1)
    assert grid.spacing_mm == pytest.approx((5.0, 1.0, 1.0))
    assert grid.median_shape == (36, 512, 512)
    assert grid.refined
    assert any("10th percentile" in sentence for sentence in explain_grid(grid))


def test_thick_slices_never_become_finer_than_the_plane():
    """If the 10th percentile is finer than the plane, the first axis stays just coarser than the plane."""
    fingerprint = fingerprint_of([(30, 512, 512)] * 4, [(0.2, 1, 1), (0.2, 1, 1), (8, 1, 1), (9, 1, 1)])
    grid = choose_grid(fingerprint)
    assert grid.axis_order[0] == 0
    assert grid.spacing_mm[0] == pytest.approx(1 + 1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((100, 512, 512), (5.0, 1.0, 1.0)), ((200, 512, 512), (5.0, 1.0, 1.0)), ((30, 512, 512), (3.0, 1.0, 1.0))],
    ids=["both", "many slices", "just thin enough"],
)
def test_the_tenth_percentile_needs_thick_and_few_slices(shape, spacing):
    """Only thick slices that are also few lose their median spacing."""
    fine = (spacing[0] / 2, 1.0, 1.0)
    grid = choose_grid(fingerprint_of([shape] * 5, [fine, spacing, spacing, spacing, spacing]))
    assert grid.refined == (shape[0] * 3 < 512 and spacing[0] > 3)


def test_a_plane_axis_comes_first_whatever_its_spacing():
    """Single slices are 2D images even where the files give them a small thickness."""
    grid = choose_grid(fingerprint_of([(256, 1, 200)] * 3, [(2.0, 0.1, 1.0), (2.0, 0.5, 1.0), (2.0, 3.0, 1.0)]))
    assert grid.axis_order == (1, 0, 2)
    assert grid.median_shape == (1, 256, 200)
    assert grid.is_flat
    assert any("1 slice along it" in sentence for sentence in explain_grid(grid))


def test_a_dataset_without_cases_is_refused():
    """A dataset without cases is refused."""
    with pytest.raises(DatasetError, match="no case"):
        choose_grid(fingerprint_of([], []))


def test_few_slices_are_a_picture_by_our_rules_only():
    """Three slices are no volume here, but are for the reference method, which never reorders for them."""
    fingerprint = fingerprint_of([(200, 3, 200)] * 3, [(2.0, 1.0, 1.0)] * 3)
    ours, reference = choose_grid(fingerprint), choose_grid(fingerprint, RULES["nnunet"])
    assert (ours.axis_order, ours.is_flat) == ((1, 0, 2), True)
    assert (reference.axis_order, reference.is_flat) == ((0, 1, 2), False)
    assert ours.median_shape == (3, 200, 200)
