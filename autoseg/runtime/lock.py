"""A lock that lets one run at a time work in a folder; a second run is refused in one line, or waits for its turn.

The operating system holds the lock and releases it when the process ends, also if it is killed. So a lock never needs
to be removed by hand. The file that carries the lock says which process holds it, and is removed when the run ends.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import FileIO
from pathlib import Path

from autoseg.errors import UsageError, WriteError
from autoseg.runtime.file_lock import GLANCE_SECONDS, has_locks, lock_in_time, take_lock
from autoseg.runtime.os_errors import advise_writing, reason_of
from autoseg.runtime.run_name import has_ended, is_of_this_machine, name_run

FILE_NAME = ".running"

HOLDER_BYTES = 200
"""Number of bytes of the file that are read to say who holds the lock."""

TURN_SECONDS = 0.5
"""Interval at which a run that waits for its turn tries the lock."""

CHANGE_SECONDS = 20.0
"""How long a run waits for others that change the same file. Decision: a change takes milliseconds, and a training
should not wait for a run that is halted."""

_held: ContextVar[frozenset[Path]] = ContextVar("_held", default=frozenset())

_files: dict[Path, FileIO] = {}
"""The open file of each lock that this process holds, by its path; see `release_locks`."""


@contextmanager
def run_alone(folder: Path, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
    """Keeps other runs out of a folder until the work in it has ended.

    Work that has locked a folder may lock it again. On file systems without locks, such as some network drives, the
    name of the run in the file keeps others out; where the run was killed on another machine, the file must be removed.

    Args:
        folder: The folder; made if it is missing.
        waiting: If given, the run waits until the others have ended. Told once which they are.

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
    file = _files[path] = _open_and_lock(path) if waiting is None else _wait_and_lock(path, waiting)
    token = _held.set(_held.get() | {folder})
    try:
        _write_holder(file)
        yield
    finally:
        _held.reset(token)
        if _files.get(path) is file:  # without locks, another thread may have come after this one
            del _files[path]
        _remove_and_unlock(path, file)


@contextmanager
def run_together(folder: Path) -> Iterator[None]:
    """Lets runs that share the work in a folder into it, and keeps those out that want to be alone, and vice versa.

    On Windows, and on file systems without locks, nobody is kept out.

    Args:
        folder: The folder; made if it is missing.

    Raises:
        UsageError: Another run works there alone.
        WriteError: The folder cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as name:
        ...     with run_together(Path(name)), run_together(Path(name)):
        ...         [path.name for path in Path(name).iterdir()]
        ['.running']
    """
    folder = folder.absolute()
    if folder in _held.get() or sys.platform == "win32":
        yield
        return
    path = folder / FILE_NAME
    file = _open_and_lock(path, shared=True)
    token = _held.set(_held.get() | {folder})
    try:
        _write_holder(file)
        yield
    finally:
        _held.reset(token)
        if take_lock(file):  # the last one removes the file
            _remove_and_unlock(path, file)
        file.close()


@contextmanager
def change_alone(path: Path) -> Iterator[None]:
    """Lets runs that read a file, change it and write it again do so one after the other, so that no change is lost.

    For changes of a moment, whatever else goes on in the folder; see `run_alone` for work. On file systems without
    locks, others are not kept out.

    Args:
        path: The file that is changed; it may be missing.

    Raises:
        UsageError: Another run has been changing it for twenty seconds.
        WriteError: Its folder cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as name:
        ...     path = Path(name) / "count.txt"
        ...     for _ in range(2):
        ...         with change_alone(path):
        ...             _ = path.write_text(path.read_text() + "1" if path.exists() else "1")
        ...     path.read_text(), len(list(Path(name).iterdir()))
        ('11', 1)
    """
    lock = path.absolute().with_name(f".{path.name}.changing")
    deadline = time.monotonic() + CHANGE_SECONDS
    while True:
        try:
            file = _files[lock] = _open_and_lock(lock)
            break
        except UsageError as error:
            if time.monotonic() > deadline:
                what = f"another run has been changing {path} for {CHANGE_SECONDS:g} seconds"
                raise UsageError(what, error.fix) from error
    try:
        yield
    finally:
        if _files.get(lock) is file:
            del _files[lock]
        _remove_and_unlock(lock, file)


def find_holder(folder: Path) -> str | None:
    """Returns who works in a folder, as in "process 123 on node4"; None if nobody does.

    On file systems without locks, a run that was killed seems to work there until another one has.

    Args:
        folder: The folder; it may be missing.
    """
    try:
        with (folder / FILE_NAME).open("rb", buffering=0) as file:  # it may belong to another user
            if has_locks(file) and take_lock(file, shared=True):
                return None
            return file.read(HOLDER_BYTES).decode(errors="replace") or "a process"
    except OSError:
        return None


def is_abandoned(folder: Path) -> bool:
    """Returns whether nobody works in a folder any more: its lock is gone, or a run on this machine was killed.

    A run on another machine counts as working there, since some network drives keep the locks of each machine apart.

    Args:
        folder: The folder; it may be missing.
    """
    try:
        holder = (folder / FILE_NAME).read_text(errors="replace")
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return is_of_this_machine(holder) and find_holder(folder) is None


def release_locks() -> None:
    """Removes and releases all locks of this process, which is about to end without unwinding its threads."""
    for path, file in _files.copy().items():
        _remove_and_unlock(path, file)


def _write_holder(file: FileIO) -> None:
    """Writes who holds the lock; on a full disk the lock does not say so, but holds."""
    with suppress(OSError):
        file.seek(0)
        file.truncate(0)
        file.write(name_run().encode())


def _wait_and_lock(path: Path, waiting: Callable[[str], object]) -> FileIO:
    """Opens and locks the file as soon as nobody else holds it."""
    told = False
    while True:
        try:
            return _open_and_lock(path)
        except UsageError as error:
            if not told:
                waiting(f"{error.what}; waiting until it has ended")
                told = True
            time.sleep(TURN_SECONDS)


def _open_and_lock(path: Path, *, shared: bool = False) -> FileIO:
    """Opens and locks the file; tries again if the run that held it removed it in between."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            problem = f"cannot write {path.parent}: {reason_of(error)}"
            raise WriteError(problem, advise_writing(error)) from error
        if not shared and not has_locks(file):
            try:
                _claim(path, file)
            except BaseException:
                file.close()
                raise
            return file
        if not lock_in_time(file, shared=shared):
            holder = file.read(HOLDER_BYTES).decode(errors="replace")
            file.close()
            problem = f"another run is at work on {path.parent.name}{holder and f' ({holder})'}"
            raise UsageError(problem, "wait until it has ended, or stop it")
        if _is_same_file(path, file):
            return file
        file.close()


def _claim(path: Path, file: FileIO) -> None:
    """Writes the name of this run into the file of a file system that has no locks, unless another run stands there.

    Of two runs that write at the same moment, the one stays whose name remains.

    Raises:
        UsageError: Another run stands there, and is not known to have ended.
    """
    holder = file.read(HOLDER_BYTES).decode(errors="replace")
    is_own = holder == name_run() and path not in _files  # of an earlier process with the same number
    if not holder or is_own or has_ended(holder):
        _write_holder(file)
        time.sleep(GLANCE_SECONDS)
        holder = path.read_text(errors="replace") if path.exists() else ""
        if holder == name_run():
            return
    time.sleep(GLANCE_SECONDS)
    problem = f"another run ({holder}) seems to be at work on {path.parent.name}, whose drive has no locks to tell"
    raise UsageError(problem, f"wait until it has ended; if it was killed, remove {path}")


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
