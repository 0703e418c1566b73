"""Ends a step of `run` early: by SIGTERM, or by a file that `stop_run` writes, as Ctrl-C would end it.

Every step writes its files whole or not at all, and goes on where it was, so Python's KeyboardInterrupt ends it safely
at any moment. A training has its own, gentler way; see `training.watchdog`.
"""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from autoseg.errors import Stopped

BY_FILE, BY_SIGTERM = ("'autoseg stop'", 0), ("SIGTERM", 128 + 15)
"""Each way to ask a run to stop, with its exit code; as in `training.stopping`, which needs torch."""

LOOK_SECONDS = 1.0
"""Interval at which the file is looked for; as in `training.stopping`."""


@contextmanager
def interruptible(file: Path, *, ask_to_end: Callable[[], bool] | None = None) -> Iterator[None]:
    """Ends the work inside when the file appears, or at SIGTERM.

    In other threads than the main one, which receive no signals in Python, and in programs that handle SIGTERM
    themselves, the file is looked at once, at the start.

    Args:
        file: The file that asks the run to end.
        ask_to_end: Asks work that handles SIGTERM itself to end with `Stopped`, and returns whether it listens by now;
            called from another thread until it does. None for work that is interrupted.

    Raises:
        Stopped: The run was asked to stop.
    """
    if file.exists():
        raise Stopped(*BY_FILE)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    watch = _Watch(file, ask_to_end)
    watch.begin()
    try:
        try:
            yield
        finally:
            watch.is_over = True
    except (KeyboardInterrupt, Stopped):
        if not watch.reasons:
            raise
    finally:
        watch.is_over = True
        watch.end()
    if watch.reasons:
        raise watch.reasons[0]


class _Watch:
    """Waits for the file and for SIGTERM while work goes on, and ends the work by KeyboardInterrupt, or asks it to end.

    A signal that arrives when the work has just ended is noted as well, but breaks into nothing any more.

    Attributes:
        reasons: Why the work was asked to end.
        is_over: Whether the work has ended.
    """

    def __init__(self, file: Path, ask_to_end: Callable[[], bool] | None) -> None:
        self._file, self._ask_to_end = file, ask_to_end
        self.reasons: list[Stopped] = []
        self.is_over = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="stop file")

    def begin(self) -> None:
        """Begins to wait."""
        if self._ask_to_end is None:
            signal.signal(signal.SIGTERM, self._terminate)
        self._thread.start()

    def end(self) -> None:
        """Ends waiting; SIGTERM is handled until nobody can send it any more, since it would end the program."""
        self._ended.set()
        self._thread.join()
        if self._ask_to_end is None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        self.reasons.append(Stopped(*BY_SIGTERM))
        if not self.is_over:
            raise KeyboardInterrupt

    def _look(self) -> None:
        """Ends the work once the file is there; then ends."""
        while not self._ended.wait(LOOK_SECONDS):
            if self._file.exists() and not self.is_over and self._end_work():
                return

    def _end_work(self) -> bool:
        """Asks the work to end, or sends SIGTERM to the main thread, where it is handled; returns whether it did."""
        if self._ask_to_end is not None:
            if not self._ask_to_end():
                return False
            self.reasons.append(Stopped(*BY_FILE))
            return True
        self.reasons.append(Stopped(*BY_FILE))
        if sys.platform == "win32":
            _thread.interrupt_main(signal.SIGTERM)
        else:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        return True
