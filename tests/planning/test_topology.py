"""Strides, kernels and the sequence of smaller patches."""

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import (
    SMALLEST_EDGE,
    choose_topology,
    design_network,
    initial_patch,
    smaller_topologies,
)

grids = st.sampled_from((2, 3)).flatmap(
    lambda dimensions: st.tuples(
        st.tuples(*[st.floats(0.05, 12)] * dimensions), st.tuples(*[st.integers(1, 300)] * dimensions)
    )
)


@pytest.mark.parametrize(
    ("spacing", "patch", "halvings", "padded"),
    [
        ((2.0, 0.7, 0.7), (64, 192, 160), (4, 5, 5), (64, 192, 160)),
        ((3.6, 0.625, 0.625), (20, 320, 256), (2, 6, 6), (20, 320, 256)),
        ((10, 1.5, 1.5), (9, 224, 224), (1, 5, 5), (10, 224, 224)),
    ],
)
def test_golden_halvings(spacing, patch, halvings, padded):
    """The number of halvings per axis and the padded patch equal the reference method's."""
    topology = choose_topology(spacing, patch)
    assert topology.divisor == tuple(2**number for number in halvings)
    assert topology.patch_size == padded


def test_golden_strides_and_kernels():
    """Voxels of 2 x 0.7 x 0.7 mm: the first stage convolves and halves in-plane only, then all axes count as equal."""
    topology = choose_topology((2.0, 0.7, 0.7), (64, 192, 160))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), *[(2, 2, 2)] * 4)
    assert topology.kernels == ((1, 3, 3), *[(3, 3, 3)] * 5)


def test_the_worked_example():
    """The example in the text of choose_topology is true."""
    topology = choose_topology((3, 1), (10, 40))
    assert topology.strides == ((1, 1), (1, 2), (2, 2))
    assert topology.kernels == ((1, 3), (3, 3), (3, 3))
    assert topology.patch_size == (10, 40)


@given(grids)
@settings(max_examples=150, deadline=None)
def test_every_patch_is_taken_apart_properly(grid):
    """Padding is less than one step, an axis that was halved keeps four voxels, kernels grow once and for good."""
    spacing, patch = grid
    topology = choose_topology(spacing, patch)
    assert len(topology.strides) == len(topology.kernels)
    assert set(topology.strides[0]) == {1}
    for size, wanted, divisor in zip(topology.patch_size, patch, topology.divisor, strict=True):
        assert size % divisor == 0
        assert wanted <= size < wanted + divisor
        assert divisor == 1 or size // divisor >= SMALLEST_EDGE
    for before, after in pairwise(topology.kernels):
        assert all(earlier <= later for earlier, later in zip(before, after, strict=True))
    assert set(topology.kernels[-1]) == {3}


@given(grids, st.data())
@settings(max_examples=40, deadline=None)
def test_smaller_patches_shrink_to_an_end(grid, data):
    """Each next patch has fewer voxels and still two stages; no axis of at least four voxels falls below four."""
    spacing, median_shape = grid
    start = choose_topology(spacing, median_shape)
    path = [start, *smaller_topologies(start, spacing, median_shape)]
    for before, after in pairwise(path):
        assert after.voxels < before.voxels
        assert after.is_trainable
        assert all(
            size >= min(SMALLEST_EDGE, first) for size, first in zip(after.patch_size, start.patch_size, strict=True)
        )
    if len(path) > 1:
        middle = data.draw(st.integers(0, len(path) - 1))
        assert path[middle + 1 :] == list(smaller_topologies(path[middle], spacing, median_shape))


def test_the_axis_that_covers_most_gives_way_first():
    """A patch that covers one axis whole and half of another shrinks along the first."""
    start = choose_topology((1, 1), (64, 64))
    smaller = next(smaller_topologies(start, (1, 1), (64, 128)))
    assert smaller.patch_size == (56, 64)


@given(grids)
@settings(max_examples=60, deadline=None)
def test_the_first_patch_stays_inside_the_typical_image(grid):
    """The patch that planning starts from is never longer than the image, and never empty."""
    spacing, median_shape = grid
    patch = initial_patch(spacing, median_shape)
    assert all(1 <= size <= median for size, median in zip(patch, median_shape, strict=True))


def test_the_first_patch_is_a_cube_in_space():
    """In a huge image, the patch is as long in mm along every axis and has the volume of 256 voxels cubed."""
    patch = initial_patch((4.0, 1.0, 2.0), (9999, 9999, 9999))
    assert [size * step for size, step in zip(patch, (4, 1, 2), strict=True)] == pytest.approx([512] * 3)
    assert prod(patch) == 256**3


@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_double_their_features_up_to_the_limit(dimensions):
    """The standard network doubles its features from 32 and has 1, 2, 3, 3, ... convolutions."""
    topology = choose_topology((1,) * dimensions, (256,) * dimensions)
    network = design_network(topology.strides, topology.kernels, PRESETS["8gb"], in_channels=2, out_channels=5)
    limit = 512 if dimensions == 2 else 320
    assert [stage.features for stage in network.stages] == [min(limit, 32 * 2**i) for i in range(7)]
    assert [stage.convolutions for stage in network.stages] == [1, 2, 3, 3, 3, 3, 3]
    assert (network.in_channels, network.out_channels, network.residual) == (2, 5, "stage")
    assert network.deep_supervision


def test_two_stages_have_no_deep_supervision():
    """With a single decoder stage there is no coarser target, and it must count."""
    topology = choose_topology((1, 1), (8, 8))
    network = design_network(topology.strides, topology.kernels, PRESETS["8gb"], in_channels=1, out_channels=2)
    assert len(network.stages) == 2
    assert not network.deep_supervision
