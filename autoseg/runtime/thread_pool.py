"""The same work on many cases at once, in threads: one bad case never hides, stops or holds up the others.

Array work and file reading release Python's global lock, so threads use all cores and share memory. None can die alone:
if the system kills for want of memory, it ends the whole program, and what was finished is on disk. Nor can a thread be
stopped from outside; so one that is stuck, on a disk that went away, is given up after a while: its case gets its line,
another thread takes its place, and the program ends without it.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from statistics import median
from threading import Condition, Thread
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

from autoseg.errors import AutosegError, ProblemsError, WriteError
from autoseg.runtime.machine import count_cores, free_memory_bytes
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.units import describe_duration

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

ITEM_SECONDS = 3600
"""After that long an item is given up. Decision: a hundred times what the largest scans take."""

GRACE_SECONDS = 10
"""After Ctrl-C, work that was begun has that long to come to its end."""

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
    most = most_workers or (count_cores() if bytes_each else min(MOST_WORKERS, count_cores()))
    with _one_thread_each() as settle, reporter.task(title, total=len(items)) as task:
        crew = _Crew(work, items, sizes, room, settle)
        results: dict[int, Result | AutosegError] = {}
        try:
            for index, result in crew.results(min(most, room.count(sizes)), tell=reporter.say):
                results[index] = result
                task.advance()
        finally:
            crew.dismiss()
    return [results[index] for index in range(len(items))]


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
        self._taken: dict[int, int] = {}
        self._closed = False
        self._changed = Condition()

    def count(self, sizes: Sequence[int]) -> int:
        """How many items of the usual size fit at once; at least one."""
        return max(1, min(len(sizes), self._total // max(1, int(median(sizes or [0])))))

    def take(self, index: int, size: int) -> bool:
        """Waits until there is room for an item, or until nobody else is there; False if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._taken or size <= self._free)
            if not self._closed:
                self._taken[index] = size
                self._free -= size
            return not self._closed

    def give_back(self, index: int) -> None:
        """Frees the room of an item, if that was not done before."""
        with self._changed:
            self._free += self._taken.pop(index, 0)
            self._changed.notify_all()

    def close(self) -> None:
        """Sends those away who wait, or come later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Crew(Generic[Item, Result]):
    """The threads. Python does not wait for such as these when the program ends."""

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        sizes: Sequence[int],
        room: _Room,
        settle: Callable[[], None],
    ) -> None:
        self._work, self._items, self._sizes, self._room, self._settle = work, items, sizes, room, settle
        self._waiting = deque(range(len(items)))
        self._begun: dict[int, float] = {}  # What is in work, and since when
        self._finished: SimpleQueue[tuple[int, Result | BaseException]] = SimpleQueue()

    def results(self, workers: int, tell: Callable[[str], None]) -> Iterator[tuple[int, Result | AutosegError]]:
        """Gives each item's number and result as it comes; tells what is in work when nothing comes for long."""
        for _ in range(workers):
            self._hire()
        silent_seconds, last, missing = float(SILENT_SECONDS), time.monotonic(), len(self._items)
        while missing:
            for index, outcome in [*self._next(), *self._give_up()]:
                last = time.monotonic()
                missing -= 1
                yield index, _expected(outcome)
            if time.monotonic() - last >= silent_seconds:
                silent_seconds *= 2
                tell(f"nothing new yet; in work: {self._describe()}")

    def dismiss(self) -> None:
        """Lets nothing more begin, and waits a while for what is in work."""
        self._room.close()
        self._waiting.clear()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._begun and time.monotonic() < deadline:
            time.sleep(0.01)

    def _hire(self) -> None:
        Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._settle()
        while self._waiting:
            try:
                index = self._waiting.popleft()
            except IndexError:  # another was faster
                return
            if not self._room.take(index, self._sizes[index]):
                return
            self._begun[index] = time.monotonic()
            outcome = self._attempt(self._items[index])
            self._room.give_back(index)
            if self._begun.pop(index, None) is None:  # it was given up, and another works in this place
                return
            self._finished.put((index, outcome))

    def _attempt(self, item: Item) -> Result | BaseException:
        try:
            return self._work(item)
        except BaseException as error:  # noqa: BLE001 - raised again where the results are asked for
            if not _is_of_one_item(error):
                self._room.close()  # nothing else is begun
            return error

    def _next(self) -> list[tuple[int, Result | BaseException]]:
        """The next that is finished, if there is one soon."""
        try:
            return [self._finished.get(timeout=LOOK_SECONDS)]
        except Empty:
            return []

    def _give_up(self) -> list[tuple[int, AutosegError]]:
        """Takes what has been in work for too long from its threads."""
        now = time.monotonic()
        late = [index for index, since in self._begun.copy().items() if now - since > ITEM_SECONDS]
        late = [index for index in late if self._begun.pop(index, None) is not None]
        for index in late:
            self._room.give_back(index)
            self._hire()
        return [(index, self._too_late(index)) for index in late]

    def _too_late(self, index: int) -> AutosegError:
        what = f"{self._name(index)} was not finished within {describe_duration(ITEM_SECONDS)}"
        return AutosegError(what, "see whether its disk answers, and run the command again")

    def _describe(self) -> str:
        oldest = sorted(self._begun.copy().items(), key=lambda entry: entry[1])[:MOST_NAMES]
        now = time.monotonic()
        return ", ".join(f"{self._name(index)} for {describe_duration(now - since)}" for index, since in oldest)

    def _name(self, index: int) -> str:
        return str(getattr(self._items[index], "name", self._items[index]))


def _is_of_one_item(error: BaseException) -> bool:
    """Whether other items need not meet it, and the user can mend it."""
    return isinstance(error, AutosegError) and not isinstance(error, WriteError)


def _expected(outcome: Result | BaseException) -> Result | AutosegError:
    """A result, or an error that stands for one; raises any other."""
    if not isinstance(outcome, BaseException):
        return outcome
    if isinstance(outcome, AutosegError) and _is_of_one_item(outcome):
        return outcome
    raise outcome


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
