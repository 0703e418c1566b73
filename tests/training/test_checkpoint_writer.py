"""Checkpoints are written beside the training: none is lost, none overtakes another, and errors are heard."""

import threading
from dataclasses import replace

import pytest
import torch
from small_models import small_checkpoint

from autoseg.errors import AutosegError, Stopped, WriteError
from autoseg.training.checkpoint_writer import CheckpointWriter, open_checkpoint_writer
from autoseg.training.stopping import BY_SIGTERM, REASONS

SECONDS = 60
"""After which a test fails instead of waiting for ever."""


class Disk:
    """Writes the numbers of checkpoints, one when it is told to."""

    def __init__(self):
        self.written, self.begun, self.go_on, self.error = [], threading.Event(), threading.Semaphore(0), None

    def write(self, checkpoint, reports):
        self.begun.set()
        assert self.go_on.acquire(timeout=SECONDS)
        if self.error is not None:
            raise self.error
        self.written.append((checkpoint.weights["number"].item(), list(reports)))


@pytest.fixture
def disk():
    """Returns a disk on which nothing is written until it is told to."""
    return Disk()


def numbered(number):
    """Returns a checkpoint whose weights are a number."""
    weights = {"number": torch.tensor([float(number)])}
    return replace(small_checkpoint(), weights=weights, finished=False, training={"weights": weights, "step": number})


def save_and_raise(disk, error):
    """Saves a checkpoint, and leaves the context of the writer by an error, or without one."""
    with open_checkpoint_writer(disk.write) as writer:
        writer.save(numbered(1), [])
        if error is not None:
            raise error


def test_the_loop_goes_on_while_the_disk_writes(disk):
    """What is written is the state as it was, though the weights have changed since."""
    with open_checkpoint_writer(disk.write) as writer:
        checkpoint, reports = numbered(1), [1]
        copied = writer.save(checkpoint, reports)
        checkpoint.weights["number"] += 5
        reports.append(2)
        assert disk.written == []
        disk.go_on.release()
    assert disk.written == [(1.0, [1])]
    assert copied.training == {"weights": copied.weights, "step": 1}


def test_the_newest_of_those_that_wait_is_written(disk):
    """One after the other, with memory for two copies."""
    writer = CheckpointWriter(disk.write)
    copies = []
    for number in range(1, 5):
        copies.append(writer.save(numbered(number), []).weights["number"].data_ptr())
        assert disk.begun.wait(SECONDS)
    for _ in range(2):
        disk.go_on.release()
    writer.wait()
    for number in range(5, 7):
        copies.append(writer.save(numbered(number), []).weights["number"].data_ptr())
        disk.go_on.release()
        writer.wait()
    writer.end()
    assert [number for number, _ in disk.written] == [1, 4, 5, 6]
    assert len(set(copies)) == 2


def test_a_full_disk_is_said_after_the_next_epoch(disk):
    """Once, in the thread of the loop."""
    disk.error = WriteError("cannot write checkpoint.pt: no space left on device", "free some space")
    writer = CheckpointWriter(disk.write)
    writer.save(numbered(1), [])
    disk.go_on.release()
    with writer._changed:
        assert writer._changed.wait_for(lambda: writer._error is not None and not writer.is_writing, SECONDS)
    with pytest.raises(WriteError, match="no space left"):
        writer.save(numbered(2), [])
    disk.error = None
    writer.save(numbered(3), [])
    disk.go_on.release()
    writer.wait()
    writer.end()
    assert [number for number, _ in disk.written] == [3]


@pytest.mark.parametrize("error", [None, Stopped(*REASONS[BY_SIGTERM])])
def test_a_full_disk_is_said_at_the_end(disk, error):
    """Also by a run that was stopped, which would say that all is saved."""
    disk.error = WriteError("cannot write checkpoint.pt: no space left on device", "free some space")
    disk.go_on.release()
    with pytest.raises(WriteError, match="no space left"):
        save_and_raise(disk, error)


@pytest.mark.parametrize("error", [AutosegError("the loss is no number", "look"), KeyboardInterrupt()])
@pytest.mark.parametrize("is_full", [True, False])
def test_an_error_of_the_training_waits_for_the_disk(disk, error, is_full):
    """It is the one that is raised; the checkpoint of the epoch before it is written."""
    disk.error = WriteError("no space", "free some") if is_full else None
    disk.go_on.release()
    with pytest.raises(type(error)):
        save_and_raise(disk, error)
    assert [number for number, _ in disk.written] == ([] if is_full else [1])
    assert not any(thread.name == "checkpoint" for thread in threading.enumerate())
