"""The queue of the server: one scan is segmented at a time, a few wait, and further ones are refused."""

import asyncio
import math
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypeVar

from autoseg.serving.limits import Limits, Refusal

Result = TypeVar("Result")

SHARE_OF_LAST = 0.3
"""Weight of the last scan in the mean time of a scan. Decision: the last ten or so count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A place in the queue.

    Attributes:
        folder: An empty folder for the files of the job; its name is that of the place, so it comes again.
        dropped: Set when the result is no longer wanted.
    """

    folder: Path
    dropped: Event = field(default_factory=Event)


class JobQueue:
    """Places for scans; all methods but `stop` are called in the thread of the server's loop.

    Args:
        folder: Folder for the files of jobs.
        limits: Says how many scans may wait.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._free = list(range(limits.waiting + 1))
        self._dropped: dict[int, Event] = {}
        self._stopping = Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="segmenting")
        self._mean_seconds = 1.0

    @property
    def size(self) -> int:
        """The number of scans that are segmented, wait, or are being sent."""
        return len(self._dropped)

    @contextmanager
    def admit(self) -> Iterator[Job]:
        """Gives a place, until the context ends.

        Raises:
            Refusal: There is none, or the server is ending.
        """
        if self._stopping.is_set():
            raise _ending()
        if not self._free:
            seconds = math.ceil(self._mean_seconds)
            line = f"{self._limits.waiting} scans are waiting already, which is the limit; try again in {seconds} s"
            raise Refusal(503, line, {"Retry-After": str(seconds)})
        place = min(self._free)
        self._free.remove(place)
        job = Job(folder=self._folder / f"place_{place}")
        self._dropped[place] = job.dropped
        try:
            shutil.rmtree(job.folder, ignore_errors=True)
            job.folder.mkdir()
            yield job
        finally:
            job.dropped.set()
            del self._dropped[place]
            self._free.append(place)
            shutil.rmtree(job.folder, ignore_errors=True)

    async def run(self, job: Job, work: Callable[[], Result]) -> Result:
        """Does work when its turn comes, in the thread of the queue.

        Raises:
            Refusal: The server is ending.
        """

        def take_turn() -> Result:
            started = time.monotonic()
            if job.dropped.is_set():
                raise _ending()
            try:
                return work()
            finally:
                seconds = time.monotonic() - started
                self._mean_seconds += SHARE_OF_LAST * (seconds - self._mean_seconds)

        return await asyncio.get_running_loop().run_in_executor(self._executor, take_turn)

    def stop(self) -> None:
        """Gives up all jobs: that which is running ends at its next step, the others do not begin. Any thread may call.

        No further job is admitted.
        """
        self._stopping.set()
        for dropped in list(self._dropped.values()):
            dropped.set()

    def close(self) -> None:
        """Waits for the end of the running job, after `stop`."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _ending() -> Refusal:
    return Refusal(503, "the server is ending; send the scan again when it is back", {"Retry-After": "10"})
