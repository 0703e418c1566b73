"""Writes checkpoints beside the training: the loop copies its state, and a thread writes the copy to the disk."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Condition, Thread
from typing import NamedTuple

from autoseg.errors import Stopped
from autoseg.models.checkpoint import Checkpoint
from autoseg.runtime.tensor_copies import TensorCopies
from autoseg.training.monitoring.progress import EpochReport

Write = Callable[[Checkpoint, Sequence[EpochReport]], None]
"""Writes a checkpoint, and what is to be on disk only if the checkpoint is: the log files of its epochs."""


class _Saved(NamedTuple):
    """A copy of the state that is to be written, and its memory."""

    checkpoint: Checkpoint
    reports: Sequence[EpochReport]
    memory: TensorCopies


class CheckpointWriter:
    """Writes one checkpoint at a time, in the order of the epochs, in a thread of its own.

    It holds one copy of the state on the CPU; a second one only if an epoch ends before the checkpoint of the one
    before is written. Of several that wait, the newest is written.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._changed = Condition()
        self._waiting: _Saved | None = None
        self._is_writing = False
        self._ended = False
        self._error: Exception | None = None
        self._free: list[TensorCopies] = []
        self._thread = Thread(target=self._run, daemon=True, name="checkpoint")
        self._thread.start()

    def save(self, checkpoint: Checkpoint, reports: Sequence[EpochReport]) -> Checkpoint:
        """Copies a checkpoint, which is written soon; returns the copy, which lasts until the next one but one.

        Args:
            checkpoint: The checkpoint, whose tensors may be on a device, and may change afterwards.
            reports: Reports of all epochs so far.

        Raises:
            ArtifactError: An earlier checkpoint could not be written.
        """
        self._raise_error()
        with self._changed:
            overtaken, self._waiting = self._waiting, None
            memory = overtaken.memory if overtaken else self._free.pop() if self._free else TensorCopies()
        weights, training = memory.take((checkpoint.weights, checkpoint.training))
        copied = replace(checkpoint, weights=weights, training=training)
        with self._changed:
            self._waiting = _Saved(copied, tuple(reports), memory)
            self._changed.notify_all()
        return copied

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written, or waits for that."""
        with self._changed:
            return self._is_writing or self._waiting is not None

    def wait(self) -> None:
        """Waits until all checkpoints are written.

        Raises:
            ArtifactError: One could not be written.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self.is_writing)
        self._raise_error()

    def end(self) -> None:
        """Ends the thread, once all checkpoints are written."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ended)
                saved, self._waiting = self._waiting, None
                if saved is None:
                    return
                self._is_writing = True
            try:
                self._write(saved.checkpoint, saved.reports)
            except Exception as error:  # noqa: BLE001 - raised again in the loop
                self._error = error
            with self._changed:
                self._is_writing = False
                self._free.append(saved.memory)
                self._changed.notify_all()
            del saved


@contextmanager
def open_checkpoint_writer(write: Write) -> Iterator[CheckpointWriter]:
    """Returns a context with a writer; at its end all checkpoints are written, whatever ended it.

    Raises:
        ArtifactError: A checkpoint could not be written, and the context was not left by another error than `Stopped`,
            whose message says that all is saved.
    """
    writer = CheckpointWriter(write)
    try:
        yield writer
        writer.wait()
    except Stopped:
        writer.wait()
        raise
    except BaseException:
        with suppress(Exception):
            writer.wait()
        raise
    finally:
        writer.end()
