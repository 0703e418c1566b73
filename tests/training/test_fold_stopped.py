"""A fold that was asked to stop goes on bit for bit, and a finished one goes on if it is extended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, edit_training, folders_of, plan_tiny, write_volumes

from autoseg.errors import Stopped, UsageError
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.training import stop, train
from autoseg.runtime.lock import run_alone
from autoseg.training import loop, stopping
from autoseg.training.monitoring import tracking

CONFIGURATION = "3d_fullres"
STEPS = 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace that was planned and preprocessed but not trained."""
    root = tmp_path_factory.mktemp("prepared")
    write_volumes(root)
    plan_tiny(root, epochs=2, steps_per_epoch=STEPS, average_decay=0.9)
    return root


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory):
    """Returns a workspace in which fold 0 was trained without a stop."""
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("straight") / "workspace")
    run_train(root)
    return root


@pytest.fixture
def fresh(prepared, tmp_path):
    """Returns a copy of the untrained workspace."""
    return shutil.copytree(prepared, tmp_path / "fresh")


@pytest.fixture
def trained(straight, tmp_path):
    """Returns a copy of the trained workspace."""
    return shutil.copytree(straight, tmp_path / "trained")


def run_train(root, folds=(0,), **options):
    """Trains, and returns a listener with the lines that were reported."""
    listener = Listener()
    train(NUMBER, CONFIGURATION, list(folds), device="cpu", workspace=root, reporter=listener, **options)
    return listener


def model_of(root):
    """Returns the model folder of a workspace."""
    return folders_of(root).model(CONFIGURATION)


def checkpoint_of(root, fold=0):
    """Loads the checkpoint of a fold."""
    return load_checkpoint(model_of(root).checkpoint(fold))


def reports_of(root, fold=0):
    """Returns epochs, losses and learning rates of a fold, from its checkpoint."""
    return [
        (report["epoch"], report["training_loss"], report["validation_loss"], report["learning_rate"])
        for report in checkpoint_of(root, fold).training["reports"]
    ]


def before_step(step, what, monkeypatch):
    """Calls a function before a step of training."""
    original = loop.train_step

    def step_after(state, *rest):
        if state.step == step:
            what()
        return original(state, *rest)

    monkeypatch.setattr(loop, "train_step", step_after)
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.0)


def assert_same_training(one, other):
    """Asserts that weights and reports of two folds are equal bit for bit."""
    for name, value in checkpoint_of(one).weights.items():
        assert torch.equal(value, checkpoint_of(other).weights[name]), name
    assert reports_of(one) == reports_of(other)


