"""The same work on many cases at once, in threads: one bad case never hides or stops the others.

Array work and file reading release Python's global lock, so threads use all cores, share memory, and cannot be left
behind by a stop.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from autoseg.errors import AutosegError, ProblemsError, WriteError
from autoseg.reporting import Reporter

Item = TypeVar("Item")
Result = TypeVar("Result")


MOST_WORKERS = 8
"""Decision: beyond that, disks are the limit."""


def count_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_on_each(
    work: Callable[[Item], Result], items: Sequence[Item], *, title: str, reporter: Reporter
) -> list[Result | AutosegError]:
    """Calls `work` with each item.

    Returns:
        For each item, in order, the result or the error that the user can mend. Any other error is a bug and is raised
        once the running work has ended; so are Ctrl-C and a full disk, which every other item would meet too.
    """

    def attempt(item: Item) -> Result | AutosegError:
        try:
            return work(item)
        except WriteError:
            raise
        except AutosegError as error:
            return error

    pool = ThreadPoolExecutor(min(MOST_WORKERS, count_cores()))
    try:
        with reporter.task(title, total=len(items)) as task:
            futures = [pool.submit(attempt, item) for item in items]
            for future in as_completed(futures):
                future.result()
                task.advance()
        return [future.result() for future in futures]
    finally:
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
