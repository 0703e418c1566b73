"""The optimizer, its schedule and the running average are what their formulas say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_plan

from autoseg.training.optimization import learning_rate, make_optimizer, set_learning_rate, update_average

SHARES = st.floats(0, 1)


@given(first=SHARES, second=SHARES)
@settings(max_examples=50)
def test_learning_rate_falls_to_zero(first, second):
    """From its start to 0, never rising."""
    plan = small_plan().training
    low, high = sorted((first, second))
    assert plan.learning_rate >= learning_rate(low, plan) >= learning_rate(high, plan) >= 0
    assert learning_rate(0, plan) == plan.learning_rate
    assert learning_rate(1, plan) == 0


def test_optimizer_obeys_the_settings():
    """Nesterov's momentum, weight decay and learning rate; without momentum there is nothing to look ahead with."""
    network = torch.nn.Linear(2, 2)
    [group] = make_optimizer(
        network, small_plan(momentum=0.8, weight_decay=0.1, learning_rate=0.5).training
    ).param_groups
    assert (group["momentum"], group["weight_decay"], group["lr"], group["nesterov"]) == (0.8, 0.1, 0.5, True)
    [plain] = make_optimizer(network, small_plan(momentum=0.0).training).param_groups
    assert plain["nesterov"] is False


def test_learning_rate_is_set_for_all_parameters():
    """Every group follows."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 3.0}], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize(("step", "kept"), [(0, 0.1), (8, 0.5), (10**6, 0.9)])
def test_average_keeps_a_share_of_itself(step, kept):
    """(1 + step) / (10 + step) at first, the decay at last; in place."""
    average, current = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.0])
    expected = kept * average + (1 - kept) * current
    update_average([average], [current], decay=0.9, step=step)
    torch.testing.assert_close(average, expected, atol=1e-5, rtol=0)
    assert current.tolist() == [3.0, 0.0]


def test_average_of_constant_weights_is_those():
    """Whatever the start was, it is forgotten."""
    average, current = [torch.full((3,), 7.0)], [torch.full((3,), 2.0)]
    for step in range(200):
        update_average(average, current, decay=0.9, step=step)
    torch.testing.assert_close(average[0], current[0])
