"""The same work on many cases at once, in threads: one bad case never hides or stops the others.

Array work and file reading release Python's global lock, so threads use all cores and share memory. They are never left
behind by a stop, and none can die alone: if the system kills for want of memory, it ends the whole program, and what
was finished is on disk. A thread cannot be stopped from outside either; so there is no time limit, but when nothing is
finished for long, the user is told what is in work.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from statistics import median
from threading import Condition
from typing import TypeVar

from threadpoolctl import threadpool_limits

from autoseg.errors import AutosegError, ProblemsError, WriteError
from autoseg.machine import count_cores, free_memory_bytes
from autoseg.reporting import Reporter
from autoseg.units import describe_duration

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8
"""For work whose memory is not known. Decision: beyond that, disks are the limit."""

SHARE_OF_FREE_MEMORY = 0.8
"""That work may take. Decision: a fifth for other programs, and for estimates that are too low."""

SILENT_SECONDS = 60
"""After that long without a finished item the user is told what is in work; next after twice as long."""

LOOK_SECONDS = 1.0
"""Between two looks at the clock; on Windows, Ctrl-C waits for the next one."""

MOST_NAMES = 5


def work_on_each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    title: str,
    reporter: Reporter,
    bytes_each: Callable[[Item], int] | None = None,
    most_workers: int | None = None,
) -> list[Result | AutosegError]:
    """Calls `work` with each item, with several at once as cores and memory allow.

    Inside, matrix products take one thread each: more would fight for the cores, and their number would change the last
    bits of the results (measured: of 59 in 60 products of OpenBLAS).

    Args:
        work: May be called from any thread.
        items: What to call it with; an item's `name`, if it has one, tells people what is in work.
        title: Of the progress bar.
        reporter: Shows progress.
        bytes_each: The memory that work on an item takes at most. Items that do not fit together wait for each other;
            one that never fits is worked on alone.
        most_workers: At once; by default one per core, and `MOST_WORKERS` at most if `bytes_each` is not given.

    Returns:
        For each item, in order, the result or the error that the user can mend. Any other error is a bug and is raised
        once the running work has ended; so are Ctrl-C and a full disk, which every other item would meet too.
    """
    sizes = [bytes_each(item) if bytes_each else 0 for item in items]
    free = free_memory_bytes() if bytes_each else None
    room = _Room(sys.maxsize if free is None else int(SHARE_OF_FREE_MEMORY * free))
    in_work: dict[int, float] = {}

    def attempt(index: int) -> Result | AutosegError:
        with room.for_bytes(sizes[index]):
            in_work[index] = time.monotonic()
            try:
                return work(items[index])
            except BaseException as error:
                if isinstance(error, AutosegError) and not isinstance(error, WriteError):
                    return error
                room.close()  # nothing else is begun
                raise
            finally:
                del in_work[index]

    def describe_work() -> str:
        oldest = sorted(in_work.copy().items(), key=lambda entry: entry[1])[:MOST_NAMES]
        return ", ".join(
            f"{getattr(items[index], 'name', items[index])} for {describe_duration(time.monotonic() - since)}"
            for index, since in oldest
        )

    most = most_workers or (count_cores() if bytes_each else min(MOST_WORKERS, count_cores()))
    with _one_thread_each() as settle, reporter.task(title, total=len(items)) as task:
        pool = ThreadPoolExecutor(min(most, room.count(sizes)), initializer=settle)
        try:
            futures = [pool.submit(attempt, index) for index in range(len(items))]
            for future in _as_they_come(futures, lambda: reporter.say(f"nothing new yet; in work: {describe_work()}")):
                with suppress(CancelledError):  # because of an error that comes after this
                    future.result()
                    task.advance()
            return [future.result() for future in futures]
        finally:
            room.close()
            pool.shutdown(wait=True, cancel_futures=True)


def all_sound(results: Sequence[Result | AutosegError]) -> list[Result]:
    """The results of `work_on_each` if none is an error.

    Raises:
        ProblemsError: Some are; each has its line.
    """
    errors = [result for result in results if isinstance(result, AutosegError)]
    if errors:
        raise ProblemsError([str(error) for error in errors])
    return [result for result in results if not isinstance(result, AutosegError)]


class _Room:
    """The memory that all workers share."""

    def __init__(self, total_bytes: int) -> None:
        self._total = self._free = total_bytes
        self._workers = 0
        self._closed = False
        self._changed = Condition()

    def count(self, sizes: Sequence[int]) -> int:
        """How many items of the usual size fit at once; at least one."""
        return max(1, min(len(sizes), self._total // max(1, int(median(sizes or [0])))))

    @contextmanager
    def for_bytes(self, size: int) -> Iterator[None]:
        """Waits until there is room for some bytes, or until nobody else is there, and keeps it."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._workers or size <= self._free)
            if self._closed:
                raise CancelledError
            self._workers += 1
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._workers -= 1
                self._free += size
                self._changed.notify_all()

    def close(self) -> None:
        """Sends those away who wait, or come later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _as_they_come(
    futures: Sequence[Future[Result | AutosegError]], tell: Callable[[], None]
) -> Iterator[Future[Result | AutosegError]]:
    """Gives each future when it is done, and tells when none is for long."""
    done: SimpleQueue[Future[Result | AutosegError]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(done.put)
    silent_seconds = float(SILENT_SECONDS)
    last = time.monotonic()
    waiting = len(futures)
    while waiting:
        with suppress(Empty):
            yield done.get(timeout=LOOK_SECONDS)
            waiting -= 1
            last = time.monotonic()
        if time.monotonic() - last >= silent_seconds:
            silent_seconds *= 2
            tell()


@contextmanager
def _one_thread_each() -> Iterator[Callable[[], None]]:
    """Gives what each worker calls first; afterwards all libraries have as many threads as before."""
    torch = sys.modules.get("torch")  # whoever has not loaded it does not use it

    def settle() -> None:
        if torch is not None:
            torch.set_num_threads(1)

    usual_threads = None if torch is None else torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        try:
            yield settle
        finally:
            if torch is not None:  # it takes the 1 of these threads for that of all threads to come
                torch.set_num_threads(usual_threads)
