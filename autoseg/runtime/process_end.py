"""The end of this process from another thread, while its main thread is busy and cannot end it.

Only a program that belongs to this package may be ended in this way: the command line, and the worker processes that it
starts. They say so with `allow_process_end`. A program that imports the package, such as a notebook, never does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Thread

from autoseg.runtime.lock import release_locks

CLEANING_SECONDS = 1.0
"""How long each step of cleaning may take. Decision: a disk that does not answer must not keep the process alive."""

ProcessEnd = Callable[[BaseException], None]
"""Reports the reason for which the process ends, and ends it without returning."""

_process_end: ContextVar[ProcessEnd | None] = ContextVar("_process_end", default=None)


@contextmanager
def allow_process_end(process_end: ProcessEnd) -> Iterator[None]:
    """Allows work in this thread to end the process, inside the context.

    Args:
        process_end: Called after locks and half-written files were removed, from any thread.
    """
    token = _process_end.set(process_end)
    try:
        yield
    finally:
        _process_end.reset(token)


def find_process_end() -> ProcessEnd | None:
    """Returns what ends the process, if the work in this thread may do so; else None."""
    return _process_end.get()


def end_process_with(process_end: ProcessEnd, reason: BaseException, *steps: Callable[[], object]) -> None:
    """Ends the process without unwinding its threads; does not return.

    Removes what they would have removed: half-written files, and locks.

    Args:
        process_end: From `find_process_end`.
        reason: The reason for which the process ends.
        steps: Further steps of cleaning, called first. Their errors are passed over.
    """
    from autoseg.runtime.artifact import remove_unfinished  # noqa: PLC0415 - slows the start of each command

    for step in (*steps, remove_unfinished, release_locks):
        call_briefly(step)
    process_end(reason)


def call_briefly(step: Callable[[], object]) -> None:
    """Calls a function and waits for it, but no longer than `CLEANING_SECONDS`; passes over its errors."""

    def call() -> None:
        with suppress(Exception):
            step()

    thread = Thread(target=call, daemon=True, name="cleaning")
    thread.start()
    thread.join(CLEANING_SECONDS)
