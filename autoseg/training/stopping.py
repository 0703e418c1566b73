"""Stops a run early: by a file that appears in the folder of its fold, or by SIGTERM.

The run ends before its next step, when its state can be saved. Ctrl-C still ends it at once, and loses the epoch that
was running.
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
"""Time between two looks for the file. Decision: seldom enough for slow network drives, where a look may take as long
as a short step."""

TERMINATED = threading.Event()
"""Set in a worker process when the process that started it received SIGTERM; see `worker`."""

EXIT_STOPPED = 0
EXIT_TERMINATED = 128 + 15
"""Exit code of a run that SIGTERM stopped. Source: the code that shells report of such a program."""

REASONS = (("'autoseg stop'", EXIT_STOPPED), ("SIGTERM", EXIT_TERMINATED))
"""The ways in which a run can be asked to stop, each with its exit code."""


class StopRequest:
    """Whether a run was asked to stop, by its file or by a noted SIGTERM.

    If several ranks train together and one of them was asked, all end after the same step.
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
        """Ends the run if it was asked to stop. All ranks must call this together.

        Raises:
            Stopped: The run was asked to stop.
        """
        reason = self._ranks.all_reduce_max(self._find_reason())
        if reason >= 0:
            raise Stopped(*REASONS[reason])

    def _find_reason(self) -> int:
        """Returns the index of the reason to stop in `REASONS`, or -1."""
        if self._terminated or TERMINATED.is_set():
            return 1
        if self._file is None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return -1
        self._looked_at = time.monotonic()
        return 0 if self._file.exists() else -1


NEVER = StopRequest()
"""The request of a run that is never asked to stop."""


@contextmanager
def watch_for_stop(file: Path, ranks: Ranks = ALONE) -> Iterator[StopRequest]:
    """Watches for the file and for SIGTERM while a run goes on.

    A file from before was meant for an earlier run, and is removed; so is the one that ended this run. The signal is
    left alone if the program handles it already, and in other threads than the main one, which receive no signals in
    Python. If several ranks train, the main one watches for the file.

    Args:
        file: Path of the file that asks the run to stop.
        ranks: The processes of the run.
    """
    if ranks.is_main:
        file.unlink(missing_ok=True)
    request = StopRequest(file if ranks.is_main else None, ranks)
    in_main = threading.current_thread() is threading.main_thread()
    handles = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if handles:
        signal.signal(signal.SIGTERM, request.note_sigterm)
    try:
        yield request
    finally:
        if handles:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if ranks.is_main:
            file.unlink(missing_ok=True)


def ask_to_stop(model: ModelFolder, folds: Sequence[Fold] | None) -> list[Fold]:
    """Writes the file that asks a run to stop, for folds that are being trained.

    Args:
        model: Folder of the model.
        folds: Folds to stop; None, or "cv" among them, for all that are being trained.

    Returns:
        The folds that were asked to stop.

    Raises:
        UsageError: None of them is being trained, or one that was named is not.
    """
    running = model.running_folds()
    asked = running if folds is None or "cv" in folds else list(folds)
    idle = [fold for fold in asked if fold not in running]
    if idle or not asked:
        which = f"fold {idle[0]}" if idle else "no fold"
        others = f"being trained there: {', '.join(map(str, running))}" if running else "nothing is being trained there"
        state = "is not being trained" if idle else "is being trained"
        raise UsageError(f"{which} of {model.path.name} {state}", f"look at -d, -c, -f and --plan again; {others}")
    for fold in asked:
        model.stop_file(fold).touch()
    return asked
