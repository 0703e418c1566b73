"""The threads that prepare the batches of a training, several ahead of the loop that takes them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Generic, TypeVar

import torch

from autoseg.errors import AutosegError
from autoseg.runtime.machine import count_cores
from autoseg.runtime.thread_pool import ThreadPool, one_torch_thread_each, wait_for

Prepared = TypeVar("Prepared")

STALL_SECONDS = 300
"""Seconds after which a batch that does not come means that the disk is gone.

Decision: a hundred times what a slow network drive takes.
"""

OnWait = Callable[[int, str], None]
"""Called with the number of seconds that the loop has waited for a batch, and a text that says what threads work on."""

OnWaited = Callable[[float], None]
"""Called with the seconds that the loop has waited for a batch that has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is to happen while a loop waits for a batch, and after it.

    Attributes:
        describe_work: Says what the threads are working on.
        on_wait: Called for every second of waiting for a batch; may raise an error to wait no longer.
        on_waited: Called with the seconds of waiting for each batch.
    """

    describe_work: Callable[[], str]
    on_wait: OnWait | None = None
    on_waited: OnWaited | None = None

    def look(self, seconds: float) -> None:
        """Called for every second of waiting.

        Raises:
            AutosegError: The batch did not come within `STALL_SECONDS`.
        """
        if seconds >= STALL_SECONDS:
            problem = f"no training patch could be read for {seconds:.0f} s: {self.describe_work()}"
            raise AutosegError(problem, "check the disk that holds the preprocessed cases")
        if self.on_wait is not None:
            self.on_wait(int(seconds), self.describe_work())

    def time(self, wait: Callable[[], Prepared]) -> Prepared:
        """Returns what a function returns that waits for a batch, or prepares it."""
        began = monotonic()
        result = wait()
        if self.on_waited is not None:
            self.on_waited(monotonic() - began)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queue(Generic[Prepared]):
    """Batches that threads prepare, in order, and the next one or two of which `start` was called with.

    Attributes:
        start: See `prepare_ahead`.
        waiting: See `prepare_ahead`.
        coming: Batches that threads prepare.
        started: Batches that were prepared and started.
    """

    start: Callable[[Prepared], object]
    waiting: Waiting
    coming: "deque[Future[Prepared]]" = field(default_factory=deque)
    started: deque[Prepared] = field(default_factory=deque)

    def take(self) -> Prepared:
        """Returns the next batch, and starts the one after it if it is ready."""
        if not self.started:
            self._start(self.waiting.time(lambda: wait_for(self.coming.popleft(), self.waiting.look)))
        if self.coming and self.coming[0].done() and self.coming[0].exception() is None:
            self._start(self.coming.popleft().result())
        return self.started.popleft()

    def _start(self, prepared: Prepared) -> None:
        self.start(prepared)
        self.started.append(prepared)


def prepare_ahead(
    prepare: Callable[[int], Prepared],
    numbers: Iterable[int],
    *,
    workers: int,
    start: Callable[[Prepared], object],
    waiting: Waiting,
) -> Generator[Prepared, None, None]:
    """Calls `prepare` with each number in threads, and gives the results in order.

    Args:
        prepare: Prepares the batch of a number; called from several threads.
        numbers: Numbers of the batches.
        workers: Number of threads; twice as many batches are prepared ahead. With 0, each batch is prepared when it is
            asked for.
        start: Called with each result before it is given, in the thread that asks for results. If the next result is
            ready when a result is given, `start` is called with it then.
        waiting: What is to happen while a result is waited for.

    Raises:
        AutosegError: A batch did not come within `STALL_SECONDS`.
    """
    if workers == 0:
        for number in numbers:
            result = waiting.time(partial(prepare, number))
            start(result)
            yield result
        return
    queue = _Queue(start=start, waiting=waiting)
    with one_torch_thread_each() as at_start, ThreadPool(workers, name="batch", at_start=at_start) as pool:
        for number in numbers:
            queue.coming.append(pool.submit(prepare, number))
            if len(queue.coming) > 2 * workers:
                yield queue.take()
        while queue.coming or queue.started:
            yield queue.take()


def count_loader_threads(device: torch.device) -> int:
    """Returns the number of threads that prepare batches.

    It is one beside a CPU that trains, else two less than there are cores, between one and eight.
    """
    return 1 if device.type == "cpu" else max(1, min(8, count_cores() - 2))
