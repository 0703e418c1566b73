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
from autoseg.runtime.process_end import allow_process_end, end_process_with
from autoseg.runtime.reporting import SILENT, Task
from autoseg.training.stopping import StopRequest

INTERRUPT = "interrupt"
"""Request that a worker receives: to end at once. To end after its present step, it receives the reason, a number."""


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
    messages = _RemoteReporter(connection)

    def end(reason: BaseException) -> None:
        messages.send_last(_describe_end(reason, rank))
        sys.stderr.flush()
        os._exit(1)  # torch would wait for ranks that have ended

    try:
        with allow_process_end(end):
            result = work(reporter=messages if rank == 0 else SILENT)
    except BaseException as error:  # noqa: BLE001 - raised again where the message is received
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is quick, and must not be interrupted
        end(error)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    messages.send_last(Message(kind="done", values=(result,)))


def _describe_end(reason: BaseException, rank: int) -> Message:
    """Returns the last message of a rank that ends without a result."""
    if isinstance(reason, Stopped) and rank > 0:  # rank 0 may still be saving
        return Message(kind="done", values=(None,))
    if isinstance(reason, Stopped | AutosegError):
        return Message(kind="failed", values=(reason,))
    return Message(kind="crashed", values=("".join(traceback.format_exception(reason)),))


def _interrupt_if_requested(_signal: int, _frame: FrameType | None) -> None:
    """Handles SIGINT, which a terminal sends to all of its processes; only an INTERRUPT request ends the worker."""
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt


def _process_requests(connection: "Connection[Any, Any]") -> None:
    """Carries out the requests that arrive; ends this process if the one that started it has ended."""
    with suppress(EOFError, OSError):
        while True:
            request = connection.recv()
            if request != INTERRUPT:
                StopRequest.forwarded = request
            else:
                _INTERRUPTED.set()
                signal.raise_signal(signal.SIGINT)
    end_process_with(lambda _: os._exit(1), EOFError())


class _RemoteReporter:
    """A reporter that sends everything to the process that started this one."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._sending = threading.Lock()  # the watchdog of a run sends as well
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

    def log(self, line: str) -> None:
        """Sends a line for log files."""
        self._send("log", line)

    def _send(self, kind: str, *values: Any) -> None:
        with self._sending:
            self._connection.send(Message(kind=kind, values=values))

    def send_last(self, message: Message) -> None:
        """Sends the last message, if the process that started this one still listens."""
        with suppress(OSError), self._sending:
            self._connection.send(message)


@dataclass(frozen=True, slots=True)
class _RemoteTask:
    send: Callable[[float], None]

    def advance(self, units: float = 1) -> None:
        """Sends the progress of the task."""
        self.send(units)
