"""The optimizer, its schedule and the running average follow their formulas."""

import copy
import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_plan
from torch._subclasses.fake_tensor import FakeTensorMode

from autoseg.planning.settings import TrainingSettings
from autoseg.training.optimization import (
    count_falls,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    share_done,
    update_average,
)

SHARES = st.floats(0, 1)
SCHEDULES = st.sampled_from(get_args(TrainingSettings.model_fields["schedule"].annotation))


@given(first=SHARES, second=SHARES, schedule=SCHEDULES)
@settings(max_examples=50)
def test_learning_rate_never_rises(first, second, schedule):
    """It falls or stays by any schedule; polynomial and cosine end at 0."""
    plan = small_plan(schedule=schedule).training
    low, high = sorted((first, second))
    assert plan.learning_rate >= learning_rate(low, plan) >= learning_rate(high, plan) >= 0
    assert learning_rate(0, plan) == plan.learning_rate
    assert (learning_rate(1, plan) == 0) == (schedule in ("polynomial", "cosine"))


@given(done=SHARES, schedule=SCHEDULES, warmup=st.floats(0.01, 0.9))
@settings(max_examples=50)
def test_schedule_begins_where_the_warmup_ends(done, schedule, warmup):
    """The rate rises linearly from a hundredth, and then falls by the same curve in the rest of the time."""
    warm, cold = (small_plan(schedule=schedule, warmup_share=share).training for share in (warmup, 0.0))
    rising = learning_rate(done * warmup * 0.999, warm)
    assert rising == pytest.approx(cold.learning_rate * max(0.01, done * 0.999))
    if schedule != "step":  # which jumps: the last bits decide on which side
        assert learning_rate(warmup + done * (1 - warmup), warm) == pytest.approx(learning_rate(done, cold), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "golden"),
    [
        ({"schedule": "cosine"}, {0: 1.0, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1: 0.0}),
        ({"schedule": "step"}, {0.29: 1.0, 0.3: 0.1, 0.59: 0.1, 0.6: 0.01, 0.9: 0.001, 1: 0.001}),
        ({"schedule": "step", "step_share": 0.1, "step_factor": 0.5}, {0.1: 0.5, 0.3: 0.125, 0.7: 2**-7}),
        ({"schedule": "polynomial", "schedule_power": 2.0}, {0: 1.0, 0.5: 0.25, 1: 0.0}),
        ({"schedule": "plateau"}, {0: 1.0, 1: 1.0}),
    ],
)
def test_schedules_follow_their_formulas(changes, golden):
    """Known shares of the training have known shares of the highest rate."""
    plan = small_plan(learning_rate=0.5, **changes).training
    for done, share in golden.items():
        assert learning_rate(done, plan) == pytest.approx(0.5 * share, abs=1e-12)


def test_each_fall_of_a_plateau_multiplies_the_rate():
    """The factor is that of the plan; other schedules ignore the number of falls."""
    plateau = small_plan(schedule="plateau", step_factor=0.2, learning_rate=1.0).training
    assert [learning_rate(0.5, plateau, falls) for falls in (0, 1, 3)] == pytest.approx([1, 0.2, 0.008])
    cosine = small_plan(schedule="cosine").training
    assert learning_rate(0.5, cosine, 2) == learning_rate(0.5, cosine)


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ([], [0]),
        ([2, 2, 2, 2, 2], [0, 0, 1, 1, 2]),
        ([2, 2, 1.9, 1.8, 1.8, 1.7, 1.6, 1.5, 1.4], [0] * 9),
        ([2, 2, 1, 1.5, 1.5, 1.5], [0, 0, 0, 0, 1, 1]),
        ([2, 3, 1.9999, 2], [0, 0, 1, 1]),
    ],
)
def test_plateau_is_a_share_of_the_training_without_a_better_loss(losses, falls):
    """With a patience of two of ten epochs, tiny improvements do not count, and a fall restarts it."""
    ends = [((number + 1) / 10, loss) for number, loss in enumerate(losses)]
    assert [count_falls(ends[: number + 1], 0.2) for number in range(max(1, len(ends)))] == falls


def test_noise_of_many_epochs_is_smoothed():
    """A slow improvement is noticed in noisy losses, and so is its end."""
    jumps = [0.05 * (-1) ** number for number in range(1000)]
    falling = [((number + 1) / 1000, 1 - number / 1000 + jump) for number, jump in enumerate(jumps)]
    assert count_falls(falling, 0.05) == 0
    lucky = [((number + 1) / 1000, 1.0 - 0.5 * (number == 3)) for number in range(200)]
    assert count_falls(lucky, 0.05) >= 2


def test_share_is_of_the_seconds_if_they_are_limited():
    """Otherwise it is a share of the steps; it is never above 1."""
    steps = small_plan(epochs=4, steps_per_epoch=5).training
    seconds = small_plan(epochs=4, steps_per_epoch=5, budget_seconds=8.0).training
    assert [share_done(steps, 5, 100.0), share_done(steps, 30, 0.0)] == [0.25, 1]
    assert [share_done(seconds, 100, 2.0), share_done(seconds, 0, 9.0)] == [0.25, 1]


