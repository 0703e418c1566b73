"""Training learns, stops on time, and goes on after a stop as if there had been none."""

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from threading import Event

import pytest
import torch
from phantoms import Listener
from small_models import small_cases, small_plan, small_run, small_state

from autoseg.dataloading import threads
from autoseg.dataloading.loader import Batches
from autoseg.errors import AutosegError, Stopped
from autoseg.preprocessing.foreground import sample_foreground
from autoseg.runtime import thread_pool
from autoseg.runtime.reporting import SILENT
from autoseg.training import loop
from autoseg.training.loop import current_rate, is_finished, progress, train_fold
from autoseg.training.monitoring.progress import EpochReport
from autoseg.training.optimization import learning_rate
from autoseg.training.state import pack_state, unpack_state
from autoseg.training.stopping import StopRequest


def ignore(state):
    """Does nothing at the end of an epoch."""


def same_weights(one, other):
    """Returns whether two networks are equal bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_training_learns():
    """The loss falls, and bright and dark cubes are told apart."""
    run = small_run(epochs=4, steps_per_epoch=25, learning_rate=0.05)
    state = small_state(run)
    train_fold(state, run, SILENT, ignore)
    assert state.reports[-1].training_loss < state.reports[0].training_loss - 0.5
    assert state.reports[-1].mean_pseudo_dice > 0.8
    assert state.step == 100


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup_share": 0.5},
        {"optimizer": "adamw", "learning_rate": 1e-3, "schedule": "step", "step_share": 0.4, "adam_betas": (0.8, 0.9)},
        {"learning_rate": 1e-9, "schedule": "plateau", "plateau_share": 0.01, "step_factor": 0.5},
        {"micro_batch_size": 1, "recompute_activations": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "usual",
)
def test_resumed_run_equals_an_uninterrupted_one(settings):
    """After a stop between epochs, weights, average and reports are equal bit for bit."""
    run = small_run(epochs=3, **settings)
    straight = small_state(run)
    train_fold(straight, run, SILENT, ignore)

    class StopError(Exception):
        """Ends the first run."""

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
    assert [report.learning_rate for report in resumed.reports] == [r.learning_rate for r in straight.reports]


class StopAt(StopRequest):
    """Asks a run to stop after each of some steps, once; each is a number of steps, in all and in the epoch."""

    def __init__(self, *steps):
        super().__init__()
        self.state, self.steps = None, list(steps)

    def check(self):
        """Raises the error."""
        done = None if self.state is None else (self.state.step, len(self.state.epoch.losses))
        if done in self.steps:
            self.steps.remove(done)
            raise Stopped("the test", 0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_run_that_was_stopped_in_mid_epoch_equals_an_uninterrupted_one(workers, average_decay, tmp_path):
    """It is stopped and saved within epochs, between them, and while it is measured; every bit is the same."""
    run = replace(small_run(epochs=3, steps_per_epoch=4, average_decay=average_decay), workers=workers)
    straight = small_state(run)
    train_fold(straight, run, SILENT, ignore)

    def save(state):
        content = {
            "training": pack_state(state),
            "weights": state.weights,
            "finished": is_finished(state, run.settings),
        }
        torch.save(content, tmp_path / "state")

    stops = [(1, 1), (3, 3), (4, 4), (4, 0), (11, 3), (12, 4)]
    stop = StopAt(*stops)
    for session in range(len(stops) + 1):
        state = stop.state = small_state(run, seed=5 + session)
        if session:
            content = torch.load(tmp_path / "state", weights_only=True)
            assert (content["training"]["step"], len(content["training"]["epoch"]["losses"])) == stops[session - 1]
            assert not content["finished"]
            unpack_state(state, content["training"], content["weights"])
        with pytest.raises(Stopped) if session < len(stops) else nullcontext():
            train_fold(state, replace(run, stop=stop), SILENT, save)
    assert same_weights(state.network, straight.network)
    assert same_weights(state.average, straight.average)
    for one, other in zip(state.reports, straight.reports, strict=True):
        assert (one.training_loss, one.validation_loss) == (other.training_loss, other.validation_loss)
        assert (one.pseudo_dice, one.learning_rate) == (other.pseudo_dice, other.learning_rate)
        assert one.seconds > 0
        assert 0 <= one.waiting_share <= 1


def test_state_that_was_saved_before_epochs_were_kept_open_is_read():
    """Checkpoints of an older version go on at the end of their epoch."""
    run = small_run(epochs=2)
    state = small_state(run)
    packed = pack_state(state)
    del packed["epoch"]
    unpack_state(state, packed, state.weights)
    train_fold(state, run, SILENT, ignore)
    assert len(state.reports) == 2


def test_number_of_loader_threads_changes_nothing():
    """Batches follow from their number, not from the thread that makes them."""
    states = []
    for workers in (0, 3):
        run = replace(small_run(epochs=1), workers=workers)
        state = small_state(run)
        train_fold(state, run, SILENT, ignore)
        states.append(state)
    assert same_weights(states[0].network, states[1].network)


def test_average_differs_from_the_weights_and_can_be_switched_off():
    """With a decay of 0 there is only one network."""
    run = small_run(epochs=1)
    state = small_state(run)
    train_fold(state, run, SILENT, ignore)
    assert not same_weights(state.average, state.network)
    assert small_state(small_run(average_decay=0)).average is not None
    plain = small_state(small_run(average_decay=0))
    assert plain.average is plain.network


def test_budget_of_seconds_ends_the_run_and_anneals_fully():
    """Time decides instead of epochs, and the last learning rate is near zero."""
    run = small_run(epochs=1, budget_seconds=1.0, steps_per_epoch=5)
    state = small_state(run)
    train_fold(state, run, SILENT, ignore)
    assert 1.0 <= state.elapsed_seconds < 3.0
    assert progress(state, run.settings) == 1
    assert state.optimizer.param_groups[0]["lr"] < 0.2 * run.settings.learning_rate


def test_progress_is_reported_whole():
    """The bar ends at its total, and every epoch has a line with the Dice of each label."""
    listener, run = Listener(), small_run(epochs=2)
    train_fold(small_state(run), run, listener, ignore)
    assert listener.advanced["training"] == pytest.approx(1)
    assert len(listener.lines) == 2
    assert "bright" in listener.lines[0]
    assert "dark" in listener.lines[0]


def test_loss_that_is_no_number_is_said_and_nothing_is_saved():
    """The run ends with advice before broken weights could replace good ones."""
    run = small_run(epochs=2, learning_rate=1e30, gradient_norm=1e30, momentum=0.0)
    saved = []
    with pytest.raises(
        AutosegError, match=r"training loss became (nan|inf) in step \d of epoch 0; lower training.learning_rate"
    ):
        train_fold(small_state(run), run, SILENT, saved.append)
    assert saved == []


def broken_at(step, monkeypatch, value=math.nan):
    """Makes the loss of a step NaN."""
    original = loop.train_step

    def break_loss(state, *rest):
        original(state, *rest)
        if state.step == step + 1:
            state.epoch.losses[-1] *= value

    monkeypatch.setattr(loop, "train_step", break_loss)


def test_loss_that_is_no_number_is_noticed_within_twenty_steps(monkeypatch):
    """The step is named, and the checkpoint of the epoch before is kept."""
    run, saved = small_run(epochs=2, steps_per_epoch=50), []
    broken_at(50 + 23, monkeypatch)
    state = small_state(run)
    with pytest.raises(AutosegError, match=r"became nan in step 23 of epoch 1; .*the checkpoint of epoch 0 is kept"):
        train_fold(state, run, SILENT, lambda state: saved.append(state.step))
    assert state.step == 50 + 40
    assert saved == [50]


def test_losses_are_seldom_looked_at(monkeypatch):
    """Each check makes a GPU wait, so there is one in twenty steps, and one at the end of the epoch."""
    looks = []
    monkeypatch.setattr(loop, "check_losses", lambda losses, _: looks.append(len(losses)))
    run = small_run(epochs=1, steps_per_epoch=50)
    train_fold(small_state(run), run, SILENT, ignore)
    assert looks == [20, 40, 50]


def test_stopped_run_saves_no_broken_weights(monkeypatch):
    """A loss that became NaN just before the stop is an error, and no checkpoint is saved."""
    stop = StopAt((4, 4))
    run, saved = replace(small_run(epochs=1, steps_per_epoch=8), stop=stop), []
    broken_at(2, monkeypatch)
    state = stop.state = small_state(run)
    with pytest.raises(AutosegError, match="became nan in step 2 of epoch 0"):
        train_fold(state, run, SILENT, saved.append)
    assert saved == []


def test_weights_that_broke_in_the_last_step_are_not_saved(monkeypatch):
    """The loss of that step was still finite."""
    run, saved = small_run(epochs=1), []
    original = loop.train_step

    def break_weights(state, *rest):
        original(state, *rest)
        with torch.no_grad():
            next(state.network.parameters()).fill_(math.inf if state.step == 3 else 0)

    monkeypatch.setattr(loop, "train_step", break_weights)
    with pytest.raises(AutosegError, match="weights of the network are no longer numbers"):
        train_fold(small_state(run), run, SILENT, saved.append)
    assert saved == []


def test_lost_structure_is_said(monkeypatch):
    """The warnings of an epoch come after its line."""
    monkeypatch.setattr(loop, "measure", lambda *_: (0.5, [0.9, 0.0]))
    listener, run = Listener(), small_run(epochs=26, steps_per_epoch=1)
    train_fold(small_state(run), run, listener, ignore)
    assert [line.split()[0] for line in listener.lines] == ["epoch"] * 25 + ["dark"] + ["epoch"]
    assert "dark was not found in 25 epochs" in listener.text


def test_console_line_says_what_the_time_went_into():
    """Patches per second are those of the steps, without the validation after them."""
    listener, run = Listener(), small_run(epochs=1, steps_per_epoch=5)
    state = small_state(run)
    train_fold(state, run, listener, ignore)
    [report], [line] = state.reports, listener.lines
    speed, waiting = f"{report.patches_per_second:.3g} patches/s", f"{report.waiting_share:.0%} waiting for them"
    assert line.endswith(f"({report.seconds:.1f} s, {speed}, {waiting})")
    assert 5 * 2 / report.patches_per_second < report.seconds
    assert (report.device_memory_bytes, report.device_utilization) == (None, None)  # only a CUDA GPU tells


def test_waiting_is_waiting_for_the_threads(monkeypatch):
    """Changing patches on a device is work of the device; only the reading of patches is waited for."""

    def slow(method, seconds):
        original = getattr(Batches, method)

        def call(self, *arguments):
            time.sleep(seconds)
            return original(self, *arguments)

        return call

    run = small_run(epochs=1, steps_per_epoch=4)
    run = replace(run, training=replace(run.training, augmentation_device=torch.device("cpu")))

    def train_with_slow(method, seconds):
        with monkeypatch.context() as context:
            context.setattr(Batches, method, slow(method, seconds))
            state = small_state(run)
            train_fold(state, run, SILENT, ignore)
        return state.reports[-1]

    busy = train_with_slow("_finish", 0.1)
    assert busy.waiting_share < 0.5
    seconds_per_step = busy.elapsed_seconds / 4
    assert train_with_slow("_prepare", 2 * seconds_per_step).waiting_share > 0.5


def test_stalled_loader_is_said_before_it_is_an_error(monkeypatch):
    """One line names what the loader waits for."""

    def prepare(self, number):
        self.reading[0] = "case_7"
        time.sleep(3.2 if number == 2 else 0)
        return original(self, number)

    original = Batches._prepare
    monkeypatch.setattr(Batches, "_prepare", prepare)
    monkeypatch.setattr(loop, "SILENT_SECONDS", 1)
    monkeypatch.setattr(threads, "STALL_SECONDS", 100)
    listener, run = Listener(), small_run(epochs=1)
    train_fold(small_state(run), run, listener, ignore)
    assert [line for line in listener.lines if "no training patch" in line] == [
        "no training patch for 1 s; reading case_7; see whether the disk answers"
    ]


def test_run_that_waits_for_its_disk_can_be_stopped(monkeypatch):
    """It stops within about a second, and the steps before are saved."""

    def prepare(self, number):
        release.wait(20 if number >= 1 else 0)
        return original(self, number)

    release, original, saved = Event(), Batches._prepare, []
    monkeypatch.setattr(Batches, "_prepare", prepare)
    monkeypatch.setattr(thread_pool, "GRACE_SECONDS", 0.0)
    stop = StopAt((1, 1))
    run = replace(small_run(epochs=1), stop=stop)
    state = stop.state = small_state(run)
    with pytest.raises(Stopped):
        train_fold(state, run, SILENT, lambda state: saved.append(state.step))
    release.set()
    assert saved == [1]


def test_learning_rate_is_golden():
    """The values are those of nnU-Net v2.8.1 at epochs 0, 1, 100, 500, 900 and 999 of 1000."""
    settings = small_plan().training
    golden = {0: 0.01, 1: 0.009991, 100: 0.00909533, 500: 0.00535887, 900: 0.00125893, 999: 1.995e-5}
    for epoch, expected in golden.items():
        assert learning_rate(epoch / 1000, settings) == pytest.approx(expected, rel=2e-4)
    assert learning_rate(1.5, settings) == 0


def test_rate_falls_when_the_loss_stays_where_it_is():
    """In a "plateau", the rate follows the losses over the share of the training, in steps or seconds."""
    for length in ({"epochs": 10}, {"budget_seconds": 100.0}):
        run = small_run(schedule="plateau", plateau_share=0.2, step_factor=0.5, learning_rate=0.4, **length)
        state = small_state(run)
        report = EpochReport(
            epoch=0,
            training_loss=1.0,
            validation_loss=1.0,
            pseudo_dice={},
            learning_rate=0.4,
            seconds=10.0,
            elapsed_seconds=10.0,
        )
        rates = []
        for epoch in range(6):
            rates.append(current_rate(state, run.settings))
            state.reports.append(replace(report, epoch=epoch, elapsed_seconds=10.0 * (epoch + 1)))
        assert rates == [0.4, 0.4, 0.4, 0.2, 0.2, 0.1]


def test_steps_follow_the_schedule():
    """Each step has the learning rate of the progress before it."""
    run = small_run(epochs=1, steps_per_epoch=4, schedule="cosine", warmup_share=0.5, learning_rate=0.1)
    state, rates = small_state(run), []
    state.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    train_fold(state, run, SILENT, ignore)
    assert rates == pytest.approx([0.001, 0.05, 0.1, 0.05])


def test_class_that_never_occurs_has_no_pseudo_dice():
    """It is NaN, neither zero nor one, and the mean leaves it out."""
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
    """The error is one line with advice, instead of torch's own text."""
    run = small_run(epochs=1)

    def fail(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "train_step", fail)
    with pytest.raises(AutosegError, match=r"memory of the device cpu is full; .* plan again with less --memory"):
        train_fold(small_state(run), run, SILENT, ignore)
