"""A command that trains ends within seconds whatever it does at the moment, and loses nothing but that."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from custom_parts import register_all
from phantoms import Listener
from tiny_workspaces import NUMBER, files_in, folders_of, plan_tiny, write_splits, write_volumes

from autoseg.errors import Stopped
from autoseg.model_selection import validation
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.training import stop, train
from autoseg.planning.plugin_settings import Plugin
from autoseg.training import stopping
from autoseg.training.watchdog import PATIENCE_SECONDS

CONFIGURATION = "3d_fullres"
STEPS = 3
SOON_SECONDS = 30
"""Time in which a program must end. It takes a few seconds, unless the machine is very busy; a step takes a minute."""

IN_A_LONG_CALL = """
import signal, sys, time
from pathlib import Path
import torch
from custom_parts import register_all
from autoseg.model_selection import validation
from autoseg.training import loop, watchdog
from autoseg.training.state import TrainState

root, place, number, patience = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])

def take_a_minute():
    Path(root, "busy").touch()
    if place == "C++":
        torch.linalg.svd(torch.randn(6000, 6000, dtype=torch.float64))
    time.sleep(60)

def fill_gradients(state, *rest, original=loop.fill_gradients):
    loss = original(state, *rest)
    if place in ("step", "C++") and state.step == number:
        take_a_minute()
    return loss

def move_batch(batch, device, original=loop.move_batch):
    if place == "measure" and steps_done == number:
        take_a_minute()
    return original(batch, device)

def count_step(state, *rest, original=TrainState.count_step):
    global steps_done
    original(state, *rest)
    steps_done = state.step

def load_preprocessed(name, *rest, original=validation.load_preprocessed):
    if place == "segmenting" and name == f"case_{number}":
        take_a_minute()
    return original(name, *rest)

