"""What one of several processes does that were started for the same work; see `processes`.

It tells the process that started it what it says and how it ends, in words, and hears from it whether to stop.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count as count_up
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from autoseg.errors import AutosegError, Stopped
from autoseg.runtime.reporting import SILENT, Reporter, Task
from autoseg.training.stopping import TERMINATED

STOP, INTERRUPT = "stop", "interrupt"
"""What a process hears: to end after its present step, or at once."""


@dataclass(slots=True, kw_only=True)
class Word:
    """Something that a process says: the name of what is to be done with it, and the values for that."""

    what: str
    values: tuple[Any, ...]


_INTERRUPTED = threading.Event()


def work_as_rank(work: Callable[..., Any], rank: int, count: int, port: int, line: "Connection[Any, Any]") -> None:
    """What a process does; signals are for the one that started it, which passes on what they mean."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _interrupt_if_told)
    threading.Thread(target=_obey, args=(line,), daemon=True).start()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # so torch meets at the port, and opens none itself
    }
    word = _do(work, rank, _Messenger(line) if rank == 0 else SILENT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is quick, and not to be disturbed
    with suppress(OSError):
        line.send(word)
    if word.what != "done":
        sys.stderr.flush()
        os._exit(1)  # torch would wait for partners that are gone


def _do(work: Callable[..., Any], rank: int, reporter: Reporter) -> Word:
    """Does the work, and puts what came of it into a last word."""
    try:
        return Word(what="done", values=(work(reporter=reporter),))
    except Stopped as stopped:  # the first one is still saving
        return Word(what="failed", values=(stopped,)) if rank == 0 else Word(what="done", values=(None,))
    except AutosegError as error:
        return Word(what="failed", values=(error,))
    except BaseException:  # noqa: BLE001 - raised again where the result is waited for
        return Word(what="crashed", values=(traceback.format_exc(),))


def _interrupt_if_told(_signal: int, _frame: FrameType | None) -> None:
    """Ctrl-C goes to all processes of a terminal; only what the first of them makes of it counts."""
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt


def _obey(line: "Connection[Any, Any]") -> None:
    """Does what it is told to; if whoever tells has gone, there is nobody to work for."""
    with suppress(EOFError, OSError):
        while True:
            if line.recv() == STOP:
                TERMINATED.set()
            else:
                _INTERRUPTED.set()
                signal.raise_signal(signal.SIGINT)
    os._exit(1)


class _Messenger:
    """A reporter that tells the process that started this one."""

    def __init__(self, line: "Connection[Any, Any]") -> None:
        self._line = line
        self._numbers = count_up()

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:
        """Opens a task there."""
        number = next(self._numbers)
        self._tell("begin", number, title, total)
        yield _RemoteTask(lambda units: self._tell("advance", number, units))
        self._tell("end", number)

    def say(self, line: str) -> None:
        """Says it there."""
        self._tell("say", line)

    def _tell(self, what: str, *values: Any) -> None:
        self._line.send(Word(what=what, values=values))


@dataclass(frozen=True, slots=True)
class _RemoteTask:
    tell: Callable[[float], None]

    def advance(self, units: float = 1) -> None:
        """Moves on by some units, there."""
        self.tell(units)
