"""Calculations in a process that was forked from one that had calculated, as `multiprocessing.Pool` and gunicorn do.

A fork copies the memory of a process and none of its threads. A convolution in the copy then waits for ever for the
threads of OpenMP that it remembers. So the copy calculates with one thread. What it cannot do at all, such as using the
GPU of its parent, is an error.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from autoseg.errors import UsageError

FIX = "load the model in each process after the fork, or start processes by 'spawn'"


class _Process:
    """What is known about this process.

    Attributes:
        is_watched: Whether forks of it are noticed.
        is_fork: Whether it was forked while it was watched.
        was_busy: Whether a calculation was under way in its parent, whose locks nobody releases here.
        calculations: A token of each calculation that is under way. Threads change it without a lock, which a fork
            might copy while it is held.
    """

    is_watched = False
    is_fork = False
    was_busy = False
    calculations: ClassVar[set[object]] = set()


def watch_forks() -> None:
    """Makes processes that are forked from this one calculate with one thread; may be called again.

    Called wherever networks are loaded. Programs that only import the package are left as they are.
    """
    if not _Process.is_watched and hasattr(os, "register_at_fork"):  # Windows has no forks
        _Process.is_watched = True
        os.register_at_fork(after_in_child=_begin_fork)


@contextmanager
def calculation(device: str) -> Iterator[None]:
    """Wraps a calculation, which other threads of this process may share.

    Args:
        device: Type of its device, such as "cuda".

    Raises:
        UsageError: This process was forked, and its parent has the device or was in the midst of a calculation.

    Example:
        >>> watch_forks()
        >>> with calculation("cpu"):
        ...     sum(range(3))
        3
    """
    if _Process.is_fork:
        _check_fork(device)
        _use_one_thread()
    token = object()
    _Process.calculations.add(token)
    try:
        yield
    finally:
        _Process.calculations.discard(token)


def _check_fork(device: str) -> None:
    if device != "cpu":
        raise UsageError(f"this process was forked from one that uses {device}, which no other process can", FIX)
    if _Process.was_busy:
        raise UsageError("this process was forked while a thread of its parent was predicting", FIX)


def _begin_fork() -> None:
    _Process.is_fork = True
    _Process.was_busy = bool(_Process.calculations)
    _Process.calculations.clear()
    _use_one_thread()


def _use_one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
