"""At which items a run was killed: a file to which each is added when work on it begins, and again when it ends.

A program that is killed, for example for want of memory, cannot say at what it was. But the system keeps what was
written to a file, and the next run reads it there.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BEGUN, ENDED = "+", "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLog:
    """An open log.

    Attributes:
        killed_at: Names of the items at which the last run was killed.
        file: Number of the open file; None if there is none, because the disk is full.
    """

    killed_at: frozenset[str]
    file: int | None

    @contextmanager
    def at_work(self, name: str) -> Iterator[None]:
        """Notes that work on an item begins, and that it ends, in whatever way. May be called from any thread."""
        self._add(BEGUN, name)
        try:
            yield
        finally:
            self._add(ENDED, name)

    def _add(self, sign: str, name: str) -> None:
        if self.file is not None:
            with suppress(OSError):
                os.write(self.file, f"{sign}{json.dumps(name)}\n".encode())  # in one go, so that lines stay whole


@contextmanager
def open_crash_log(path: Path) -> Iterator[CrashLog]:
    """Opens the log of a run, the only one at that time, and removes it at the end.

    After an error it stays if the run did not come to an item at which an earlier one was killed.
    """
    killed_at = _read(path)
    file = None
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    done = False
    try:
        yield CrashLog(killed_at=killed_at, file=file)
        done = True
    finally:
        if file is not None:
            os.close(file)
        if done or not _read(path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _read(path: Path) -> frozenset[str]:
    """Names that were begun and not ended; a line that was cut off is left out."""
    open_names: set[str] = set()
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                name = json.loads(line[1:])
                if line[:1] == BEGUN.encode():
                    open_names.add(name)
                else:
                    open_names.discard(name)
    return frozenset(open_names)
