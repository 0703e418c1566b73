"""The measured memory of a step corrects the estimate of plan.json, for any batch, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_plan

from autoseg.networks.architecture import count_weights
from autoseg.planning.budget import count_fitting_patches, estimate_step_bytes, update_memory_estimate
from autoseg.planning.memory import BYTES_PER_WEIGHT, bytes_per_patch, training_bytes
from autoseg.planning.plan import Plan
from autoseg.planning.settings import MeasuredMemory

NAME = "3d_fullres"
ONE = small_plan().configurations[NAME]
WEIGHTS = BYTES_PER_WEIGHT * count_weights(ONE.architecture)
EACH = bytes_per_patch(ONE.architecture, ONE.patch_size)


def taken(patches, factor):
    """Returns the bytes of the tensors of a step, on a device whose patches take `factor` times the estimate."""
    return WEIGHTS + round(patches * factor * EACH)


def corrected(least_bytes, *, recomputed=False, plan=None):
    """Returns the configuration after a correction."""
    plan = update_memory_estimate(plan or small_plan(), NAME, least_bytes, recomputed=recomputed)
    return plan.configurations[NAME]


def test_estimate_is_what_is_counted_until_something_is_measured():
    """Without a measurement, no number of fitting patches is known."""
    counted = training_bytes(ONE.architecture, ONE.patch_size, ONE.batch_size)
    assert estimate_step_bytes(ONE, recomputes=False) == counted
    assert count_fitting_patches(10**12, ONE, recomputes=False) is None


@given(st.floats(0.3, 3), st.integers(1, 8), st.integers(1, 40))
def test_true_factor_is_found_for_batches_of_any_size(factor, measured, edited):
    """The estimate follows the peak of a step in micro-batches, also if the batch is edited afterwards."""
    one = corrected({measured: taken(measured, factor)})
    assert one.measured_memory.factor == pytest.approx(factor, rel=1e-4)
    assert one.estimated_bytes == estimate_step_bytes(one, recomputes=False)
    one = one.model_copy(update={"batch_size": edited})
    fixed = training_bytes(ONE.architecture, ONE.patch_size, 0)
    assert estimate_step_bytes(one, recomputes=False) == pytest.approx(fixed + edited * factor * EACH, rel=1e-4)


@given(st.floats(0.3, 3), st.floats(1.5, 60), st.integers(1, 30))
def test_as_many_patches_begin_as_fit(factor, room, patches):
    """The number of patches is never too large, never much too small, and below one that failed before."""
    one = corrected({1: taken(1, factor)})
    there = taken(room, factor)
    most = count_fitting_patches(there, one, recomputes=False)
    assert taken(most, factor) <= there
    assert most >= int(0.94 * room)
    failed = corrected({patches: there})
    assert count_fitting_patches(there, failed, recomputes=False) < patches


def test_what_failed_and_what_worked_are_both_believed():
    """The larger of two measurements counts, since both are lower bounds; without a measurement nothing changes."""
    both = {4: taken(4, 1.2), 2: taken(2, 1.5)}
    assert corrected(both).measured_memory.factor == pytest.approx(1.5, rel=1e-4)
    assert corrected({4: taken(4, 1.6), 2: taken(2, 1.5)}).measured_memory.factor == pytest.approx(1.6, rel=1e-4)
    assert update_memory_estimate(small_plan(), NAME, {}, recomputed=False) == small_plan()
    assert (
        update_memory_estimate(small_plan(), NAME, {2: 1000}, recomputed=False) == small_plan()
    )  # less than the weights take


def test_later_correction_keeps_what_is_more():
    """One sentence is left, the last one; a measurement of another kind is replaced."""
    plan = update_memory_estimate(small_plan(), NAME, {2: taken(2, 2.0)}, recomputed=False)
    again = update_memory_estimate(plan, NAME, {2: taken(2, 1.5)}, recomputed=False)
    assert again == plan
    higher = update_memory_estimate(plan, NAME, {2: taken(2, 2.5)}, recomputed=False)
    [why] = higher.why
    estimate, counted = higher.configurations[NAME].estimated_bytes, estimate_step_bytes(ONE, recomputes=False)
    assert why.startswith("3d_fullres: measured when the memory of a device ran out: a training step takes about ")
    assert f"{estimate / 1e6:.0f} MB, where {counted / 1e6:.0f} MB were counted." in why
    other = corrected({2: taken(2, 0.6)}, recomputed=True, plan=plan).measured_memory
    assert other == MeasuredMemory(factor=other.factor, recomputed=True)
    assert other.factor == pytest.approx(0.6, rel=1e-4)


def test_recomputing_has_a_measure_of_its_own():
    """Recomputation takes far less memory, so one measurement says nothing about the other."""
    one = corrected({2: taken(2, 2.0)}, recomputed=True)
    assert count_fitting_patches(taken(9, 1.0), one, recomputes=False) is None
    assert estimate_step_bytes(one, recomputes=False) == estimate_step_bytes(ONE, recomputes=False)
    assert estimate_step_bytes(one, recomputes=True) > estimate_step_bytes(ONE, recomputes=True)


def test_corrected_plan_is_kept_and_is_the_same_otherwise(tmp_path):
    """Estimates count neither in plan.json nor in comparisons of configurations."""
    plan = update_memory_estimate(small_plan(), NAME, {2: taken(2, 2.0)}, recomputed=False)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert plan.configurations[NAME] != ONE
    assert plan.configurations[NAME].without_estimates == ONE.without_estimates
    other = ONE.model_copy(update={"batch_size": 3})
    assert other.without_estimates != ONE.without_estimates
