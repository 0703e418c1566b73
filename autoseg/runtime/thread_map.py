"""The same work on many cases at once, in threads: one bad case never hides, stops or delays the others.

Array work and file reading release Python's global lock, so threads use all cores and share memory. A thread cannot die
alone: if the system kills for want of memory, it ends the whole program, and what was finished is on disk. A thread
cannot be stopped from outside either. So a case whose thread is stuck, on a disk that went away, is given up after a
while: the case gets an error, another thread goes on with the other cases, and the program ends without the thread that
is stuck.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from statistics import median
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

from autoseg.errors import AutosegError, ProblemsError, WriteError
from autoseg.runtime.machine import count_cores, free_memory_bytes
from autoseg.runtime.reporting import Reporter, describe_item, list_names, log_line
from autoseg.runtime.thread_pool import ThreadPool, one_torch_thread_each, wait_for_first
from autoseg.runtime.units import describe_duration

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8
"""Threads for work whose memory is not known. Decision: with more threads, disks are the limit."""

SHARE_OF_FREE_MEMORY = 0.8
"""Share of the free memory that work may take. Decision: a fifth is left for other programs and low estimates."""

SILENT_SECONDS = 60
"""Seconds without a finished item after which the user is told which items are running; then after twice as long."""

ITEM_SECONDS = 3600
"""Seconds after which an item is given up. Decision: a hundred times what the largest scans take."""


def map_in_threads(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    title: str,
    reporter: Reporter,
    bytes_each: Callable[[Item], int] | None = None,
    most_workers: int | None = None,
) -> list[Result | AutosegError]:
    """Calls `work` with each item, with several at once as cores and memory allow.

    Inside, matrix products take one thread each: more would compete for the cores, and their number would change the
    last bits of the results (measured: of 59 in 60 products of OpenBLAS).

    Args:
        work: Function of one item; called from several threads.
        items: Arguments of `work`. The `name` of an item, if it has one, is used in messages.
        title: Title of the progress bar.
        reporter: Shows progress.
        bytes_each: Returns the memory that work on an item takes at most, in bytes. Items that do not fit together wait
            for each other; one that never fits is worked on alone.
        most_workers: Largest number of threads; by default one per core, and at most `MOST_WORKERS` if `bytes_each` is
            not given.

    Returns:
        For each item, in order, the result or the error that the user can mend. Any other error is a bug and is raised
        once the running work has ended; so are Ctrl-C and a full disk, which every other item would meet too.

    Example:
        >>> from autoseg.runtime.reporting import SILENT
        >>> map_in_threads(abs, [-1, 2, -3], title="absolute values", reporter=SILENT)
        [1, 2, 3]
    """
    sizes = [bytes_each(item) if bytes_each else 0 for item in items]
    free = free_memory_bytes() if bytes_each else None
    budget = sys.maxsize if free is None else int(SHARE_OF_FREE_MEMORY * free)
    most = most_workers or (count_cores() if bytes_each else min(MOST_WORKERS, count_cores()))
    workers = min(most, _count_fitting(sizes, budget))
    results: dict[int, Result | AutosegError] = {}
    with (
        threadpool_limits(1, user_api="blas"),
        one_torch_thread_each() as at_start,
        reporter.task(title, total=len(items)) as task,
        ThreadPool(workers, name="item", at_start=at_start) as pool,
    ):
        scheduler = _Scheduler(pool, work, items, reporter.say)
        for index, result in scheduler.run(sizes, workers, budget):
            results[index] = result
            problem = str(result) if isinstance(result, AutosegError) else None
            log_line(reporter, describe_item(title, len(results), len(items), _name_item(items[index]), problem))
            task.advance()
    return [results[index] for index in range(len(items))]


def results_or_raise(results: Sequence[Result | AutosegError]) -> list[Result]:
    """Returns the results of `map_in_threads` if none of them is an error.

    Raises:
        ProblemsError: Some are errors; each has its line.
    """
    errors = [result for result in results if isinstance(result, AutosegError)]
    if errors:
        raise ProblemsError([str(error) for error in errors])
    return [result for result in results if not isinstance(result, AutosegError)]


class _Scheduler(Generic[Item, Result]):
    """Decides which items are worked on at once, and watches over them."""

    def __init__(
        self, pool: ThreadPool, work: Callable[[Item], Result], items: Sequence[Item], tell: Callable[[str], None]
    ) -> None:
        self._pool, self._work, self._items, self._tell = pool, work, items, tell
        self._running: dict[Future[Result], int] = {}  # the index of the item of each job
        self._silent_seconds = float(SILENT_SECONDS)

    def run(self, sizes: Sequence[int], workers: int, budget_bytes: int) -> Iterator[tuple[int, Result | AutosegError]]:
        """Gives the index and the result of each item as soon as it is finished.

        Args:
            sizes: Memory of each item, in bytes.
            workers: Number of items that are worked on at once, at most.
            budget_bytes: Memory that they take together, at most, unless one item alone takes more.
        """
        waiting, free_bytes = deque(range(len(self._items))), budget_bytes
        while waiting or self._running:
            for index in list(islice(waiting, workers - len(self._running))):
                if not self._running or sizes[index] <= free_bytes:
                    waiting.remove(index)
                    free_bytes -= sizes[index]
                    self._running[self._pool.submit(self._work, self._items[index])] = index
            for future in wait_for_first(self._running, self._watch):
                index = self._running.pop(future)
                free_bytes += sizes[index]
                result = _result_of(future)
                yield index, result

    def _watch(self, seconds: float) -> None:
        """Gives up the items that take too long; if nothing ends for long, says which items are running."""
        running = {future: age for future, age in self._pool.running_seconds().items() if future in self._running}
        late = [future for future, age in running.items() if age > ITEM_SECONDS]
        for future in late:
            self._pool.give_up(future, self._late_error(future))
        if not late and seconds >= self._silent_seconds:
            self._silent_seconds *= 2
            oldest = sorted(running, key=running.__getitem__, reverse=True)
            work = [f"{self._name(future)} for {describe_duration(running[future])}" for future in oldest]
            self._tell(f"nothing new yet; in work: {list_names(work)}")

    def _late_error(self, future: "Future[Result]") -> AutosegError:
        problem = f"{self._name(future)} was not finished within {describe_duration(ITEM_SECONDS)}"
        return AutosegError(problem, "see whether its disk answers, and run the command again")

    def _name(self, future: "Future[Result]") -> str:
        return _name_item(self._items[self._running[future]])


def _name_item(item: object) -> str:
    """Returns the name of an item in messages; of several values, such as a mask and its number, the first is it."""
    first = item[0] if isinstance(item, tuple) and item else item
    return str(getattr(first, "name", first))


def _count_fitting(sizes: Sequence[int], budget_bytes: int) -> int:
    """Returns how many items of the median size fit into the memory at once; at least one."""
    return max(1, min(len(sizes), budget_bytes // max(1, int(median(sizes or [0])))))


def _result_of(future: "Future[Result]") -> Result | AutosegError:
    """Returns the result of an item, or the error that concerns this item alone; raises any other error."""
    try:
        return future.result()
    except WriteError:
        raise
    except AutosegError as error:
        return error
