"""One run at a time in a folder: the second is told so in one line.

The operating system holds the lock and lets go of it when the process ends, in whatever way. So a lock never needs to
be removed by hand. The file that carries it says who holds it, and goes with the run.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import FileIO
from pathlib import Path

from autoseg.errors import UsageError, WriteError

FILE_NAME = ".running"

# Windows locks bytes, and nobody else may read those. Decision: one far behind the text.
LOCKED_BYTE = 2**30

HOLDER_BYTES = 200

_held: ContextVar[frozenset[Path]] = ContextVar("_held", default=frozenset())


@contextmanager
def run_alone(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder until the work in it has ended.

    Work that holds a folder may ask for it again, and gets it. Where a file system knows no locks, as some network
    drives, nobody is kept out.

    Args:
        folder: Made if it is missing.

    Raises:
        UsageError: Another run, or another thread of this one, is at work there.
        WriteError: The folder cannot be written.
    """
    folder = folder.absolute()
    if folder in _held.get():
        yield
        return
    path = folder / FILE_NAME
    file = _open_and_lock(path)
    token = _held.set(_held.get() | {folder})
    try:
        with suppress(OSError):  # on a full disk the lock has no name, but is one
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node() or 'this machine'}".encode())
        yield
    finally:
        _held.reset(token)
        _remove_and_unlock(path, file)


def _open_and_lock(path: Path) -> FileIO:
    """Opens the file and locks it; again if the run before removed it in between."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            what = f"cannot write {path.parent}: {error.strerror}"
            raise WriteError(what, "free some space or choose a folder that you may write to") from error
        if not _lock(file):
            holder = file.read(HOLDER_BYTES).decode(errors="replace")
            file.close()
            what = f"another run is at work on {path.parent.name}{holder and f' ({holder})'}"
            raise UsageError(what, "wait until it has ended, or stop it")
        if _is_the_file(path, file):
            return file
        file.close()


def _lock(file: FileIO) -> bool:
    """Takes the lock if nobody holds it, without waiting."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - not on other systems

        file.seek(LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            file.seek(0)
        return True
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system knows no locks
    return True


def _is_the_file(path: Path, file: FileIO) -> bool:
    """Whether the open file still stands at its place."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove_and_unlock(path: Path, file: FileIO) -> None:
    """Removes the file before the lock is gone, where open files can be removed; on Windows, after it."""
    with suppress(OSError):
        path.unlink()
        file.close()
        return
    file.close()
    with suppress(OSError):
        path.unlink()
