"""The checkpoints of a fold are written while it is trained, and a run that ends at any moment goes on bit for bit."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes

from autoseg.errors import AutosegError, Stopped, WriteError
from autoseg.models import checkpoint as checkpoints
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.training import stop, train
from autoseg.runtime import artifact
from autoseg.training import loop, stopping

CONFIGURATION = "3d_fullres"
STEPS, EPOCHS = 2, 3
SECONDS = 60
"""After which a test fails instead of waiting for ever."""

knows_open_files = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files")

WRITES_FOR_EVER = """
import sys, time
from pathlib import Path
import torch
from autoseg.models import checkpoint

def save(content, path, save=torch.save):
    if len(content["training"]["reports"]) > 1:
        Path(path).write_bytes(b"half")
        Path(sys.argv[1], "busy").touch()
        time.sleep(600)
    save(content, path)

checkpoint.torch.save = save
from autoseg.pipeline.training import train
train(1, "3d_fullres", [0], device="cpu", workspace=sys.argv[1])
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace that was planned and preprocessed but not trained."""
    root = tmp_path_factory.mktemp("prepared")
    write_volumes(root)
    plan_tiny(root, epochs=EPOCHS, steps_per_epoch=STEPS, average_decay=0.9)
    return root


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory):
    """Returns the checkpoint of a fold that was trained without a stop."""
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("straight") / "workspace")
    run_train(root)
    return checkpoint_of(root)


@pytest.fixture
def fresh(prepared, tmp_path):
    """Returns a copy of the untrained workspace."""
    return shutil.copytree(prepared, tmp_path / "fresh")


def run_train(root):
    """Trains fold 0, and returns the lines that were reported."""
    listener = Listener()
    train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=root, reporter=listener)
    return listener.lines


def checkpoint_of(root):
    """Loads the checkpoint of fold 0."""
    return load_checkpoint(folders_of(root).model(CONFIGURATION).checkpoint(0))


def epochs_of(root):
    """Returns the epochs in progress.jsonl."""
    lines = folders_of(root).model(CONFIGURATION).progress(0, "jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines]


def is_of_checkpoint(descriptor):
    """Returns whether an open file is a checkpoint that is being written."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith("checkpoint.pt")


def assert_same_training(root, straight):
    """Asserts that weights, momentum and losses are those of the training without a stop, bit for bit."""
    checkpoint = checkpoint_of(root)
    for name, value in straight.weights.items():
        assert torch.equal(value, checkpoint.weights[name]), name
    for number, kept in straight.training["optimizer"]["state"].items():
        assert torch.equal(
            kept["momentum_buffer"], checkpoint.training["optimizer"]["state"][number]["momentum_buffer"]
        )
    losses = [[report["training_loss"] for report in run.training["reports"]] for run in (straight, checkpoint)]
    assert losses[0] == losses[1]


@pytest.mark.slow
@knows_open_files
def test_training_goes_on_while_the_disk_is_slow(fresh, straight, monkeypatch):
    """The first checkpoint is not on the disk before the last step is reached, and all is there at the end."""
    at_last_step, fsync, step = threading.Event(), os.fsync, loop.train_step

    def wait_and_sync(descriptor):
        if is_of_checkpoint(descriptor):
            reached.append(at_last_step.wait(SECONDS))
        fsync(descriptor)

    def step_and_note(state, *rest):
        if state.step == EPOCHS * STEPS - 1:
            at_last_step.set()
        return step(state, *rest)

    reached = []
    monkeypatch.setattr(artifact.os, "fsync", wait_and_sync)
    monkeypatch.setattr(loop, "train_step", step_and_note)
    run_train(fresh)
    assert reached[0]
    assert_same_training(fresh, straight)
    assert epochs_of(fresh) == [0, 1, 2]


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_writes_goes_on(fresh, straight):
    """The checkpoint of the epoch before is whole, and no log file is ahead of it."""
    running = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(fresh)])
    deadline = time.monotonic() + SECONDS
    while not (fresh / "busy").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.kill()
    running.wait()
    assert (fresh / "busy").exists()
    assert checkpoint_of(fresh).training["step"] == STEPS
    assert epochs_of(fresh) == [0]
    run_train(fresh)
    assert_same_training(fresh, straight)
    assert epochs_of(fresh) == [0, 1, 2]


@pytest.mark.slow
def test_a_full_disk_ends_the_training_with_one_line(fresh, straight, monkeypatch):
    """The checkpoint of before stays, and the run goes on when there is space."""
    save = torch.save

    def save_until_full(content, path):
        if len(content["training"]["reports"]) > 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.torch, "save", save_until_full)
        with pytest.raises(
            WriteError, match=r"cannot write .*checkpoint\.pt: No space left on device; free some space"
        ):
            run_train(fresh)
    assert checkpoint_of(fresh).training["step"] == STEPS
    assert epochs_of(fresh) == [0]
    run_train(fresh)
    assert_same_training(fresh, straight)


@pytest.mark.slow
@knows_open_files
def test_an_error_of_the_training_leaves_the_epoch_before(fresh, straight, monkeypatch):
    """Its checkpoint is on the disk when the error is raised, also if the disk is slow."""
    fsync, step = os.fsync, loop.train_step

    def sync_late(descriptor):
        if is_of_checkpoint(descriptor):
            assert failed.wait(SECONDS)
        fsync(descriptor)

    def fail(state, *rest):
        if state.step == STEPS:
            failed.set()
            raise AutosegError("the disk is gone", "look for it")
        return step(state, *rest)

    failed = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", fail)
        patch.setattr(artifact.os, "fsync", sync_late)
        with pytest.raises(AutosegError, match="the disk is gone"):
            run_train(fresh)
    assert checkpoint_of(fresh).training["step"] == STEPS
    run_train(fresh)
    assert_same_training(fresh, straight)


@pytest.mark.slow
@knows_open_files
def test_a_run_that_is_stopped_waits_for_the_disk(fresh, straight, monkeypatch):
    """The checkpoint of the last step follows that of the epoch before, which is still being written."""
    fsync, step = os.fsync, loop.train_step

    def sync_late(descriptor):
        if is_of_checkpoint(descriptor):
            assert asked.wait(SECONDS)
        fsync(descriptor)

    def step_and_ask(state, *rest):
        if state.step == STEPS:
            stop(NUMBER, CONFIGURATION, [0], workspace=fresh)
            asked.set()
        return step(state, *rest)

    asked = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_and_ask)
        patch.setattr(stopping, "LOOK_SECONDS", 0.0)
        patch.setattr(artifact.os, "fsync", sync_late)
        with pytest.raises(Stopped):
            run_train(fresh)
    assert checkpoint_of(fresh).training["step"] == STEPS + 1
    assert epochs_of(fresh) == [0]
    run_train(fresh)
    assert_same_training(fresh, straight)
