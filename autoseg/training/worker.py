"""Runs work in one of several processes that `launch` started.

The worker sends messages to the process that started it: what it reports, and how it ends. From that process it
receives the request to stop.
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
"""Requests that a worker receives: to end after its present step, or at once."""


@dataclass(slots=True, kw_only=True)
class Message:
    """A message of a worker.

    Attributes:
        kind: What happened: "say", "begin", "advance" or "end" of a task, or as the last message "done", "failed" or
            "crashed".
        values: The values that belong to it.
    """

    kind: str
    values: tuple[Any, ...]


_INTERRUPTED = threading.Event()


def run_as_rank(work: Callable[..., Any], rank: int, count: int, port: int, connection: "Connection[Any, Any]") -> None:
    """Runs the work in this process, as one of its ranks.

    Signals are ignored here: the process that started this one handles them, and sends the requests that follow.

    Args:
        work: Called with a `reporter`.
        rank: Rank of this process.
        count: Number of processes.
        port: Port of the store at which the ranks meet, on this machine.
        connection: Connection to the process that started this one.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _interrupt_if_requested)
    threading.Thread(target=_process_requests, args=(connection,), daemon=True).start()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch then connects to the port, and opens none itself
    }
    last = _run(work, rank, _RemoteReporter(connection) if rank == 0 else SILENT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is quick, and must not be interrupted
    with suppress(OSError):
        connection.send(last)
    if last.kind != "done":
        sys.stderr.flush()
        os._exit(1)  # torch would wait for ranks that have ended


def _run(work: Callable[..., Any], rank: int, reporter: Reporter) -> Message:
    """Runs the work, and returns the last message: its result or its error."""
    try:
        return Message(kind="done", values=(work(reporter=reporter),))
    except Stopped as stopped:  # rank 0 may still be saving
        return Message(kind="failed", values=(stopped,)) if rank == 0 else Message(kind="done", values=(None,))
    except AutosegError as error:
        return Message(kind="failed", values=(error,))
    except BaseException:  # noqa: BLE001 - raised again where the result is received
        return Message(kind="crashed", values=(traceback.format_exc(),))


def _interrupt_if_requested(_signal: int, _frame: FrameType | None) -> None:
    """Handles SIGINT, which a terminal sends to all of its processes; only an INTERRUPT request ends the worker."""
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt


def _process_requests(connection: "Connection[Any, Any]") -> None:
    """Carries out the requests that arrive; ends this process if the one that started it has ended."""
    with suppress(EOFError, OSError):
        while True:
            if connection.recv() == STOP:
                TERMINATED.set()
            else:
                _INTERRUPTED.set()
                signal.raise_signal(signal.SIGINT)
    os._exit(1)


class _RemoteReporter:
    """A reporter that sends everything to the process that started this one."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._numbers = count_up()

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:
        """Opens a task in that process."""
        number = next(self._numbers)
        self._send("begin", number, title, total)
        yield _RemoteTask(lambda units: self._send("advance", number, units))
        self._send("end", number)

    def say(self, line: str) -> None:
        """Sends a line."""
        self._send("say", line)

    def _send(self, kind: str, *values: Any) -> None:
        self._connection.send(Message(kind=kind, values=values))


@dataclass(frozen=True, slots=True)
class _RemoteTask:
    send: Callable[[float], None]

    def advance(self, units: float = 1) -> None:
        """Sends the progress of the task."""
        self.send(units)
