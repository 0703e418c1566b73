"""A lock of the operating system on an open file, taken without waiting for long."""

import sys
import time
from io import FileIO

LOCKED_BYTE = 2**30
"""Byte of the file that Windows locks, which no other process may read. Decision: one far behind the text."""

GLANCES, GLANCE_SECONDS = 4, 0.05
"""How often, and after how long, a taken lock is tried again: who looks whether it is held, by `find_holder`, holds it
himself for a moment."""


def lock_in_time(file: FileIO, *, shared: bool) -> bool:
    """Takes the lock; returns False if another process holds it for longer than a glance takes."""
    for _ in range(GLANCES):
        if take_lock(file, shared=shared):
            return True
        time.sleep(GLANCE_SECONDS)
    return False


def has_locks(file: FileIO) -> bool:
    """Returns whether the file system has locks."""
    if sys.platform == "win32":
        return True
    import fcntl  # noqa: PLC0415 - does not exist on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def take_lock(file: FileIO, *, shared: bool = False) -> bool:
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
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system has no locks
    return True
