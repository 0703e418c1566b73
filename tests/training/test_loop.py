"""Training learns, stops on time, and goes on after a stop as if there had been none."""

import math
from dataclasses import replace

import pytest
import torch
from phantoms import Listener
from small_models import small_cases, small_plan, small_run, small_state

from autoseg.data.foreground import sample_foreground
from autoseg.errors import AutosegError
from autoseg.reporting import SILENT
from autoseg.training import loop
from autoseg.training.loop import progress, train_fold
from autoseg.training.optimization import learning_rate
from autoseg.training.state import pack_state, unpack_state


def ignore(state):
    """Nothing to do at the end of an epoch."""


def same_weights(one, other):
    """Whether two networks are equal bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_training_learns():
    """The loss falls and bright and dark cubes are told apart."""
    run = small_run(epochs=4, steps_per_epoch=25, learning_rate=0.05)
    state = small_state(run)
    train_fold(state, run, SILENT, ignore)
    assert state.reports[-1].training_loss < state.reports[0].training_loss - 0.5
    assert state.reports[-1].mean_pseudo_dice > 0.8
    assert state.step == 100


def test_resumed_run_equals_an_uninterrupted_one():
    """Weights, average and reported losses are the same bit for bit after a stop between epochs."""
    run = small_run(epochs=3)
    straight = small_state(run)
    train_fold(straight, run, SILENT, ignore)

    class StopError(Exception):
        """Ends the first session."""

    packed = {}

    def stop_after_first(state):
        packed.update(pack_state(state), average=state.weights)
        raise StopError

    with pytest.raises(StopError):
        train_fold(small_state(run), run, SILENT, stop_after_first)
    resumed = small_state(run)
    average = packed.pop("average")
    unpack_state(resumed, packed, average)
    assert resumed.step == 3
    train_fold(resumed, run, SILENT, ignore)
    assert same_weights(resumed.network, straight.network)
    assert same_weights(resumed.average, straight.average)
    assert [report.training_loss for report in resumed.reports] == [r.training_loss for r in straight.reports]


def test_number_of_loader_threads_changes_nothing():
    """Batches follow from their number, not from who makes them."""
    states = []
    for workers in (0, 3):
        run = replace(small_run(epochs=1), workers=workers)
        state = small_state(run)
        train_fold(state, run, SILENT, ignore)
        states.append(state)
    assert same_weights(states[0].network, states[1].network)


def test_average_differs_from_the_weights_and_can_be_switched_off():
    """With a decay of 0 there is one network only."""
    run = small_run(epochs=1)
    state = small_state(run)
    train_fold(state, run, SILENT, ignore)
    assert not same_weights(state.average, state.network)
    assert small_state(small_run(average_decay=0)).average is not None
    plain = small_state(small_run(average_decay=0))
    assert plain.average is plain.network


def test_budget_of_seconds_ends_the_run_and_anneals_fully():
    """Time decides, not epochs, and the last learning rate is near zero."""
    run = small_run(epochs=1, budget_seconds=1.0, steps_per_epoch=5)
    state = small_state(run)
    train_fold(state, run, SILENT, ignore)
    assert 1.0 <= state.elapsed_seconds < 3.0
    assert progress(state, run.settings) == 1
    assert state.optimizer.param_groups[0]["lr"] < 0.2 * run.settings.learning_rate


def test_progress_is_reported_whole():
    """The bar ends at its total and every epoch has a line with the Dice of each label."""
    listener, run = Listener(), small_run(epochs=2)
    train_fold(small_state(run), run, listener, ignore)
    assert listener.advanced["training"] == pytest.approx(1)
    assert len(listener.lines) == 2
    assert "bright" in listener.lines[0]
    assert "dark" in listener.lines[0]


def test_loss_that_is_no_number_is_said_and_nothing_is_saved():
    """The run ends with advice before the broken weights could replace good ones."""
    run = small_run(epochs=2, learning_rate=1e30, gradient_norm=1e30, momentum=0.0)
    saved = []
    with pytest.raises(AutosegError, match=r"training loss became (nan|inf).*learning_rate"):
        train_fold(small_state(run), run, SILENT, saved.append)
    assert saved == []


def test_learning_rate_is_golden():
    """The polynomial of nnU-Net v2.8.1 at epochs 0, 1, 100, 500, 900 and 999 of 1000."""
    settings = small_plan().training
    golden = {0: 0.01, 1: 0.009991, 100: 0.00909533, 500: 0.00535887, 900: 0.00125893, 999: 1.995e-5}
    for epoch, expected in golden.items():
        assert learning_rate(epoch / 1000, settings) == pytest.approx(expected, rel=2e-4)
    assert learning_rate(1.5, settings) == 0


def test_class_that_never_occurs_has_no_pseudo_dice():
    """NaN, neither zero nor one, and the mean leaves it out."""
    run = small_run(epochs=1, steps_per_epoch=30, learning_rate=0.05)
    cases = []
    for case in small_cases():
        label = case.label * (case.label == 1)
        cases.append(replace(case, label=label, foreground=sample_foreground(label)))
    run = replace(run, training=replace(run.training, cases=cases), validation=replace(run.validation, cases=cases))
    state = small_state(run)
    train_fold(state, run, SILENT, ignore)
    dice = state.reports[-1].pseudo_dice
    assert math.isnan(dice["dark"]) or dice["dark"] == 0
    assert dice["bright"] > 0


def test_full_memory_of_the_device_is_said(monkeypatch):
    """With what to do about it, instead of a page of numbers."""
    run = small_run(epochs=1)

    def fail(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "train_step", fail)
    with pytest.raises(AutosegError, match=r"memory of the device cpu is full; .* plan again with less --memory"):
        train_fold(small_state(run), run, SILENT, ignore)
