"""A lock that lets one run at a time work in a folder; a second run is refused in one line.

The operating system holds the lock and releases it when the process ends, also if it is killed. So a lock never needs
to be removed by hand. The file that carries the lock says which process holds it, and is removed when the run ends.
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

LOCKED_BYTE = 2**30
"""Byte of the file that Windows locks, which no other process may read. Decision: one far behind the text."""

HOLDER_BYTES = 200
"""Number of bytes of the file that are read to say who holds the lock."""

_held: ContextVar[frozenset[Path]] = ContextVar("_held", default=frozenset())

_files: dict[Path, FileIO] = {}
"""The open file of each lock that this process holds, by its path; see `release_locks`."""


@contextmanager
def run_alone(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder until the work in it has ended.

    Work that has locked a folder may lock it again. On file systems without locks, such as some network drives, other
    runs are not kept out.

    Args:
        folder: The folder; made if it is missing.

    Raises:
        UsageError: Another run, or another thread of this run, is working there.
        WriteError: The folder cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as name:
        ...     with run_alone(Path(name)):
        ...         [path.name for path in Path(name).iterdir()]
        ...     list(Path(name).iterdir())
        ['.running']
        []
    """
    folder = folder.absolute()
    if folder in _held.get():
        yield
        return
    path = folder / FILE_NAME
    file = _files[path] = _open_and_lock(path)
    token = _held.set(_held.get() | {folder})
    try:
        with suppress(OSError):  # on a full disk the lock does not say who holds it, but holds
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node() or 'this machine'}".encode())
        yield
    finally:
        _held.reset(token)
        if _files.get(path) is file:  # without locks, another thread may have come after this one
            del _files[path]
        _remove_and_unlock(path, file)


def release_locks() -> None:
    """Removes and releases all locks of this process, which is about to end without unwinding its threads."""
    for path, file in _files.copy().items():
        _remove_and_unlock(path, file)


def _open_and_lock(path: Path) -> FileIO:
    """Opens and locks the file; tries again if the run that held it removed it in between."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            problem = f"cannot write {path.parent}: {error.strerror}"
            raise WriteError(problem, "free some space or choose a folder that you may write to") from error
        if not _lock(file):
            holder = file.read(HOLDER_BYTES).decode(errors="replace")
            file.close()
            problem = f"another run is at work on {path.parent.name}{holder and f' ({holder})'}"
            raise UsageError(problem, "wait until it has ended, or stop it")
        if _is_same_file(path, file):
            return file
        file.close()


def _lock(file: FileIO) -> bool:
    """Takes the lock without waiting; returns False if another process holds it."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - exists on Windows only

        file.seek(LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            file.seek(0)
        return True
    import fcntl  # noqa: PLC0415 - does not exist on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system has no locks
    return True


def _is_same_file(path: Path, file: FileIO) -> bool:
    """Returns whether the path still names the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove_and_unlock(path: Path, file: FileIO) -> None:
    """Removes the file before the lock is released, where open files can be removed; on Windows, afterwards."""
    with suppress(OSError):
        path.unlink()
        file.close()
        return
    file.close()
    with suppress(OSError):
        path.unlink()