def test_stop_file_ends_a_run_within_an_epoch(fresh, straight, monkeypatch):
    """No step is lost, lock and file are removed, and the run goes on to the same end."""
    with monkeypatch.context() as patch:
        before_step(STEPS + 1, lambda: stop(NUMBER, CONFIGURATION, workspace=fresh), patch)
        with pytest.raises(Stopped):
            run_train(fresh)
    left = checkpoint_of(fresh)
    assert (left.training["step"], left.finished) == (STEPS + 2, False)
    assert len(left.training["epoch"]["losses"]) == 2
    assert {path.name for path in model_of(fresh).fold(0).iterdir()} == {
        "checkpoint.pt",
        "progress.csv",
        "progress.jsonl",
        "progress.png",
    }
    run_train(fresh)
    assert_same_training(fresh, straight)
    lines = model_of(fresh).progress(0, "jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]


@pytest.mark.slow
def test_stop_during_the_last_step_is_heard(fresh, straight, monkeypatch):
    """The last epoch is not measured yet, and the fold not scored, so that the run ends quickly."""
    with monkeypatch.context() as patch:
        before_step(2 * STEPS - 1, lambda: stop(NUMBER, CONFIGURATION, [0], workspace=fresh), patch)
        with pytest.raises(Stopped):
            run_train(fresh, [0, 1])
    assert checkpoint_of(fresh).training["step"] == 2 * STEPS
    assert not checkpoint_of(fresh).finished
    assert not model_of(fresh).validation(0).exists()
    assert model_of(fresh).trained_folds() == [0]
    listener = run_train(fresh)
    assert_same_training(fresh, straight)
    assert listener.totals.keys() == {"training", "validating"}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_signal_ends_a_call_after_its_step(fresh, straight, monkeypatch, number, error):
    """A call of the function never ends the process; Ctrl-C raises what it always raises, once all is saved."""
    with monkeypatch.context() as patch:
        before_step(STEPS + 1, lambda: os.kill(os.getpid(), number), patch)
        with pytest.raises(error, match="saved to the last step"):
            run_train(fresh)
    assert checkpoint_of(fresh).training["step"] == STEPS + 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run_train(fresh)
    assert_same_training(fresh, straight)


def test_stop_before_the_first_epoch_ended(fresh, monkeypatch):
    """There are no curves yet, but there is a checkpoint."""
    with monkeypatch.context() as patch:
        before_step(0, lambda: stop(NUMBER, CONFIGURATION, workspace=fresh), patch)
        with pytest.raises(Stopped):
            run_train(fresh)
    assert checkpoint_of(fresh).training["step"] == 1
    assert model_of(fresh).progress(0, "jsonl").read_text() == ""
    run_train(fresh)
    assert checkpoint_of(fresh).finished


def test_nothing_is_asked_to_stop_if_nothing_runs(trained):
    """The error is one line; a finished fold is not being trained."""
    with pytest.raises(UsageError, match="no fold of 3d_fullres is being trained"):
        stop(NUMBER, CONFIGURATION, workspace=trained)
    assert not model_of(trained).stop_file(0).exists()


@pytest.mark.slow
def test_two_runs_never_train_the_same_fold(fresh):
    """The second run, in another process, ends with one line."""
    options = f"-d {NUMBER} -c {CONFIGURATION} -f 0 -w {fresh}".split()
    with run_alone(model_of(fresh).fold(0)):
        command = [sys.executable, "-m", "autoseg", "train", *options]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: another run is at work on fold_0 (process ")
    assert not model_of(fresh).checkpoint(0).exists()


SLOW = """
import sys, time
from autoseg.training import loop

def slow_step(state, *rest, step=loop.train_step):
    time.sleep(0.3)
    return step(state, *rest)

loop.train_step = slow_step
from autoseg.__main__ import main
sys.argv = ["autoseg", "train", "-d", "1", "-c", "3d_fullres", "-f", "0", "-w", sys.argv[1], "--device", "cpu"]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("SIGTERM", 143), ("file", 0)])
def test_program_that_is_stopped_exits_as_documented(fresh, straight, how, code):
    """It is stopped by another process, as a cluster does, and the same command goes on."""
    edit_training(fresh, steps_per_epoch=STEPS)
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(fresh)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not model_of(fresh).progress(0, "jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    if how == "SIGTERM":
        os.kill(running.pid, signal.SIGTERM)
    else:
        stop(NUMBER, CONFIGURATION, workspace=fresh)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == code, output + errors
    assert errors.splitlines()[-1].startswith("stopped by " + ("SIGTERM" if how == "SIGTERM" else "'autoseg stop'"))
    assert "the same command goes on" in errors
    assert checkpoint_of(fresh).training["step"] < 2 * STEPS
    run_train(fresh)
    assert_same_training(fresh, straight)


def test_finished_fold_is_extended(trained, monkeypatch):
    """With more epochs, the learning rate is that of the longer schedule, and the fold is scored anew."""
    (model_of(trained).validation(0) / "old").touch()
    before = reports_of(trained)
    rates = []
    original = loop.train_step

    def listen(state, *rest):
        loss = original(state, *rest)
        rates.append(state.optimizer.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(loop, "train_step", listen)
    listener = run_train(trained, extend="3")
    checkpoint = checkpoint_of(trained)
    assert checkpoint.finished
    assert checkpoint.plan.training.epochs == 2 + 3
    assert reports_of(trained)[:2] == before
    assert [epoch for epoch, *_ in reports_of(trained)] == list(range(5))
    settings = checkpoint.plan.training
    expected = [settings.learning_rate * (1 - step / (5 * STEPS)) ** settings.schedule_power for step in range(8, 20)]
    assert rates == pytest.approx(expected)
    assert listener.advanced["training"] == pytest.approx(1)
    assert not (model_of(trained).validation(0) / "old").exists()
    assert (model_of(trained).validation(0) / "summary.json").is_file()
    assert run_train(trained).totals == {}  # the longer length is that of the fold now


@pytest.mark.slow
def test_fold_is_extended_by_a_time(trained):
    """The fold is trained for that much longer."""
    used = checkpoint_of(trained).training["elapsed_seconds"]
    run_train(trained, extend="1s")
    training = checkpoint_of(trained).plan.training
    assert training.budget_seconds == pytest.approx(used + 1)
    assert checkpoint_of(trained).training["elapsed_seconds"] >= used + 1


@pytest.mark.slow
def test_extension_goes_on_after_a_stop(trained, straight, tmp_path, monkeypatch):
    """It goes on without --extend, and ends as an extension without a stop."""
    other = shutil.copytree(straight, tmp_path / "other")
    run_train(other, extend="2")
    with monkeypatch.context() as patch:
        before_step(2 * STEPS + 1, lambda: stop(NUMBER, CONFIGURATION, workspace=trained), patch)
        with pytest.raises(Stopped, match="without --extend"):
            run_train(trained, extend="2")
    assert not checkpoint_of(trained).finished
    with pytest.raises(UsageError, match=r"fold 0 of 3d_fullres is not trained to its end, .*; leave out --extend"):
        run_train(trained, extend="2")
    run_train(trained)
    assert_same_training(trained, other)


def test_fold_that_was_not_begun_is_not_extended(fresh, trained):
    """No fold is trained, not even those that could be extended."""
    with pytest.raises(UsageError, match="fold 0 of 3d_fullres is not trained to its end"):
        run_train(fresh, extend="2")
    before = reports_of(trained)
    with pytest.raises(UsageError, match="fold 1 of 3d_fullres is not trained to its end"):
        run_train(trained, [0, 1], extend="2")
    assert reports_of(trained) == before


@pytest.mark.parametrize(("budget", "epochs"), [("quick", 10), ("standard", 30)])
def test_budget_by_name(fresh, budget, epochs, monkeypatch):
    """The length is a tenth of the plan, or that of the plan; the fold remembers it."""
    edit_training(fresh, epochs=30, steps_per_epoch=1)
    monkeypatch.setattr(loop, "measure", lambda *_: (0.5, [0.5, 0.5]))
    run_train(fresh, ["all"], budget=budget)
    assert checkpoint_of(fresh, "all").plan.training.epochs == len(reports_of(fresh, "all")) == epochs
    run_train(fresh, ["all"], budget=budget)  # the same command goes on
    run_train(fresh, ["all"])


def test_trackers_follow_a_fold(fresh, monkeypatch):
    """They are opened for the fold, get its epochs, and are closed at the end."""
    told, epochs = [], []

    class Tracker:
        def log(self, report):
            epochs.append(report.epoch)

        def close(self, *, finished):
            epochs.append(finished)

    def open_tracker(fold):
        told.append(fold)
        return Tracker()

    monkeypatch.setattr(tracking, "_find_mlflow", lambda: open_tracker)
    run_train(fresh, [1], log=["mlflow"])
    [fold] = told
    assert (fold.dataset, fold.fold, fold.model, fold.epochs_done) == ("Dataset001_Tiny", 1, model_of(fresh), 0)
    assert fold.settings == checkpoint_of(fresh, 1).plan.training
    assert epochs == [0, 1, True]
    with pytest.raises(UsageError, match="there is no log 'wandb'"):
        run_train(fresh, [1], log=["wandb"])
