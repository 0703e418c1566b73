"""The coarser look at volumes of which a patch sees too little."""

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planning.budget import ByteBudget
from autoseg.planning.low_resolution import LITTLE_CONTEXT, WORTHWHILE, choose_low_resolution, sees_little
from autoseg.planning.patch import Search, View, fit_patch
from autoseg.planning.presets import PRESETS

shapes = st.tuples(*[st.integers(16, 700)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)


def view_of(shape, spacing=(1.0, 1.0, 1.0), cases=50) -> View:
    """Volumes of one size."""
    return View(spacing_mm=spacing, median_shape=tuple(map(float, shape)), dataset_voxels=prod(shape) * cases)


def search_of(gigabytes: float, *, monotonic: bool = True) -> Search:
    """The limits of the preset for 8 GB, with other memory."""
    return Search(
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
@settings(max_examples=40, deadline=None)
def test_a_patch_sees_a_quarter_of_a_volume_that_is_much_coarser(monotonic, shape, spacing, gigabytes):
    """A low resolution was needed, is enough, has at most half of the voxels, and no axis is finer than before."""
    view, search = view_of(shape, spacing), search_of(gigabytes, monotonic=monotonic)
    full = fit_patch(view, search)
    low = choose_low_resolution(view, search, full)
    if low is None:
        return
    assert sees_little(view, full)
    assert low.fit.topology.voxels >= 0.99 * LITTLE_CONTEXT * low.view.voxels  # edges were rounded to voxels
    assert view.voxels >= 0.99 * WORTHWHILE * low.view.voxels
    assert all(coarse >= fine for coarse, fine in zip(low.view.spacing_mm, view.spacing_mm, strict=True))
    assert search.holds(low.fit.topology)


@given(shapes, spacings, st.lists(st.floats(1.5, 60), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_more_memory_never_buys_a_smaller_or_coarser_look(shape, spacing, memory):
    """With more memory the volume is at least as fine, and a step sees at least as many voxels, where one is needed."""
    view = view_of(shape, spacing)
    found = []
    for gigabytes in sorted(memory):
        search = search_of(gigabytes)
        found.append(choose_low_resolution(view, search, fit_patch(view, search)))
    for less, more in pairwise(found):
        if less is not None and more is not None:
            assert more.fit.topology.voxels * more.fit.batch_size >= less.fit.topology.voxels * less.fit.batch_size
            assert prod(more.view.spacing_mm) <= prod(less.view.spacing_mm)


def test_fine_axes_are_coarsened_first():
    """Thick slices keep their distance until the other axes are half as coarse."""
    view = view_of((60, 1000, 1000), (5.0, 0.5, 0.5))
    search = search_of(8, monotonic=False)
    low = choose_low_resolution(view, search, fit_patch(view, search))
    assert low is not None
    z_mm, y_mm, x_mm = low.view.spacing_mm
    assert y_mm == x_mm
    assert z_mm == 5.0 or z_mm / y_mm <= 2.0


def test_volumes_that_are_seen_well_need_no_other_look():
    """A patch that covers the volume, or a quarter of it, is enough."""
    search = search_of(8)
    for shape in ((40, 56, 40), (160, 160, 160)):
        view = view_of(shape)
        full = fit_patch(view, search)
        assert not sees_little(view, full)
        assert choose_low_resolution(view, search, full) is None


def test_a_look_that_is_hardly_coarser_is_not_worth_while():
    """A volume a little too large for the patch gets no low resolution of nearly the same size."""
    search = search_of(8)
    patch = fit_patch(view_of((600, 600, 600)), search).topology
    edge = round((patch.voxels / LITTLE_CONTEXT * 1.5) ** (1 / 3))
    view = view_of((edge, edge, edge))
    full = fit_patch(view, search)
    assert sees_little(view, full)
    assert choose_low_resolution(view, search, full) is None
