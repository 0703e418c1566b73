"""How a run is asked to end before its time: by a file that appears in the folder of its fold, or by SIGTERM.

It ends before its next step, when what it did can be saved whole. Ctrl-C still ends it at once, and costs it the epoch
that was running.
"""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from autoseg.errors import Stopped, UsageError
from autoseg.training.ranks import ALONE, Ranks
from autoseg.workspace import Fold, ModelFolder

LOOK_SECONDS = 1.0
"""Between two looks for the file. Decision: seldom enough for slow network drives, where a look may take as long as a
short step."""

TERMINATED = threading.Event()
"""Set in a process that belongs to another which was told to end by SIGTERM; see `processes`."""

EXIT_STOPPED = 0
EXIT_TERMINATED = 128 + 15
"""Source: what shells report of a program that SIGTERM ended."""


WAYS = (("'autoseg stop'", EXIT_STOPPED), ("SIGTERM", EXIT_TERMINATED))
"""By whom a run can be asked, and what it then ends with."""


class StopRequest:
    """Whether a run was asked to stop; without a file it never is, unless SIGTERM is noted.

    If several ranks train together, one that was asked is enough for all to end after the same step.
    """

    def __init__(self, file: Path | None = None, ranks: Ranks = ALONE) -> None:
        self._file, self._ranks = file, ranks
        self._terminated = False
        self._looked_at = -LOOK_SECONDS

    def note_sigterm(self, _signal: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """Remembers the signal, to stop at the next check; a second one ends the program at once, as usual."""
        self._terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def check(self) -> None:
        """Ends the run if it was asked to stop. All ranks must look together.

        Raises:
            Stopped: It was.
        """
        way = self._ranks.find_largest(self._find_way())
        if way >= 0:
            raise Stopped(*WAYS[way])

    def _find_way(self) -> int:
        """Which of `WAYS`, or -1."""
        if self._terminated or TERMINATED.is_set():
            return 1
        if self._file is None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return -1
        self._looked_at = time.monotonic()
        return 0 if self._file.exists() else -1


NEVER = StopRequest()
"""Of runs that nobody can reach."""


@contextmanager
def watch_for_stop(file: Path, ranks: Ranks = ALONE) -> Iterator[StopRequest]:
    """Listens for the file and for SIGTERM while a run goes on.

    A file that stood there before was meant for an earlier run, and is removed; so is that which ended this one. The
    signal is left to a program that already listens for it, and to other threads than the main one, which Python never
    tells of signals. Of several ranks the first one looks after the file.
    """
    if ranks.is_main:
        file.unlink(missing_ok=True)
    request = StopRequest(file if ranks.is_main else None, ranks)
    in_main = threading.current_thread() is threading.main_thread()
    listens = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if listens:
        signal.signal(signal.SIGTERM, request.note_sigterm)
    try:
        yield request
    finally:
        if listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if ranks.is_main:
            file.unlink(missing_ok=True)


def ask_to_stop(model: ModelFolder, folds: Sequence[Fold] | None) -> list[Fold]:
    """Leaves the file for runs that are training; all of the model's, or those of some folds.

    Returns:
        The folds that were asked.

    Raises:
        UsageError: None of them is being trained, or one that was named is not.
    """
    running = model.running_folds()
    wanted = running if folds is None or "cv" in folds else list(folds)
    idle = [fold for fold in wanted if fold not in running]
    if idle or not wanted:
        which = f"fold {idle[0]}" if idle else "no fold"
        there = f"being trained there: {', '.join(map(str, running))}" if running else "nothing is being trained there"
        not_it = "is not being trained" if idle else "is being trained"
        raise UsageError(f"{which} of {model.path.name} {not_it}", f"look at -d, -c, -f and --plan again; {there}")
    for fold in wanted:
        model.stop_file(fold).touch()
    return wanted
