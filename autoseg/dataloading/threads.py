"""The threads that prepare batches."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

import torch

from autoseg.dataloading.batch import Prepared
from autoseg.runtime.machine import count_cores

GRACE_SECONDS = 10


class _Crew:
    """Threads that make batches in the order in which these are asked for.

    Python does not wait for such threads when the program ends, so a disk that went away does not keep it from ending.
    """

    def __init__(self, make: Callable[[int], Prepared], workers: int) -> None:
        self._make = make
        self._jobs: SimpleQueue[tuple[int, Future[Prepared]] | None] = SimpleQueue()
        self._usual_threads = torch.get_num_threads()
        self._threads = [Thread(target=self._run, daemon=True, name=f"batch_{n}") for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, number: int) -> "Future[Prepared]":
        """Has a batch made."""
        batch: Future[Prepared] = Future()
        self._jobs.put((number, batch))
        return batch

    def dismiss(self) -> None:
        """Lets nothing more begin, and waits a while for what is in work."""
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = monotonic() + GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        torch.set_num_threads(self._usual_threads)  # torch took the 1 of these threads for that of all threads to come

    def _run(self) -> None:
        torch.set_num_threads(1)
        while (job := self._jobs.get()) is not None:
            number, batch = job
            try:
                batch.set_result(self._make(number))
            except BaseException as error:  # noqa: BLE001 - raised again where the batch is waited for
                batch.set_exception(error)


def count_loader_threads(device: torch.device) -> int:
    """Threads that make batches: one beside a CPU that trains, else the cores but two, at most eight."""
    return 1 if device.type == "cpu" else max(1, min(8, count_cores() - 2))
