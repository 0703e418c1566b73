"""Watches for requests to stop while a run goes on, and for a run that does not follow them in time.

Python handles a signal only between two of its own instructions, so a main thread in a call of torch that takes a
minute hears of it a minute later. Where the process may be ended from another thread, as on the command line, one
thread reads the signals at once, and another one is the watchdog: if the run has not ended a few seconds after it was
asked to, the watchdog saves the state as it was before the running step, and ends the process. Elsewhere, such as in a
notebook, the run ends when its step has.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from autoseg.errors import Stopped
from autoseg.runtime.lock import FILE_NAME as LOCK_NAME
from autoseg.runtime.process_end import ProcessEnd, call_briefly, end_process_with, find_process_end
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.stopping import BY_INTERRUPT, BY_SIGTERM, NO_REASON, REASONS, StopRequest, listening

PATIENCE_SECONDS = 4.0
"""How long a run that was asked to stop may take to do so by itself. Decision: longer than most steps, which are lost
if they take longer; and short enough that the state is saved within ten seconds."""

PATIENCE_OF_OTHERS_SECONDS = 4.0
"""How much longer the watchdogs of other ranks wait than that of the main rank, which fails if they end before it has
saved the state."""

POLL_SECONDS = 0.2
"""Interval at which the watchdog looks at the request."""

REPEAT_SECONDS = 1.0
"""Time within which a second signal counts as the first one if several processes train: torchrun forwards the signals
that a terminal or a cluster has sent to all of them."""

SIGNALS: dict[int, tuple[Any, int]] = {
    signal.SIGTERM: (signal.SIG_DFL, BY_SIGTERM),
    signal.SIGINT: (signal.default_int_handler, BY_INTERRUPT),
}
"""The signals that ask a run to stop, each with what Python does about it by default, and the reason."""


@contextmanager
def watch_for_stop(file: Path, ranks: Ranks = ALONE, reporter: Reporter = SILENT) -> Iterator[StopRequest]:
    """Watches for the file, for SIGTERM and for Ctrl-C while a run goes on.

    A file that is older than the lock of the folder was meant for an earlier run, and is removed; so is the one that
    ended this run. If several ranks train, the main one watches for the file. For signals see `handled_signals`; where
    the process may be ended from another thread, a second signal does that, without saving.

    Args:
        file: Path of the file that asks the run to stop.
        ranks: The processes of the run.
        reporter: Told that Ctrl-C was heard, if the run does not end at once.
    """
    if ranks.is_main and not _is_meant_for_this_run(file):
        file.unlink(missing_ok=True)
    request = StopRequest(file if ranks.is_main else None, ranks)
    if ranks.is_main:
        request.at_end.append(partial(file.unlink, missing_ok=True))
    process_end = find_process_end()
    try:
        if process_end is None:
            with handled_signals(request.note):
                yield request
        else:
            with (
                _watched(request, process_end, reporter),
                listening(request.note),
                _signals_read(request, process_end),
            ):
                yield request
    finally:
        if ranks.is_main:
            file.unlink(missing_ok=True)


def _is_meant_for_this_run(file: Path) -> bool:
    """Returns whether a request is younger than the lock of the folder, so that it came since this run holds that."""
    try:
        return file.stat().st_mtime_ns >= (file.parent / LOCK_NAME).stat().st_mtime_ns
    except OSError:
        return False


@contextmanager
def handled_signals(note: Callable[[int], object]) -> Iterator[None]:
    """Handles the first of the `SIGNALS` that arrives, and requests of this process; see `ask_this_process`.

    A second signal does what it does by default. A signal is left alone if the program handles it already, and in
    other threads than the main one, which receive no signals in Python.

    Args:
        note: Called with the reason to stop.
    """
    numbers = _unhandled_signals()

    def handle(number: int, _: FrameType | None) -> None:
        _restore_signals(numbers)
        note(SIGNALS[number][1])

    for number in numbers:
        signal.signal(number, handle)
    try:
        with listening(note):
            yield
    finally:
        _restore_signals(numbers)


def _unhandled_signals() -> list[int]:
    """Returns those of the `SIGNALS` that this thread may handle, and that the program does not handle itself."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number, (usual, _) in SIGNALS.items() if signal.getsignal(number) is usual]


def _restore_signals(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.signal(number, SIGNALS[number][0])


@contextmanager
def _signals_read(request: StopRequest, process_end: ProcessEnd) -> Iterator[None]:
    """Has signals read by a thread of its own, which hears of them whatever the main thread does."""
    numbers = _unhandled_signals()
    if not numbers:
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    arguments = (reader, frozenset(numbers), request, process_end)
    threading.Thread(target=_note_signals, args=arguments, daemon=True, name="signals").start()
    try:
        for number in numbers:
            signal.signal(number, _leave_to_thread)
        yield
    finally:
        _restore_signals(numbers)
        signal.set_wakeup_fd(before)
        writer.close()


def _leave_to_thread(_number: int, _frame: FrameType | None) -> None:
    """Does nothing: a signal is passed on to the thread that reads it only if it has a handler."""


def _note_signals(
    reader: socket.socket, handled: frozenset[int], request: StopRequest, process_end: ProcessEnd
) -> None:
    """Notes the first signal that arrives in the request; ends the process at the second one."""
    first_at: float | None = None
    with reader:
        while numbers := reader.recv(64):
            for number in handled.intersection(numbers):
                reason, now = SIGNALS[number][1], time.monotonic()
                if first_at is None:
                    first_at = now
                    request.note(reason)
                elif request.ranks.alone or now - first_at > REPEAT_SECONDS:
                    end_process_with(process_end, Stopped(*REASONS[reason], saved=False), *request.at_end)


@contextmanager
def _watched(request: StopRequest, process_end: ProcessEnd, reporter: Reporter) -> Iterator[None]:
    """Starts the watchdog, and ends it; if it is about to end the process, waits for that."""
    ended = threading.Event()
    arguments = (request, process_end, ended, reporter)
    threading.Thread(target=_watch, args=arguments, daemon=True, name="watchdog").start()
    try:
        yield
    finally:
        with request.guarded():
            ended.set()


def _watch(request: StopRequest, process_end: ProcessEnd, ended: threading.Event, reporter: Reporter) -> None:
    """Ends the process if the run does not end by itself in time after it was asked to stop."""
    patience = PATIENCE_SECONDS + (0.0 if request.ranks.is_main else PATIENCE_OF_OTHERS_SECONDS)
    asked_at: float | None = None
    while not ended.wait(POLL_SECONDS):
        reason, now = request.find_reason(), time.monotonic()
        if reason == NO_REASON:
            continue
        if asked_at is None:
            asked_at = now
            if reason == BY_INTERRUPT:
                call_briefly(partial(reporter.say, HEARD))
        if now - max(asked_at, request.guarded_until) > patience:
            request.try_guarded(partial(_save_and_end, request, Stopped(*REASONS[reason]), process_end, ended))


HEARD = "stopping, which takes up to ten seconds; a second Ctrl-C ends at once, and loses the epoch that is running"
"""The line that answers Ctrl-C."""


def _save_and_end(request: StopRequest, reason: BaseException, process_end: ProcessEnd, ended: threading.Event) -> None:
    """Saves the state of the run if there is one, and ends the process; if saving fails, with that error."""
    if ended.is_set():
        return
    try:
        if request.save_state is not None:
            request.save_state()
    except Exception as error:  # noqa: BLE001 - reported in place of the reason
        reason = error
    ended.set()
    end_process_with(process_end, reason, *request.at_end)
