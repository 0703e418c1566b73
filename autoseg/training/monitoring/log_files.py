"""The log files of a fold: progress.jsonl, progress.csv, progress.png, and the trackers that the user asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from autoseg.errors import AutosegError
from autoseg.runtime.reporting import Reporter
from autoseg.training.monitoring.curves import draw_progress
from autoseg.training.monitoring.progress import EpochReport, append_line, write_lines, write_progress
from autoseg.training.monitoring.tracking import OpenTracker, TrackedFold, Tracker
from autoseg.workspace import Fold, ModelFolder

SECONDS_BETWEEN_PICTURES = 30.0
"""Training time between two drawings of the curves, which take about a second, as long as a short epoch."""


class LogFiles:
    """The log files of one fold, updated after each epoch. Opened by `open_log_files`."""

    def __init__(
        self, model: ModelFolder, fold: Fold, trackers: dict[str, Tracker], reporter: Reporter, epochs_done: int
    ) -> None:
        self._model, self._fold, self._trackers, self._reporter = model, fold, trackers, reporter
        self._epochs_done = epochs_done
        self._drawn_at = -SECONDS_BETWEEN_PICTURES
        self._finished = False

    def update(self, reports: Sequence[EpochReport], *, finished: bool) -> None:
        """Adds the epochs that are new.

        Args:
            reports: Reports of all epochs so far.
            finished: Whether the fold is trained to its end.
        """
        self._finished = finished
        new = reports[self._epochs_done :]
        if not new:
            return
        self._epochs_done = len(reports)
        write_progress(self._model.progress(self._fold, "csv"), reports)
        for report in new:
            append_line(self._model.progress(self._fold, "jsonl"), report)
            self._call_trackers(lambda tracker, report=report: tracker.log(report))  # type: ignore[misc]
        if finished or reports[-1].elapsed_seconds - self._drawn_at > SECONDS_BETWEEN_PICTURES:
            draw_progress(self._model.progress(self._fold, "png"), reports)
            self._drawn_at = reports[-1].elapsed_seconds

    def close(self) -> None:
        """Closes the trackers, because the run ended. May be called again."""
        self._call_trackers(lambda tracker: tracker.close(finished=self._finished))
        self._trackers.clear()

    def _call_trackers(self, call: Callable[[Tracker], None]) -> None:
        """Calls all trackers; drops one that fails, such as when its server is away, which must not end a training."""
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # noqa: BLE001 - see above
                self._reporter.say(f"--log {name} failed, training goes on without it: {_first_line(error)}")
                del self._trackers[name]


@contextmanager
def open_log_files(
    fold: TrackedFold, trackers: Mapping[str, OpenTracker], reports: Sequence[EpochReport], reporter: Reporter
) -> Iterator[LogFiles]:
    """Returns a context with the open log files of a fold.

    Args:
        fold: The fold that is trained.
        trackers: What opens each tracker that was asked for, by name.
        reports: Reports of the epochs that were trained before; epochs beyond them, which were lost when the run ended,
            are cut from the log files.
        reporter: Told about trackers that fail.

    Raises:
        AutosegError: A tracker cannot be opened.
    """
    write_lines(fold.model.progress(fold.fold, "jsonl"), reports)
    opened = {name: _open(name, tracker, fold) for name, tracker in trackers.items()}
    log_files = LogFiles(fold.model, fold.fold, opened, reporter, len(reports))
    try:
        yield log_files
    finally:
        log_files.close()


def _open(name: str, tracker: OpenTracker, fold: TrackedFold) -> Tracker:
    try:
        return tracker(fold)
    except Exception as error:
        what = f"--log {name} cannot begin: {_first_line(error)}"
        raise AutosegError(what, "mend that, or leave the option out") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