def test_optimizer_obeys_the_settings():
    """It has momentum, weight decay and learning rate; without momentum there is no Nesterov step."""
    network = torch.nn.Linear(2, 2)
    [group] = make_optimizer(
        network, small_plan(momentum=0.8, weight_decay=0.1, learning_rate=0.5).training
    ).param_groups
    assert (group["momentum"], group["weight_decay"], group["lr"], group["nesterov"]) == (0.8, 0.1, 0.5, True)
    [plain] = make_optimizer(network, small_plan(momentum=0.0).training).param_groups
    assert plain["nesterov"] is False


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimizer_can_be_another_one(name, kind):
    """Adam and AdamW have their betas, weight decay and learning rate."""
    chosen = small_plan(optimizer=name, adam_betas=(0.8, 0.99), weight_decay=0.1, learning_rate=2e-3).training
    optimizer = make_optimizer(torch.nn.Linear(2, 2), chosen)
    [group] = optimizer.param_groups
    assert type(optimizer) is kind
    assert (group["betas"], group["weight_decay"], group["lr"]) == ((0.8, 0.99), 0.1, 2e-3)


def test_decay_of_adamw_does_not_pass_through_the_means():
    """A step with gradient 0 shrinks a weight by rate times decay; in Adam it becomes a step of the rate."""
    weights = []
    for name in ("adamw", "adam"):
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(network.weight)
        optimizer = make_optimizer(network, small_plan(optimizer=name, weight_decay=0.5, learning_rate=1e-3).training)
        network.weight.grad = torch.zeros(1, 1)
        optimizer.step()
        weights.append(network.weight.item())
    assert weights == pytest.approx([1 - 0.5e-3, 1 - 1e-3], abs=1e-6)


def test_learning_rate_is_set_for_all_parameters():
    """Every parameter group gets it."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 3.0}], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize(("step", "kept"), [(0, 0.1), (8, 0.5), (10**6, 0.9)])
def test_average_keeps_a_share_of_itself(step, kept):
    """The share is (1 + step) / (10 + step) at first, and the decay at last; in place."""
    average, current = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.0])
    expected = kept * average + (1 - kept) * current
    update_average([average], [current], decay=0.9, step=step)
    torch.testing.assert_close(average, expected, atol=1e-5, rtol=0)
    assert current.tolist() == [3.0, 0.0]


def test_average_of_constant_weights_is_those():
    """The start of the average is forgotten."""
    average, current = [torch.full((3,), 7.0)], [torch.full((3,), 2.0)]
    for step in range(200):
        update_average(average, current, decay=0.9, step=step)
    torch.testing.assert_close(average[0], current[0])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_steps_of_a_cpu_are_those_of_the_formula(momentum):
    """Gradient descent with Nesterov momentum and weight decay, as torch does it one operation after the other."""
    plan = small_plan(learning_rate=0.2, momentum=momentum, weight_decay=0.01).training
    generator = torch.Generator().manual_seed(1)
    ours = torch.nn.Conv3d(3, 5, 3)
    theirs = copy.deepcopy(ours)
    fused = make_optimizer(ours, plan)
    assert fused.param_groups[0]["fused"]
    plain = torch.optim.SGD(
        theirs.parameters(), lr=0.2, momentum=momentum, weight_decay=0.01, nesterov=momentum > 0, foreach=False
    )
    for _ in range(3):
        for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            our.grad = their.grad = torch.randn(our.shape, generator=generator)
        fused.step()
        plain.step()
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their)


def test_optimizer_of_another_device_is_left_to_torch():
    """Torch's meta device stands for an Apple GPU."""
    with torch.device("meta"):
        network = torch.nn.Conv3d(3, 5, 3)
    assert make_optimizer(network, small_plan().training).param_groups[0]["fused"] is None


def test_a_cuda_gpu_takes_fused_steps():
    """A weight without values stands for one on a GPU."""
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.empty(3, device="cuda"))
    network = torch.nn.ParameterList([weight])
    assert make_optimizer(network, small_plan().training).param_groups[0]["fused"]
    assert make_optimizer(network, small_plan().training, scaled=True).param_groups[0]["fused"] is None


def test_a_first_step_that_overflows_leaves_no_trace_in_a_scaled_run():
    """The momentum begins with the gradient of the second step."""
    network, other = torch.nn.Linear(50, 1, bias=False), torch.nn.Linear(50, 1, bias=False)
    other.load_state_dict(network.state_dict())
    plan = small_plan(momentum=0.9).training
    scaled, plain = make_optimizer(network, plan, scaled=True), make_optimizer(other, plan)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for factor in (math.inf, 1.0):
        scaled.zero_grad()
        scaler.scale(factor * network.weight.sum()).backward()
        scaler.unscale_(scaled)
        scaler.step(scaled)
        scaler.update()
    other.weight.sum().backward()
    plain.step()
    torch.testing.assert_close(network.weight, other.weight)
    torch.testing.assert_close(
        scaled.state[network.weight]["momentum_buffer"], plain.state[other.weight]["momentum_buffer"]
    )
