"""Folds that several processes train together end with the same weights, one clear end, and nothing left behind."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from phantoms import Listener
from rank_work import start_and_be_terminated, train_and_fail, train_in_float32
from tiny_workspaces import NUMBER, edit_training, files_in, folders_of, plan_tiny, write_splits, write_volumes

from autoseg.errors import AutosegError, Stopped, UsageError
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.training import stop, train
from autoseg.runtime import device
from autoseg.runtime.lock import FILE_NAME as LOCK_NAME
from autoseg.runtime.reporting import SILENT
from autoseg.training.duration import LengthRequest
from autoseg.training.initial_weights import InitialWeightsRequest
from autoseg.training.jobs import TrainingRequest
from autoseg.training.launch import check_gpus, launch

CONFIGURATION = "3d_fullres"
STEPS = 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace that was planned and preprocessed but not trained."""
    root = tmp_path_factory.mktemp("prepared")
    write_volumes(root)
    plan_tiny(root, epochs=2, steps_per_epoch=STEPS, average_decay=0.5)
    return root


@pytest.fixture
def fresh(prepared, tmp_path):
    """Returns a copy of the untrained workspace."""
    return shutil.copytree(prepared, tmp_path / "fresh")


@pytest.fixture
def in_float32(monkeypatch):
    """Makes networks calculate in float32 on any hardware."""
    monkeypatch.setattr(device, "precision", lambda _: torch.float32)


def model_of(root):
    """Returns the model folder of a workspace."""
    return folders_of(root).model(CONFIGURATION)


def checkpoint_of(root):
    """Loads the checkpoint of fold 0."""
    return load_checkpoint(model_of(root).checkpoint(0))


