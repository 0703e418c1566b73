"""The request to stop a run early: by a file that appears in the folder of its fold, by SIGTERM, or by Ctrl-C.

The run ends before its next step, when its state can be saved. If the step takes long, the `watchdog` saves the state
as it was before that step and ends the process, where that is allowed.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoseg.errors import Stopped, UsageError
from autoseg.runtime.lock import is_abandoned
from autoseg.training.ranks import ALONE, Ranks
from autoseg.workspace import Fold, ModelFolder

LOOK_SECONDS = 1.0
"""Time between two looks for the file. Decision: seldom enough for slow network drives, where a look may take as long
as a short step."""

EXIT_STOPPED = 0
EXIT_TERMINATED = 128 + 15
EXIT_INTERRUPTED = 128 + 2
"""Exit codes of a run that was stopped. Source: the codes that shells report of a program that a signal ended."""

NO_REASON, BY_FILE, BY_SIGTERM, BY_INTERRUPT = -1, 0, 1, 2
"""Numbers of the reasons to stop. If several ranks have different ones, the largest counts."""

REASONS = (("'autoseg stop'", EXIT_STOPPED), ("SIGTERM", EXIT_TERMINATED), ("Ctrl-C", EXIT_INTERRUPTED))
"""The ways in which a run can be asked to stop, each with its exit code."""


class StopRequest:
    """Whether a run was asked to stop, by its file or by a reason that was noted.

    If several ranks train together and one of them was asked, all end after the same step.

    Attributes:
        ranks: The processes of the run.
        guarded_until: When guarded work last ended, in seconds of the monotonic clock; see `guarded`.
        save_state: Saves the state of the run as of its last step; None if there is nothing that could be saved.
        at_end: What to call before the process is ended without unwinding.
    """

    forwarded = NO_REASON
    """The reason that another process passed on to this one, whatever it trains; see `worker`."""

    def __init__(self, file: Path | None = None, ranks: Ranks = ALONE) -> None:
        self._file, self.ranks = file, ranks
        self._reason = NO_REASON
        self._looked_at = -LOOK_SECONDS
        self._guard = threading.RLock()
        self.guarded_until = 0.0
        self.save_state: Callable[[], None] | None = None
        self.at_end: list[Callable[[], None]] = []

    def note(self, reason: int) -> None:
        """Remembers a reason to stop at the next check, such as `BY_SIGTERM`."""
        self._reason = max(self._reason, reason)

    def check(self) -> None:
        """Ends the run if it was asked to stop. All ranks must call this together.

        Raises:
            Stopped: The run was asked to stop.
        """
        self._raise_for(self.ranks.all_reduce_max(self.find_reason()))

    def check_alone(self) -> None:
        """Ends the work of this rank if this rank was asked to stop, without asking the others.

        Raises:
            Stopped: It was asked to stop.
        """
        self._raise_for(self.find_reason())

    def find_reason(self) -> int:
        """Returns the index of the reason to stop in `REASONS`, or `NO_REASON`. Called from several threads."""
        reason = max(self._reason, StopRequest.forwarded)
        if reason != NO_REASON or self._file is None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return reason
        self._looked_at = time.monotonic()
        if self._file.exists():
            self.note(BY_FILE)
        return self._reason

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Keeps others from guarded work until this has ended: changes of the state, and saving it.

        So the state is saved by one thread at a time, and never in the middle of a change.
        """
        with self._guard:
            try:
                yield
            finally:
                self.guarded_until = time.monotonic()

    def try_guarded(self, work: Callable[[], None]) -> bool:
        """Does guarded work, unless other guarded work is going on; returns whether it did."""
        if not self._guard.acquire(blocking=False):
            return False
        try:
            work()
        finally:
            self._guard.release()
        return True

    @contextmanager
    def saving_by(self, save_state: Callable[[], None]) -> Iterator[None]:
        """Sets `save_state` for the duration of the context."""
        self.save_state = save_state
        try:
            yield
        finally:
            with self.guarded():
                self.save_state = None

    @staticmethod
    def _raise_for(reason: int) -> None:
        if reason != NO_REASON:
            raise Stopped(*REASONS[reason])


NEVER = StopRequest()
"""The request of a run that is never asked to stop."""


_LISTENERS: list[Callable[[int], object]] = []
"""What each run in this process that can be asked to stop does with the reason."""


@contextmanager
def listening(note: Callable[[int], object]) -> Iterator[None]:
    """Has `ask_this_process` call a function with the reason, for the duration of the context."""
    _LISTENERS.append(note)
    try:
        yield
    finally:
        _LISTENERS.remove(note)


def ask_this_process(reason: int) -> bool:
    """Asks the runs of this process to stop, as SIGTERM would, but without a signal; from any thread.

    A signal would end the process if it arrived just after the last run that handles it had ended.

    Args:
        reason: The reason to stop, such as `BY_FILE`.

    Returns:
        Whether there was a run to be asked.
    """
    listeners = tuple(_LISTENERS)
    for note in listeners:
        note(reason)
    return bool(listeners)


def held_folds(model: ModelFolder) -> list[Fold]:
    """Returns the folds that are being trained; a lock that a killed run left does not count."""
    return [fold for fold in model.running_folds() if not is_abandoned(model.fold(fold))]


def ask_to_stop(model: ModelFolder, folds: Sequence[Fold] | None) -> list[Fold]:
    """Writes the file that asks a run to stop, for folds that are being trained.

    Args:
        model: Folder of the model.
        folds: Folds to stop; None, or "cv" among them, for all that are being trained.

    Returns:
        The folds that were asked to stop.

    Raises:
        UsageError: None of them is being trained, or one that was named is not; or all have ended meanwhile, and no
            request is left behind.
    """
    running = held_folds(model)
    asked = running if folds is None or "cv" in folds else list(folds)
    idle = [fold for fold in asked if fold not in running]
    if idle or not asked:
        which = f"fold {idle[0]}" if idle else "no fold"
        others = f"being trained there: {', '.join(map(str, running))}" if running else "nothing is being trained there"
        state = "is not being trained" if idle else "is being trained"
        raise UsageError(f"{which} of {model.path.name} {state}", f"look at -d, -c, -f and --plan again; {others}")
    for fold in asked:
        model.stop_file(fold).touch()
    ended = [fold for fold in asked if is_abandoned(model.fold(fold))]
    for fold in ended:
        model.stop_file(fold).unlink(missing_ok=True)
    if ended == asked:
        raise UsageError(f"fold {ended[0]} of {model.path.name} has just ended by itself", "there is nothing to stop")
    return [fold for fold in asked if fold not in ended]
