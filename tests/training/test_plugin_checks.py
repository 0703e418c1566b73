"""Networks, losses and transforms that are not built in train as the built-in ones do, or are refused in one line."""

import copy
from functools import partial

import pytest
import torch
from custom_parts import Pyramid, one_step, own_run, save_step
from phantoms import Listener
from small_models import small_run, small_state
from torch import nn

from autoseg.errors import UsageError
from autoseg.planning.plugins import register_loss, register_network, register_transform
from autoseg.runtime import device
from autoseg.runtime.reporting import SILENT
from autoseg.training.launch import launch
from autoseg.training.loop import train_fold
from autoseg.training.losses import deep_supervision_weights
from autoseg.training.plugin_checks import check_presence, describe_limits, find_idle, try_out
from autoseg.training.state import pack_state, unpack_state

pytestmark = pytest.mark.usefixtures("empty_registry")


def weights_of(state):
    """Returns weights and averages, by name."""
    return {**state.network.state_dict(), **{f"average {name}": value for name, value in state.weights.items()}}


def assert_same(one, other):
    """Asserts that two states are equal bit for bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# --- Training ---------------------------------------------------------------------------------------------------------


def test_own_parts_learn():
    """A custom network, loss and transform train together."""
    transforms = [("brighten", {"most": 0.2})]
    run = own_run("pyramid", "squared_error", transforms, epochs=4, steps_per_epoch=25, learning_rate=0.05)
    state = small_state(run)
    train_fold(state, run, SILENT, lambda _: None)
    assert isinstance(state.network, Pyramid)
    assert state.reports[-1].training_loss < 0.5 * state.reports[0].training_loss
    assert 0 < state.reports[-1].validation_loss < 1
    assert state.reports[-1].mean_pseudo_dice > 0.8


def test_run_that_was_stopped_goes_on_bit_for_bit():
    """Dropout and running means go on too, whatever torch's generator drew in between."""
    given = {"dropout": 0.5, "norm": True, "levels": 2}
    run = own_run("pyramid", "squared_error", [("brighten", {"most": 0.5})], given=given)
    straight = small_state(run)
    torch.manual_seed(1)
    packed = []
    train_fold(straight, run, SILENT, lambda state: packed.append(copy.deepcopy((pack_state(state), state.weights))))
    torch.manual_seed(2)
    resumed = small_state(run)
    unpack_state(resumed, *packed[0])
    assert resumed.step == 3
    train_fold(resumed, run, SILENT, lambda _: None)
    assert_same(weights_of(resumed), weights_of(straight))


def test_dropout_differs_from_step_to_step():
    """It follows from the step, not from the fold alone."""
    run = own_run(given={"dropout": 0.5}, epochs=1, steps_per_epoch=4)
    drawn = []

    class Watching(nn.Dropout):
        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                drawn.append(torch.get_rng_state())
            return super().forward(x)

    state = small_state(run)
    state.network.dropout = Watching(0.5)
    train_fold(state, run, SILENT, lambda _: None)
    assert len({tuple(one.tolist()) for one in drawn}) == len(drawn) == 4


def test_averaged_network_knows_the_running_means():
    """They are buffers: without them it would predict with those of its start."""
    run = own_run(given={"norm": True}, average_decay=0.99)
    state = small_state(run)
    train_fold(state, run, SILENT, lambda _: None)
    assert state.average is not state.network
    assert state.network.norm.num_batches_tracked == 6
    assert torch.equal(state.average.norm.running_mean, state.network.norm.running_mean)
    assert state.average.norm.running_mean.abs().max() > 0


def test_built_in_network_draws_nothing_new():
    """Torch's own generator, which belongs to the user, is not changed."""
    run = small_run(epochs=1)
    before = torch.get_rng_state()
    train_fold(small_state(run), run, SILENT, lambda _: None)
    assert torch.equal(torch.get_rng_state(), before)