def assert_nearly_the_same(one, other):
    """Asserts that weights, their average, and reports are equal up to rounding."""
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], atol=5e-4, rtol=0)
        torch.testing.assert_close(one.training["weights"][name], other.training["weights"][name], atol=5e-4, rtol=0)
    for mine, theirs in zip(one.training["reports"], other.training["reports"], strict=True):
        for name in ("training_loss", "validation_loss", "learning_rate"):
            assert mine[name] == pytest.approx(theirs[name], abs=1e-3), name
        assert mine["pseudo_dice"] == pytest.approx(theirs["pseudo_dice"], abs=0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("in_float32")
def test_two_processes_train_what_one_trains(fresh, prepared, tmp_path):
    """They report what one process reports."""
    alone = shutil.copytree(prepared, tmp_path / "alone")
    expected = train_in_float32(alone, "cpu", reporter=Listener())
    listener = Listener()
    summary = launch(partial(train_in_float32, fresh, "cpu"), 2, "cpu", listener)
    assert_nearly_the_same(checkpoint_of(fresh), checkpoint_of(alone))
    assert summary.foreground_mean.dice == pytest.approx(expected.foreground_mean.dice, abs=0.02)
    assert listener.totals == {"training": 1.0, "validating": 1}
    assert listener.advanced["training"] == pytest.approx(1)
    assert [line.split(":")[0] for line in listener.lines if line.startswith("epoch")] == ["epoch 0", "epoch 1"]
    assert sum("mean Dice of whole held-out cases" in line for line in listener.lines) == 1
    assert len(model_of(fresh).progress(0, "jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("in_float32")
def test_fold_that_one_process_began_goes_on_with_two(prepared, tmp_path):
    """It ends as one process would have ended it."""
    alone, resumed = (shutil.copytree(prepared, tmp_path / name) for name in ("alone", "resumed"))
    train_in_float32(alone, "cpu", reporter=Listener())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.training.loop.train_step", stopping_at(STEPS + 1))
        with pytest.raises(KeyboardInterrupt):
            train_in_float32(resumed, "cpu", reporter=Listener())
    launch(partial(train_in_float32, resumed, "cpu"), 2, "cpu", Listener())
    assert_nearly_the_same(checkpoint_of(resumed), checkpoint_of(alone))


@pytest.mark.slow
@pytest.mark.usefixtures("in_float32")
def test_two_processes_share_the_held_out_cases(fresh, tmp_path):
    """Each segments its share; masks, scores and pictures are those of one process, in the same order."""
    write_splits(fresh, [(["case_1"], ["case_2", "case_3"])])
    edit_training(fresh, epochs=1, steps_per_epoch=1)
    alone = shutil.copytree(fresh, tmp_path / "alone")
    expected = train_in_float32(alone, "cpu", reporter=Listener())
    listener = Listener()
    summary = launch(partial(train_in_float32, fresh, "cpu"), 2, "cpu", listener)
    assert listener.totals["validating"] == listener.advanced["validating"] == 1
    assert [case.name for case in summary.cases] == [case.name for case in expected.cases] == ["case_2", "case_3"]
    assert files_in(model_of(fresh).path) == files_in(model_of(alone).path)
    for one, other in zip(summary.cases, expected.cases, strict=True):
        assert one.mean_dice == pytest.approx(other.mean_dice, abs=0.02, nan_ok=True)
    again = launch(partial(train_in_float32, fresh, "cpu"), 2, "cpu", listener)  # judged already
    assert again.model_dump_json() == summary.model_dump_json()  # what was not measured is no number, so not equal


def stopping_at(number):
    """Returns a training step that is interrupted at a number."""
    from autoseg.training import loop

    original = loop.train_step

    def step_or_stop(state, *rest):
        if state.step == number:
            raise KeyboardInterrupt
        return original(state, *rest)

    return step_or_stop


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        pytest.param(
            "killed",
            AutosegError,
            r"process 1 of 2 ended without a word \(killed by signal 9\); see whether",
            marks=pytest.mark.slow,
        ),
        pytest.param("error", AutosegError, "the GPU melted; cool it", marks=pytest.mark.slow),
        pytest.param(
            "bug", RuntimeError, "process 1 of 2 failed:\n(.*\n)+ZeroDivisionError: a bug", marks=pytest.mark.slow
        ),
    ],
)
def test_process_that_fails_ends_all_with_the_first_cause(fresh, how, kind, text):
    """All end within seconds, and the lock is removed."""
    edit_training(fresh, steps_per_epoch=1000)
    began = time.monotonic()
    with pytest.raises(kind, match=text):
        launch(partial(train_and_fail, fresh, how, "cpu"), 2, "cpu", Listener())
    assert time.monotonic() - began < 60
    assert not (model_of(fresh).fold(0) / LOCK_NAME).exists()


def start_program(root):
    """Starts a training in two processes by its command; returns it once the first epoch has ended."""
    options = f"-d {NUMBER} -c {CONFIGURATION} -f 0 -w {root} --device cpu --gpus 2".split()
    running = subprocess.Popen(
        [sys.executable, "-m", "autoseg", "train", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline, record = time.monotonic() + 60, model_of(root).progress(0, "jsonl")
    before = record.read_text() if record.is_file() else ""
    while time.monotonic() < deadline and not (record.is_file() and record.read_text() != before):
        time.sleep(0.02)
    return running


def assert_all_ended(running):
    """Asserts that no process of the group is left after a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    pytest.fail("processes are left")


@pytest.mark.slow
def test_program_is_stopped_like_any_other(fresh):
    """It is stopped by SIGTERM, by 'autoseg stop', and by Ctrl-C, and goes on in between."""
    edit_training(fresh, epochs=100_000, steps_per_epoch=2)
    running = start_program(fresh)
    os.killpg(running.pid, signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 143, errors
    assert "stopped by SIGTERM, and saved to the last step" in errors
    assert_all_ended(running)
    step = checkpoint_of(fresh).training["step"]
    assert step > 0

    running = start_program(fresh)
    stop(NUMBER, CONFIGURATION, workspace=fresh)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert "stopped by 'autoseg stop'" in errors
    assert checkpoint_of(fresh).training["step"] > step

    running = start_program(fresh)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "stopped by Ctrl-C, and saved to the last step" in errors
    assert_all_ended(running)
    assert not (model_of(fresh).fold(0) / LOCK_NAME).exists()


@pytest.mark.slow
def test_signal_that_ends_a_process_that_still_starts_is_a_stop():
    """It is no failure: a scheduler or a terminal sends SIGTERM to all processes of a run."""
    with pytest.raises(Stopped, match="stopped by SIGTERM") as caught:
        launch(start_and_be_terminated, 2, "cpu", Listener())
    assert caught.value.exit_code == 143


IN_A_LONG_CALL = """
import signal, sys
from functools import partial
from phantoms import Listener
from rank_work import train_and_take_a_minute
from autoseg.errors import Stopped
from autoseg.training.launch import launch

signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background may be told to ignore it
try:
    launch(partial(train_and_take_a_minute, sys.argv[1], 2, "cpu"), 2, "cpu", Listener())
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), ("file", 0)])
def test_step_of_a_minute_is_given_up_by_all(fresh, how, code):
    """The main process saves the steps before, and all end within seconds."""
    command = [sys.executable, "-c", IN_A_LONG_CALL, str(fresh)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 400
    while not (fresh / "busy").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (fresh / "busy").exists()
    began = time.monotonic()
    if how == "file":
        stop(NUMBER, CONFIGURATION, workspace=fresh)
    else:
        os.killpg(running.pid, how)
    _, errors = running.communicate(timeout=100)
    assert time.monotonic() - began < 30
    assert running.returncode == code, errors
    assert_all_ended(running)
    assert checkpoint_of(fresh).training["step"] == 2
    assert files_in(model_of(fresh).fold(0)) == {"checkpoint.pt", "progress.jsonl"}
    train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=fresh)
    assert checkpoint_of(fresh).finished
    assert not (model_of(fresh).fold(0) / LOCK_NAME).exists()