steps_done = None
loop.fill_gradients, loop.move_batch = fill_gradients, move_batch
TrainState.count_step, validation.load_preprocessed = count_step, load_preprocessed
watchdog.PATIENCE_SECONDS = patience
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background may be told to ignore it
register_all()
from autoseg.__main__ import main
sys.argv = ["autoseg", "train", "-d", "1", "-c", "3d_fullres", "-f", "0", "-w", root, "--device", "cpu"]
main()
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns an untrained workspace, whose network has running statistics, and two held-out cases."""
    root = tmp_path_factory.mktemp("prepared")
    write_volumes(root)
    plan = plan_tiny(root, epochs=2, steps_per_epoch=STEPS, average_decay=0.0)
    network = Plugin(name="pyramid", settings={"norm": True})
    configuration = plan.configurations[CONFIGURATION].model_copy(update={"network": network})
    plan.model_copy(update={"configurations": {CONFIGURATION: configuration}}).save(folders_of(root).plan)
    write_splits(root, [(["case_1"], ["case_2", "case_3"])])
    return root


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory):
    """Returns a workspace in which the fold was trained without a stop."""
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("straight") / "workspace")
    finish(root)
    return root


@pytest.fixture
def fresh(prepared, tmp_path):
    """Returns a copy of the untrained workspace."""
    return shutil.copytree(prepared, tmp_path / "fresh")


def finish(root):
    """Trains, or goes on, to the end of the fold; returns a listener."""
    register_all()
    listener = Listener()
    train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=root, reporter=listener)
    return listener


def model_of(root):
    """Returns the model folder of a workspace."""
    return folders_of(root).model(CONFIGURATION)


def checkpoint_of(root):
    """Loads the checkpoint of the fold."""
    return load_checkpoint(model_of(root).checkpoint(0))


class Program:
    """A training in a process of its own, which takes a minute at some place."""

    def __init__(self, root, place, number=0, patience=0.3):
        options = [str(root), place, str(number), str(patience)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_A_LONG_CALL, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline, busy = time.monotonic() + 100, root / "busy"
        while not busy.exists() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        busy.unlink(missing_ok=True)

    def stopped_by(self, how, root):
        """Stops it; returns exit code, last line of the error stream, and seconds until the end."""
        began = time.monotonic()
        if how == "file":
            stop(NUMBER, CONFIGURATION, workspace=root)
        else:
            self.process.send_signal(how)
        return self.ended(began)

    def ended(self, began):
        """Waits for its end."""
        _, errors = self.process.communicate(timeout=100)
        return self.process.returncode, errors.splitlines()[-1], time.monotonic() - began


def assert_stopped(ended, code, by):
    """Asserts exit code, message and speed."""
    assert ended[:2] == (
        code,
        f"stopped by {by}, and saved to the last step; the same command goes on (without --extend, --restart)",
    )
    assert ended[2] < SOON_SECONDS


def assert_same_training(one, other):
    """Asserts that weights, buffers, momentum and losses of two folds are equal bit for bit."""
    first, second = checkpoint_of(one), checkpoint_of(other)
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name]), name
        assert torch.equal(first.training["weights"][name], second.training["weights"][name]), name
    for number, kept in first.training["optimizer"]["state"].items():
        momentum = second.training["optimizer"]["state"][number]["momentum_buffer"]
        assert torch.equal(kept["momentum_buffer"], momentum), number
    for mine, theirs in zip(first.training["reports"], second.training["reports"], strict=True):
        assert (mine["training_loss"], mine["validation_loss"]) == (theirs["training_loss"], theirs["validation_loss"])


LEFT = {"checkpoint.pt", "progress.jsonl"}
"""Files of a fold that was stopped in its first epoch."""


@pytest.mark.slow
def test_step_of_a_minute_is_given_up(fresh, straight):
    """SIGTERM, Ctrl-C and the file each end a step of a minute; all steps before are kept, bit for bit."""
    assert_stopped(Program(fresh, "step", 1).stopped_by(signal.SIGTERM, fresh), 143, "SIGTERM")
    assert checkpoint_of(fresh).training["step"] == 1
    assert files_in(model_of(fresh).fold(0)) == LEFT
    assert_stopped(Program(fresh, "step", 2).stopped_by(signal.SIGINT, fresh), 130, "Ctrl-C")
    assert checkpoint_of(fresh).training["step"] == 2
    assert files_in(model_of(fresh).fold(0)) == LEFT
    assert_stopped(Program(fresh, "step", 4).stopped_by("file", fresh), 0, "'autoseg stop'")
    assert checkpoint_of(fresh).training["step"] == 4
    finish(fresh)
    assert_same_training(fresh, straight)
    assert files_in(model_of(fresh).fold(0)) == files_in(model_of(straight).fold(0))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_call_of_torch_is_given_up(fresh, straight, how):
    """Python handles no signal during the call. The patience is the usual one."""
    code, by = {signal.SIGTERM: (143, "SIGTERM"), signal.SIGINT: (130, "Ctrl-C")}[how]
    ended = Program(fresh, "C++", 4, PATIENCE_SECONDS).stopped_by(how, fresh)
    assert_stopped(ended, code, by)
    assert ended[2] > PATIENCE_SECONDS
    assert checkpoint_of(fresh).training["step"] == 4
    finish(fresh)
    assert_same_training(fresh, straight)


@pytest.mark.slow
def test_measurement_of_a_minute_is_given_up(fresh, straight):
    """The steps of the epoch are kept; it is measured by the next run, also the last one."""
    for steps in (STEPS, 2 * STEPS):
        assert_stopped(Program(fresh, "measure", steps).stopped_by(signal.SIGTERM, fresh), 143, "SIGTERM")
        assert (checkpoint_of(fresh).training["step"], checkpoint_of(fresh).finished) == (steps, False)
    finish(fresh)
    assert_same_training(fresh, straight)


@pytest.mark.slow
def test_second_signal_ends_at_once(fresh):
    """It waits for nothing, and leaves nothing half-written."""
    program = Program(fresh, "step", 1, patience=1000)
    program.process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert program.process.poll() is None
    code, line, seconds = program.stopped_by(signal.SIGTERM, fresh)
    assert (code, line.split(";")[0]) == (143, "ended at once by a second SIGTERM")
    assert seconds < SOON_SECONDS
    assert files_in(model_of(fresh).fold(0)) == {"progress.jsonl"}


def assert_second_case_is_left(fresh, straight):
    """Asserts that the first held-out case is kept, and that the next run ends with the same files and scores."""
    left = files_in(model_of(fresh).fold(0))
    assert {name for name in left if name.startswith(".")} == {
        ".validating/.judged/case_2.json",
        ".validating/calibration_voxels/case_2.npz",
        ".validating/case_2.nii.gz",
    }
    listener = finish(fresh)
    assert "1 of 2 held-out cases were segmented by an earlier run" in listener.text
    assert files_in(model_of(fresh).fold(0)) == files_in(model_of(straight).fold(0))
    for name in ("summary.json", "summary.csv"):
        summaries = [(model_of(root).validation(0) / name).read_bytes() for root in (fresh, straight)]
        assert summaries[0] == summaries[1]


@pytest.mark.slow
def test_scan_of_a_minute_is_given_up(fresh, straight):
    """The scans that were segmented before are kept."""
    assert_stopped(Program(fresh, "segmenting", 3).stopped_by("file", fresh), 0, "'autoseg stop'")
    assert_second_case_is_left(fresh, straight)


@pytest.mark.slow
def test_validation_is_stopped_between_two_tiles(fresh, straight, monkeypatch):
    """Within a scan, and without ending the process that called the function."""

    def load(name, *rest, original=validation.load_preprocessed):
        if name == "case_3":
            stop(NUMBER, CONFIGURATION, workspace=fresh)
        return original(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "load_preprocessed", load)
        patch.setattr(stopping, "LOOK_SECONDS", 0.0)
        with pytest.raises(Stopped):
            finish(fresh)
    assert_second_case_is_left(fresh, straight)


@pytest.mark.slow
def test_kept_scan_of_other_weights_is_segmented_again(fresh, straight, monkeypatch):
    """So is one whose label has changed since."""
    with monkeypatch.context() as patch:
        patch.setattr(validation, "_draw_case", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finish(fresh)
    folder = model_of(fresh).unfinished_validation(0)
    assert files_in(folder) >= {"case_2.nii.gz", "case_3.nii.gz"}
    record = folder / ".judged" / "case_2.json"
    record.write_text(record.read_text().replace('"model": "', '"model": "0'))
    (folders_of(fresh).raw / "labelsTr" / "case_3.nii.gz").touch()
    listener = finish(fresh)
    assert "segmented by an earlier run" not in listener.text
    assert files_in(model_of(fresh).fold(0)) == files_in(model_of(straight).fold(0))