def test_trial_changes_nothing():
    """Weights, running means, gradients and torch's own generator are as before."""
    run = own_run("pyramid", "squared_error", [("brighten", {"most": 0.5})], given={"dropout": 0.5, "norm": True})
    state = small_state(run)
    before, draws = {name: value.clone() for name, value in state.network.state_dict().items()}, torch.get_rng_state()
    try_out(state.network, run)
    assert_same(state.network.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(weights.grad is None for weights in state.network.parameters())


# --- Several processes ------------------------------------------------------------------------------------------------


def test_weights_that_the_loss_leaves_out_are_found():
    """They are those of the coarsest of several logits, found without changing anything."""
    assert deep_supervision_weights([(8,), (4,), (2,)])[2] == 0
    for levels, idle in ((1, []), (3, ["heads.2.weight", "heads.2.bias"])):
        run = own_run(given={"levels": levels})
        state, before = small_state(run), torch.get_rng_state()
        assert find_idle(state.network, run) == idle
        assert torch.equal(torch.get_rng_state(), before)
        assert all(weights.grad is None for weights in state.network.parameters())


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(tmp_path, monkeypatch):
    """Of five patches the first rank has three: each rank counts by its patches."""
    monkeypatch.setattr(device, "precision", lambda _: torch.float32)
    launch(partial(save_step, tmp_path, "cpu"), 2, "cpu", Listener())
    loss, gradients = one_step()
    assert gradients.keys() == {
        f"{part}.{one}" for part in ("first", "heads.0", "heads.1") for one in ("weight", "bias")
    }
    for rank in (0, 1):
        found_loss, found = torch.load(tmp_path / f"{rank}.pt")
        assert found_loss == pytest.approx(loss, abs=1e-6)
        assert found.keys() >= gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-7, rtol=1e-4)


# --- Terms ------------------------------------------------------------------------------------------------------------


class Told(nn.Module):
    """A network that returns given values, in training and in evaluation mode."""

    def __init__(self, training, evaluation):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1))
        self.told = training, evaluation

    def forward(self, image):
        """Returns logits of the shapes, which lack their first axis, or the given value."""
        given = self.told[0 if self.training else 1]
        return [self.make(image, one) for one in given] if isinstance(given, list) else self.make(image, given)

    def make(self, image, given):
        """Returns logits of a shape."""
        return torch.zeros(len(image), *given) * self.weights if isinstance(given, tuple) else given


GOOD, HALF = (3, 8, 8, 8), (3, 4, 4, 4)


@pytest.mark.parametrize(
    ("training", "evaluation", "text"),
    [
        (GOOD, GOOD, r"gives a Tensor in training, not a list of logits"),
        ([], GOOD, r"gives a list in training, not a list of logits"),
        ([GOOD], [GOOD], r"in evaluation mode gives a list, not a tensor of logits"),
        ([None], GOOD, r"in training gives a NoneType, not a tensor"),
        ([HALF, GOOD], GOOD, r"in training gives logits of shape \(2, 3, 4, 4, 4\), not \(2, 3, 8, 8, 8\); mend"),
        ([GOOD], (2, 8, 8, 8), r"in evaluation mode gives logits of shape \(2, 2, 8, 8, 8\), not \(2, 3, 8, 8, 8\)"),
        ([GOOD, (2, 4, 4, 4)], GOOD, r"coarser resolution gives logits of shape .*, not at most \(2, 3, 8, 8, 8\)"),
        ([GOOD, (3, 16, 4, 4)], GOOD, r"coarser resolution gives logits of shape \(2, 3, 16, 4, 4\), not at most"),
        ([GOOD, (3, 4, 4)], GOOD, r"coarser resolution gives logits of shape \(2, 3, 4, 4\), not at most"),
    ],
)
def test_network_that_gives_something_else_is_refused(training, evaluation, text):
    """The error is one line when the fold begins."""
    register_network("told", lambda *_: Told(training, evaluation))
    run = own_run("told")
    with pytest.raises(UsageError, match=f"^the network 'told'.*{text}"):
        train_fold(small_state(run), run, SILENT, lambda _: None)


class Remembering(nn.Conv3d):
    """A network whose state is more than tensors."""

    def get_extra_state(self):
        """Returns something that is no tensor."""
        return {"when": "yesterday"}

    def set_extra_state(self, state):
        """Ignores the state."""


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Told([GOOD], GOOD).requires_grad_(False), "has no weights to train"),
        (lambda: Remembering(1, 3, 1), "holds more than tensors"),
    ],
)
def test_network_that_cannot_be_trained_or_kept_is_refused(make, text):
    """The error comes before the first step."""
    register_network("odd", lambda *_: make())
    run = own_run("odd")
    with pytest.raises(UsageError, match=text):
        try_out(make(), run)


