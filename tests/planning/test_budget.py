"""Budgets of a training step: in bytes, and the reference method's."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import network_of

from autoseg.planning.budget import ByteBudget, FeatureMapBudget, make_budget
from autoseg.planning.memory import training_bytes
from autoseg.planning.presets import PRESETS

architectures = st.builds(
    network_of,
    st.sampled_from((2, 3)),
    st.integers(2, 6),
    st.integers(32, 400),
    channels=st.integers(1, 4),
    classes=st.integers(2, 30),
    convolutions=st.integers(1, 4),
    residual=st.sampled_from(("none", "stage")),
)


@given(architectures, st.integers(1, 6), st.integers(10**8, 4 * 10**10))
@settings(max_examples=60, deadline=None)
def test_the_largest_batch_is_the_largest(architecture, blocks, budget):
    """The largest batch fits, and one more patch does not; a patch is held if two of it fit."""
    patch = tuple(size * blocks for size in architecture.divisor)
    memory = ByteBudget(budget)
    largest = memory.largest_batch(architecture, patch)
    assert largest == 0 or training_bytes(architecture, patch, largest) <= 0.9 * budget
    assert training_bytes(architecture, patch, largest + 1) > memory.usable_bytes
    assert memory.fits(architecture, patch) == (largest >= 2)


@given(architectures, st.integers(1, 12), st.integers(10**8, 4 * 10**10))
@settings(max_examples=60, deadline=None)
def test_no_patch_that_is_held_exceeds_the_bound(architecture, blocks, budget):
    """The bound from the first stage alone is above every patch that the budget holds."""
    patch = tuple(size * blocks for size in architecture.divisor)
    voxels = 1
    for size in patch:
        voxels *= size
    memory = ByteBudget(budget)
    if memory.fits(architecture, patch):
        assert voxels <= memory.max_voxels(architecture.stages[0].features)


def test_the_reference_budget_holds_two_volumes_or_twelve_planes():
    """At 8 GB, a network of 450.7 of 560 million elements gets a batch of 2.49, rounded; 6 GB get none."""
    network, patch = network_of(3, 6, 320), (128, 128, 128)
    budget = make_budget(PRESETS["plain"], 8 * 10**9)
    assert budget.largest_batch(network, patch) == 2
    assert budget.fits(network, patch)
    assert not make_budget(PRESETS["plain"], 6 * 10**9).fits(network, patch)
    assert budget.largest_batch(network_of(2, 8, 512), (512, 512)) == 12


def test_residual_encoders_must_hold_the_whole_reference_batch():
    """In 2D, their presets shrink the patch until twelve fit, the default one until two do."""
    network, patch = network_of(2, 8, 512), (1024, 512)
    reference = PRESETS["plain"].reference
    assert FeatureMapBudget(reference, scale=1).fits(network, patch)
    assert not FeatureMapBudget(replace(reference, whole_batch=True), scale=1).fits(network, patch)


@pytest.mark.parametrize(
    ("preset", "text"),
    [("8gb", "8.0 GB"), ("plain", "85 million (2D) or 560 million (3D) feature map elements")],
)
def test_budgets_are_described(preset, text):
    """In bytes, or in the reference method's measure."""
    assert make_budget(PRESETS[preset], 8 * 10**9).describe() == text
