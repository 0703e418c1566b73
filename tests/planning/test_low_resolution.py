"""The low-resolution configuration, for volumes of which a patch covers too little."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoseg.planning.budget import ByteBudget
from autoseg.planning.low_resolution import LITTLE_CONTEXT, MIN_VOXEL_RATIO, choose_low_resolution, has_little_context
from autoseg.planning.patch_size import PlanningConstraints, TypicalImage, fit_patch
from autoseg.planning.presets import PRESETS

shapes = st.tuples(*[st.integers(16, 700)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)


def image_of(shape, spacing=(1.0, 1.0, 1.0), cases=50) -> TypicalImage:
    """Returns the typical image of volumes of one size."""
    return TypicalImage(spacing_mm=spacing, median_shape=tuple(map(float, shape)), dataset_voxels=prod(shape) * cases)


def constraints_of(gigabytes: float, *, monotonic: bool = True) -> PlanningConstraints:
    """Returns the constraints of the preset for 8 GB, with another budget."""
    return PlanningConstraints(
        preset_name="8gb",
        preset=PRESETS["8gb"],
        budget=ByteBudget(int(gigabytes * 1e9)),
        budget_bytes=int(gigabytes * 1e9),
        in_channels=1,
        out_channels=3,
        monotonic=monotonic,
    )


@pytest.mark.parametrize("monotonic", [True, False])
@given(shapes, spacings, st.floats(2, 30))
@example((29, 261, 571), (1.8125, 2.0, 4.75), 2.0)
@settings(max_examples=40, deadline=None)
def test_a_patch_sees_a_quarter_of_a_volume_that_is_much_coarser(monotonic, shape, spacing, gigabytes):
    """A low resolution is needed, covers enough, has at most half of the voxels, and no axis is finer than before.

    Shares are those of the volume before its edges are rounded to voxels: half a voxel is 3 % of an edge of 16.
    """
    image, constraints = image_of(shape, spacing), constraints_of(gigabytes, monotonic=monotonic)
    full = fit_patch(image, constraints)
    low = choose_low_resolution(image, constraints, full)
    if low is None:
        return
    assert has_little_context(image, full)
    coarsening = np.divide(low.image.spacing_mm, spacing)
    edges = np.divide(shape, coarsening)
    assert low.voxels == pytest.approx(np.prod(edges))
    np.testing.assert_allclose(low.image.median_shape, np.maximum(edges, 1), rtol=0, atol=0.5 + 1e-9)
    assert low.fit.topology.voxels >= LITTLE_CONTEXT * low.voxels
    assert image.voxels >= MIN_VOXEL_RATIO * low.voxels
    assert all(coarse >= fine for coarse, fine in zip(low.image.spacing_mm, image.spacing_mm, strict=True))
    assert constraints.fits(low.fit.topology)


@given(shapes, spacings, st.lists(st.floats(1.5, 60), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_more_memory_never_buys_a_smaller_or_coarser_look(shape, spacing, memory):
    """With more memory the volume is at least as fine, and a step has at least as many voxels, where one is needed."""
    image = image_of(shape, spacing)
    found = []
    for gigabytes in sorted(memory):
        constraints = constraints_of(gigabytes)
        found.append(choose_low_resolution(image, constraints, fit_patch(image, constraints)))
    for less, more in pairwise(found):
        if less is not None and more is not None:
            assert more.fit.topology.voxels * more.fit.batch_size >= less.fit.topology.voxels * less.fit.batch_size
            assert prod(more.image.spacing_mm) <= prod(less.image.spacing_mm)


def test_fine_axes_are_coarsened_first():
    """The spacing of thick slices stays until the other axes are half as coarse."""
    image = image_of((60, 1000, 1000), (5.0, 0.5, 0.5))
    constraints = constraints_of(8, monotonic=False)
    low = choose_low_resolution(image, constraints, fit_patch(image, constraints))
    assert low is not None
    z_mm, y_mm, x_mm = low.image.spacing_mm
    assert y_mm == x_mm
    assert z_mm == 5.0 or z_mm / y_mm <= 2.0


def test_volumes_that_are_seen_well_need_no_other_look():
    """A patch that covers the volume, or a quarter of it, is enough."""
    constraints = constraints_of(8)
    for shape in ((40, 56, 40), (160, 160, 160)):
        image = image_of(shape)
        full = fit_patch(image, constraints)
        assert not has_little_context(image, full)
        assert choose_low_resolution(image, constraints, full) is None


def test_a_look_that_is_hardly_coarser_is_not_worth_while():
    """A volume a little too large for the patch gets no low resolution of nearly the same size."""
    constraints = constraints_of(8)
    patch = fit_patch(image_of((600, 600, 600)), constraints).topology
    edge = round((patch.voxels / LITTLE_CONTEXT * 1.5) ** (1 / 3))
    image = image_of((edge, edge, edge))
    full = fit_patch(image, constraints)
    assert has_little_context(image, full)
    assert choose_low_resolution(image, constraints, full) is None