@pytest.mark.slow
def test_program_that_is_killed_leaves_no_process(fresh):
    """The workers end by themselves when the process that started them is gone."""
    edit_training(fresh, epochs=100_000, steps_per_epoch=2)
    running = start_program(fresh)
    running.kill()
    running.communicate(timeout=60)
    assert_all_ended(running)


@pytest.mark.slow
def test_torchrun_trains_in_processes_of_its_own(fresh):
    """They find their ranks by its variables; only the main rank reports."""
    options = f"-d {NUMBER} -c {CONFIGURATION} -f 0 -w {fresh} --device cpu".split()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "autoseg", "train", *options], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model, curves, scores and pictures:") == 1
    assert done.stdout.count("epoch 1: ") == 1
    assert checkpoint_of(fresh).finished


@pytest.mark.slow
def test_batch_that_is_too_small_is_refused(fresh):
    """The error is one line, before anything is written."""
    with pytest.raises(UsageError, match="a batch of 2 patches cannot be shared among 3 processes; take at most 2"):
        train(NUMBER, CONFIGURATION, [0], device="cpu", gpus=3, workspace=fresh)
    assert not model_of(fresh).path.exists()


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    """Processes that would start further processes are refused too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        UsageError, match="this machine has no CUDA GPU, let alone 2; leave out --gpus, or add --device"
    ):
        check_gpus(2, "auto")
    check_gpus(2, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="this machine has 1 CUDA GPUs, not 2"):
        check_gpus(2, "auto")
    with pytest.raises(UsageError, match="at least one GPU, not 0"):
        check_gpus(0, "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="torchrun has started the processes already; leave out --gpus"):
        check_gpus(2, "cpu")


def test_a_single_process_is_this_one():
    """No process is started for it."""
    assert launch(lambda reporter: (os.getpid(), reporter), 1, "cpu", SILENT) == (os.getpid(), SILENT)


def test_every_option_reaches_the_processes(monkeypatch, fresh):
    """All options of `train` are in one value that can be sent to other processes."""
    given = []
    monkeypatch.setattr("autoseg.training.launch.launch", lambda work, *rest: given.append((work, rest)))
    options = {"budget": "2h", "restart": True, "augment_on": "cpu", "init": "model", "freeze": "encoder"}
    train(1, "2d", [0, "all"], gpus=2, device="cpu", log=["mlflow"], workspace=fresh, **options)
    [(work, (count, name, _))] = given
    [request] = pickle.loads(pickle.dumps(work)).args  # noqa: S301 - just made
    assert (count, name) == (2, "cpu")
    assert request == TrainingRequest(
        number=1,
        folders=folders_of(fresh),
        configuration="2d",
        folds=(0, "all"),
        length=LengthRequest(budget="2h", restart=True),
        initial_weights=InitialWeightsRequest(path=Path("model"), freeze="encoder"),
        device="cpu",
        augment_on="cpu",
        trackers=("mlflow",),
    )
