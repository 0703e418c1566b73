"""A pool of threads: what `thread_map`, `prefetch` and the threads that make training batches have in common.

The pool differs in three ways from `concurrent.futures.ThreadPoolExecutor`. Python does not wait for its threads when
the program ends, so a thread that is stuck on a disk that went away does not keep the program from ending. A job that
is stuck can be given up, and another thread takes the place of its thread. And `shutdown` waits for a limited time.
"""

import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from time import monotonic
from typing import Any, ParamSpec, Self, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

GRACE_SECONDS = 10
"""Time that running jobs have to end when their pool shuts down, for example after Ctrl-C."""

LOOK_SECONDS = 1.0
"""Interval at which a thread that waits looks at the clock. On Windows, Ctrl-C takes effect at the next look."""


def _do_nothing(*_: object) -> None:
    pass


class ThreadPool:
    """Threads that run jobs in the order in which they were submitted; at the end of a `with` block they shut down.

    Results and errors of jobs travel to the caller in futures.

    Example:
        >>> with ThreadPool(2, name="example") as pool:
        ...     pool.submit(divmod, 7, 2).result()
        (3, 1)
    """

    def __init__(
        self,
        threads: int,
        *,
        name: str,
        at_start: Callable[[], object] = _do_nothing,
        at_end: Callable[[], object] = _do_nothing,
    ) -> None:
        """Starts the threads.

        Args:
            threads: Number of threads.
            name: Name of the threads, which debuggers show.
            at_start: Called in each thread before its first job.
            at_end: Called in each thread after its last job.
        """
        self._name, self._at_start, self._at_end = name, at_start, at_end
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._running: dict[Future[Any], tuple[Thread, float]] = {}  # the thread of each job, and when the job began
        self._threads: set[Thread] = set()
        for _ in range(threads):
            self._start_thread()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def submit(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **options: Arguments.kwargs
    ) -> "Future[Result]":
        """Has `work` called with these arguments by the next thread that is free."""
        future: Future[Result] = Future()
        self._jobs.put((future, partial(work, *args, **options)))
        return future

    def running_seconds(self) -> "dict[Future[Any], float]":
        """Returns the jobs that are running, and for how many seconds."""
        now = monotonic()
        return {future: now - began for future, (_, began) in self._running.copy().items()}

    def give_up(self, future: "Future[Any]", error: BaseException) -> None:
        """Ends a running job with an error, and starts another thread in place of the one that is stuck in it.

        A job that ends at the same moment keeps its result.
        """
        job = self._running.pop(future, None)
        if job is not None:
            self._threads.remove(job[0])
            self._start_thread()
            future.set_exception(error)

    def shutdown(self) -> None:
        """Cancels the jobs that have not begun, and waits up to `GRACE_SECONDS` for those that are running."""
        with suppress(Empty):
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = monotonic() + GRACE_SECONDS
        for thread in self._threads:
            while thread.is_alive() and (left := deadline - monotonic()) > 0:
                thread.join(min(LOOK_SECONDS, left))

    def _start_thread(self) -> None:
        thread = Thread(target=self._run, daemon=True, name=self._name)
        self._threads.add(thread)
        thread.start()

    def _run(self) -> None:
        self._at_start()
        try:
            while (job := self._jobs.get()) is not None:
                if not self._run_job(*job):
                    return
                del job  # its arguments and its result may be gigabytes
        finally:
            self._at_end()

    def _run_job(self, future: "Future[Any]", work: Callable[[], Any]) -> bool:
        """Runs one job; returns False if it was given up meanwhile, and another thread works in place of this one."""
        if not future.set_running_or_notify_cancel():
            return True
        self._running[future] = current_thread(), monotonic()
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            kept = self._running.pop(future, None) is not None
            if kept:
                future.set_exception(error)
        else:
            kept = self._running.pop(future, None) is not None
            if kept:
                future.set_result(result)
        return kept


def wait_for_first(
    futures: "Collection[Future[Result]]", on_wait: Callable[[float], object] = _do_nothing
) -> "set[Future[Result]]":
    """Waits until at least one of several jobs has ended.

    Args:
        futures: The jobs.
        on_wait: Called every `LOOK_SECONDS` with the seconds waited so far; may raise an error to wait no longer.

    Returns:
        The jobs that have ended.
    """
    seconds = 0.0
    while not (done := wait(futures, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED).done):
        seconds += LOOK_SECONDS
        on_wait(seconds)
    return done


def wait_for(future: "Future[Result]", on_wait: Callable[[float], object] = _do_nothing) -> Result:
    """Returns the result of a job, or raises its error; see `wait_for_first`."""
    wait_for_first([future], on_wait)
    return future.result()


@contextmanager
def one_torch_thread_each() -> Iterator[Callable[[], None]]:
    """Gives what each thread of a pool calls at its start, so that torch calculates in that thread alone.

    Torch takes the number that one thread sets for the number of all threads that start later. So the usual number is
    restored at the end. A program that has not imported torch does not need it, and nothing is set.
    """
    torch = sys.modules.get("torch")
    usual_threads = None if torch is None else torch.get_num_threads()

    def at_start() -> None:
        if torch is not None:
            torch.set_num_threads(1)

    try:
        yield at_start
    finally:
        if torch is not None:
            torch.set_num_threads(usual_threads)
