"""Starts the same work in several processes of this machine, one for each GPU, that train together; see `ranks`.

This process does none of the work. It shows what rank 0 reports, and forwards what the user asks for: to stop after the
present step, or to end at once. If a worker process dies, in whatever way, all are ended within seconds, and the first
cause is raised.
"""

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch.multiprocessing import get_context

from autoseg.errors import AutosegError, Stopped, UsageError
from autoseg.runtime.device import resolve_device
from autoseg.runtime.reporting import Reporter, Task, log_line
from autoseg.training.ranks import check_device, is_distributed
from autoseg.training.stopping import REASONS
from autoseg.training.watchdog import handled_signals
from autoseg.training.worker import INTERRUPT, Message, run_as_rank

CAUSE_SECONDS = 2.0
"""How long further messages are awaited after a failure: a process that lost another one fails too, perhaps earlier."""

GRACE_SECONDS = 5.0
"""How long interrupted processes may take to leave nothing half-written and to release their locks."""

T = TypeVar("T")


def check_gpus(count: int, device: str) -> None:
    """Makes sure that so many processes can train on this machine.

    Args:
        count: Number of processes, one for each GPU.
        device: The device, as the user named it; on "cpu" they share the cores, which is of use for tests alone.

    Raises:
        UsageError: There are fewer GPUs, or torchrun has started the processes already.
    """
    if count < 1:
        raise UsageError(f"training takes at least one GPU, not {count}", "leave out --gpus")
    if is_distributed():
        raise UsageError("torchrun has started the processes already", "leave out --gpus")
    resolved = resolve_device(device)
    if resolved.type == "cpu" and device == "auto":
        what = f"this machine has no CUDA GPU, let alone {count}"
        raise UsageError(what, f"leave out --gpus, or add --device cpu for {count} processes that share the CPU")
    check_device(resolved, count)


