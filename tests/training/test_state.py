"""What resuming needs is packed into plain values, and unpacked into a fresh run."""

import io

import pytest
import torch
from small_models import small_run, small_state

from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_fold
from autoseg.training.state import pack_state, unpack_state


def start(seed=5, scaled=False, **training):
    """Returns a state before the first step."""
    return small_state(small_run(**training), seed=seed, scaled=scaled)


def train(state, **training):
    """Trains a state to the end of its plan."""
    train_fold(state, small_run(**training), SILENT, lambda _: None)
    return state


def through_the_disk(packed):
    """Saves and loads as a checkpoint does, without running any code of the file."""
    file = io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_equal(one, other):
    """Asserts that two networks are equal bit for bit."""
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_packed_state_comes_back_whole(average_decay):
    """Weights, average, momentum, counters and reports are restored, with an average and without."""
    state = train(start(average_decay=average_decay), average_decay=average_decay)
    restored = start(seed=6, average_decay=average_decay)
    unpack_state(restored, through_the_disk(pack_state(state)), state.weights)
    assert_equal(restored.network, state.network)
    assert_equal(restored.average, state.average)
    assert (restored.average is restored.network) == (average_decay == 0)
    assert (
        (restored.step, restored.elapsed_seconds) == (state.step, state.elapsed_seconds) == (6, state.elapsed_seconds)
    )
    assert restored.reports == state.reports
    momenta = [run.optimizer.state_dict()["state"] for run in (restored, state)]
    assert momenta[0].keys() == momenta[1].keys() != set()
    for number, entry in momenta[0].items():
        assert torch.equal(entry["momentum_buffer"], momenta[1][number]["momentum_buffer"])


def test_weights_that_predict_are_the_average():
    """Without an average, they are the weights of the last step."""
    state = train(start())
    average = state.average.state_dict()
    assert all(torch.equal(value, average[name]) for name, value in state.weights.items())
    assert any(not torch.equal(value, state.network.state_dict()[name]) for name, value in state.weights.items())
    plain = train(start(average_decay=0.0), average_decay=0.0)
    assert all(torch.equal(value, plain.network.state_dict()[name]) for name, value in plain.weights.items())


def test_average_is_not_trained():
    """Only the weights of the network itself have gradients."""
    state = start()
    assert all(parameter.requires_grad for parameter in state.network.parameters())
    assert not any(parameter.requires_grad for parameter in state.average.parameters())


def test_seed_decides_the_first_weights():
    """Other draws of random numbers do not matter."""
    first = start()
    torch.rand(3)
    assert_equal(first.network, start().network)
    assert any(
        not torch.equal(value, start(seed=6).network.state_dict()[name])
        for name, value in first.network.state_dict().items()
    )
    assert first.weights.keys() == first.network.state_dict().keys()


@pytest.mark.parametrize("scaled", [True, False])
def test_run_goes_on_where_gradients_need_another_scale(scaled):
    """A run of a CPU goes on on a GPU that calculates in float16, and the other way round."""
    state = train(start(scaled=not scaled))
    restored = start(seed=6, scaled=scaled)
    unpack_state(restored, through_the_disk(pack_state(state)), state.weights)
    assert_equal(restored.network, state.network)
    assert restored.scaler.is_enabled() == scaled
    assert restored.step == state.step


def test_steps_stay_those_of_this_device():
    """A training that was begun on a GPU goes on with the fused steps of a CPU."""
    packed = through_the_disk(pack_state(train(start())))
    for group in packed["optimizer"]["param_groups"]:
        assert group["fused"]
        group["fused"] = None
    restored = start()
    unpack_state(restored, packed, restored.weights)
    assert all(group["fused"] for group in restored.optimizer.param_groups)