def test_network_that_gives_no_numbers_is_refused():
    """It is refused in either mode."""
    register_network("pyramid_of_nan", lambda *_: None)
    run = own_run("pyramid_of_nan")
    network = Told([GOOD], GOOD)
    nn.init.constant_(network.weights, float("nan"))
    with pytest.raises(UsageError, match="are infinite or NaN for a patch of noise"):
        try_out(network, run)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (lambda logits, *_: logits.mean(dim=(1, 2, 3, 4)), r"is a tensor of shape \(2,\), not a tensor without axes"),
        (lambda logits, *_: logits.mean().item(), "is float, not a tensor without axes"),
        (lambda logits, *_: logits.detach().mean(), "no gradient, or one that is no number"),
        (lambda *_: torch.ones((), requires_grad=True), "no gradient, or one that is no number"),
        (lambda logits, *_: (0 * logits).sum().sqrt(), "no gradient, or one that is no number"),
        (lambda logits, *_: logits.mean() / 0, "of noise is (-)?inf; mend that package"),
    ],
)
def test_loss_that_cannot_be_minimized_is_refused(loss, text):
    """The error is one line when the fold begins."""
    register_loss("odd", loss)
    run = own_run(None, "odd")
    with pytest.raises(UsageError, match=f"the loss 'odd'.*{text}|{text}.*the loss 'odd'"):
        train_fold(small_state(run), run, SILENT, lambda _: None)


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (lambda image, *_: image, "does not give an image"),
        (lambda image, label, *_: (image[:, 1:], label), "does not give an image"),
        (lambda image, label, *_: (image, label.float()), "does not give an image"),
        (lambda image, label, *_: (image / 0, label), "makes voxels that are infinite or NaN"),
    ],
)
def test_transform_that_breaks_patches_is_refused(transform, text):
    """The error is one line when the fold begins."""
    register_transform("odd", transform)
    run = own_run(None, transforms=[("odd", {})])
    with pytest.raises(UsageError, match=f"^the transform 'odd' {text}"):
        train_fold(small_state(run), run, SILENT, lambda _: None)


def test_what_is_missing_is_said_before_anything_is_done():
    """A missing network, loss or transform is named."""
    for run, kind in (
        (own_run("far"), "network"),
        (own_run(None, "far"), "loss"),
        (own_run(None, transforms=[("far", {})]), "transform"),
    ):
        with pytest.raises(UsageError, match=f"there is no {kind} 'far' here"):
            check_presence(run.training.configuration, run.settings)
    present = own_run("pyramid", "squared_error", [("brighten", {"most": 1})])
    check_presence(present.training.configuration, present.settings)


def test_what_does_not_apply_to_the_network_is_said():
    """Estimates of memory and recomputing apply to the built-in network only; others train anyway."""
    run = own_run(recompute_activations=True, epochs=1)
    estimate, recompute = describe_limits(run.training.configuration, run.settings)
    assert "no estimate of memory in plan.json applies" in estimate
    assert "recompute_activations has no effect on the network 'pyramid'" in recompute
    train_fold(small_state(run), run, SILENT, lambda _: None)
    usual = small_run(recompute_activations=True)
    assert list(describe_limits(usual.training.configuration, usual.settings)) == []


def test_memory_that_runs_out_is_said_without_an_estimate(monkeypatch):
    """The estimate of the plan is that of another network."""
    run, listener, calls = own_run(epochs=1, steps_per_epoch=1), Listener(), []

    def fail_at_first(self, image):
        calls.append(len(image))
        if len(image) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, image)

    forward = Pyramid.forward
    state = small_state(run)
    monkeypatch.setattr("autoseg.training.loop.try_out", lambda *_: None)
    monkeypatch.setattr("autoseg.training.loop.measure", lambda *_: (0.0, [0.0, 0.0]))
    monkeypatch.setattr(Pyramid, "forward", fail_at_first)
    train_fold(state, run, listener, lambda _: None)
    assert calls == [2, 1, 1]
    assert "(no estimate knows this network)" in listener.text