def launch(work: Callable[..., T], count: int, device: str, reporter: Reporter) -> T:
    """Runs the same work in several processes.

    As always with Python's `multiprocessing`, a script that calls this must do so below `if __name__ == "__main__"`.

    Args:
        work: Called in each process, with a `reporter`; it finds its rank by `find_ranks`. It can be pickled, and so
            can its result.
        count: Number of processes; a single one is this process.
        device: The device of the processes; see `check_gpus`.
        reporter: Told what rank 0 reports.

    Returns:
        The result of rank 0.

    Raises:
        UsageError: See `check_gpus`.
        Stopped, AutosegError: As the work raised it.
        AutosegError: A process was killed.
        RuntimeError: A bug, with its traceback in the process.
    """
    check_gpus(count, device)
    if count == 1:
        return work(reporter=reporter)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    workers: list[_Worker] = []
    receiver = _Receiver(reporter, workers)
    try:
        for rank in range(count):
            workers.append(_start_worker(work, rank, count, store.port))
        with handled_signals(receiver.forward_stop):
            return cast(T, receiver.receive_all())
    except Stopped:  # rank 0 has saved all, and the others save nothing
        for worker in workers:
            worker.process.kill()
        raise
    finally:
        _end_workers(workers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Worker:
    """One of the processes, and the connection to it."""

    rank: int
    process: BaseProcess
    connection: "Connection[Any, Any]"

    def send(self, request: str | int) -> None:
        """Sends INTERRUPT, or the reason to stop; nothing happens if the process has ended."""
        with suppress(OSError):
            self.connection.send(request)


def _start_worker(work: Callable[..., Any], rank: int, count: int, port: int) -> _Worker:
    context = get_context("spawn")
    connection, child_connection = context.Pipe()
    process: SpawnProcess = context.Process(target=run_as_rank, args=(work, rank, count, port, child_connection))
    process.start()
    child_connection.close()
    return _Worker(rank=rank, process=process, connection=connection)


def _send_to_all(workers: Sequence[_Worker], request: str | int) -> None:
    for worker in workers:
        worker.send(request)


def _end_workers(workers: Sequence[_Worker]) -> None:
    """Interrupts the workers that still run, and kills those that have not ended after a while."""
    _send_to_all(workers, INTERRUPT)
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


@dataclass(slots=True)
class _Receiver:
    """Receives the messages of the workers until each has sent its last one, or until one has failed.

    Attributes:
        reporter: Told what rank 0 reports.
        workers: The processes.
        tasks: Number of each open task of rank 0, to the task of the reporter and what closes it.
        causes: Errors of the workers, each with its priority: the lowest number is raised.
        requests: Reasons to stop that were forwarded to the workers.
        result: The result of rank 0.
    """

    reporter: Reporter
    workers: Sequence[_Worker]
    tasks: dict[int, tuple[ExitStack, Task]] = field(default_factory=dict)
    causes: list[tuple[int, BaseException]] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    result: Any = None

    def forward_stop(self, reason: int) -> None:
        """Forwards a reason to stop to all workers."""
        self.requests.append(reason)
        _send_to_all(self.workers, reason)

    def receive_all(self) -> Any:
        """Returns the result of rank 0, or raises the first cause of a failure."""
        running = {worker.connection: worker for worker in self.workers}
        deadline: float | None = None
        while running and (deadline is None or time.monotonic() < deadline):
            for connection in wait(list(running), timeout=None if deadline is None else CAUSE_SECONDS / 10):
                if self._receive(running[connection]):  # type: ignore[index]
                    del running[connection]  # type: ignore[arg-type]
            if self.causes and deadline is None:
                is_stopped = isinstance(self.causes[0][1], Stopped)
                deadline = time.monotonic() + (0.0 if is_stopped else CAUSE_SECONDS)
        if not self.causes:
            return self.result
        cause = min(self.causes, key=lambda cause: cause[0])[1]
        for context, _ in reversed(self.tasks.values()):
            context.__exit__(type(cause), cause, None)
        raise cause

    def _receive(self, worker: _Worker) -> bool:
        """Receives one message of a worker; returns whether it was the last one."""
        try:
            message: Message = worker.connection.recv()
        except (EOFError, OSError):
            self.causes.append((1, _describe_death(worker, len(self.workers), self.requests)))
            return True
        return bool(getattr(self, f"_on_{message.kind}")(worker, *message.values))

    def _on_say(self, _: _Worker, line: str) -> None:
        self.reporter.say(line)

    def _on_log(self, _: _Worker, line: str) -> None:
        log_line(self.reporter, line)

    def _on_begin(self, _: _Worker, number: int, title: str, total: float) -> None:
        context = ExitStack()
        self.tasks[number] = context, context.enter_context(self.reporter.task(title, total))

    def _on_advance(self, _: _Worker, number: int, units: float) -> None:
        self.tasks[number][1].advance(units)

    def _on_end(self, _: _Worker, number: int) -> None:
        self.tasks.pop(number)[0].close()

    def _on_done(self, worker: _Worker, result: Any) -> bool:
        if worker.rank == 0:
            self.result = result
        return True

    def _on_failed(self, _: _Worker, error: BaseException) -> bool:
        self.causes.append((0, error))
        return True

    def _on_crashed(self, worker: _Worker, text: str) -> bool:
        self.causes.append((2, RuntimeError(f"process {worker.rank} of {len(self.workers)} failed:\n{text}")))
        return True


def _describe_death(worker: _Worker, count: int, requests: Sequence[int]) -> BaseException:
    """Returns why a worker ended without a last message: a failure, unless it was asked to end.

    A signal to all processes of a run ends those at once that were still starting.
    """
    worker.process.join(GRACE_SECONDS)
    code = worker.process.exitcode or 0
    if requests and -code in (signal.SIGTERM, signal.SIGINT):
        return Stopped(*REASONS[requests[0]])
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return AutosegError(
        f"process {worker.rank} of {count} ended without a word ({how})",
        "see whether the machine ran out of memory, and run the command again: it goes on after the last epoch",
    )
