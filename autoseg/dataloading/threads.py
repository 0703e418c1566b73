"""The threads that prepare the batches of a training, several ahead of the loop that takes them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

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


def prepare_ahead(
    prepare: Callable[[int], Prepared],
    numbers: Iterable[int],
    *,
    workers: int,
    describe_work: Callable[[], str],
    on_wait: OnWait | None = None,
) -> Generator[Prepared, None, None]:
    """Calls `prepare` with each number in threads, and gives the results in order.

    Args:
        prepare: Prepares the batch of a number; called from several threads.
        numbers: Numbers of the batches.
        workers: Number of threads; twice as many batches are prepared ahead.
        describe_work: Says what the threads are working on.
        on_wait: Called for every second of waiting for a batch; may raise an error to wait no longer.

    Raises:
        AutosegError: A batch did not come within `STALL_SECONDS`.
    """

    def on_look(seconds: float) -> None:
        if seconds >= STALL_SECONDS:
            problem = f"no training patch could be read for {seconds:.0f} s: {describe_work()}"
            raise AutosegError(problem, "check the disk that holds the preprocessed cases")
        if on_wait is not None:
            on_wait(int(seconds), describe_work())

    waiting: deque[Future[Prepared]] = deque()
    with one_torch_thread_each() as at_start, ThreadPool(workers, name="batch", at_start=at_start) as pool:
        for number in numbers:
            waiting.append(pool.submit(prepare, number))
            if len(waiting) > 2 * workers:
                yield wait_for(waiting.popleft(), on_look)
        while waiting:
            yield wait_for(waiting.popleft(), on_look)


def count_loader_threads(device: torch.device) -> int:
    """Returns the number of threads that prepare batches.

    It is one beside a CPU that trains, else two less than there are cores, between one and eight.
    """
    return 1 if device.type == "cpu" else max(1, min(8, count_cores() - 2))
