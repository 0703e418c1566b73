"""A log that says on which items a run was working when it was killed.

A program that is killed, for example for want of memory, cannot say what it was working on. So each item is written to
a file when work on it begins, and again when it ends. The system keeps what was written, and the next run reads it.
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
    """An open crash log.

    Attributes:
        killed_at: Names of the items on which the last run was working when it was killed.
        file: Descriptor of the open file; None if it could not be opened, for example because the disk is full.
    """

    killed_at: frozenset[str]
    file: int | None

    @contextmanager
    def track(self, name: str) -> Iterator[None]:
        """Writes to the log that work on an item begins, and that it ends, also with an error.

        May be called from any thread.
        """
        self._add(BEGUN, name)
        try:
            yield
        finally:
            self._add(ENDED, name)

    def _add(self, sign: str, name: str) -> None:
        if self.file is not None:
            with suppress(OSError):
                line = f"{sign}{json.dumps(name)}\n".encode()
                os.write(self.file, line)  # in one call, so that lines of several threads do not mix


@contextmanager
def open_crash_log(path: Path) -> Iterator[CrashLog]:
    """Opens the log of a run, and removes it at the end. Only one run may use a log at a time.

    After an error the log stays if the run did not reach an item on which an earlier run was killed.

    Args:
        path: Path of the log; missing parent folders are made.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "running.txt"
        ...     with open_crash_log(path) as log, log.track("liver_017"):
        ...         print(path.read_text().strip())
        ...     path.exists()
        +"liver_017"
        False
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
    """Returns the names of the items that were begun and not ended; a line that was cut off is left out."""
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
