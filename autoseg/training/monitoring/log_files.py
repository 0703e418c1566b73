"""What people follow a run by: progress.jsonl, progress.csv, progress.png, and the trackers that they asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from autoseg.errors import AutosegError
from autoseg.runtime.reporting import Reporter
from autoseg.training.monitoring.curves import draw_progress
from autoseg.training.monitoring.progress import EpochReport, append_line, write_lines, write_progress
from autoseg.training.monitoring.tracking import OpenTracker, TrackedFold, Tracker
from autoseg.workspace import Fold, ModelFolder

SECONDS_BETWEEN_PICTURES = 30.0
"""Drawing the curves takes about a second, a short epoch not much more."""


class LogFiles:
    """The record of one fold, brought up to date after each epoch. Opened by `open_log_files`."""

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
            reports: Of all epochs so far.
            finished: Whether these were the last.
        """
        self._finished = finished
        new = reports[self._epochs_done :]
        if not new:
            return
        self._epochs_done = len(reports)
        write_progress(self._model.progress(self._fold, "csv"), reports)
        for report in new:
            append_line(self._model.progress(self._fold, "jsonl"), report)
            self._tell(lambda tracker, report=report: tracker.log(report))  # type: ignore[misc]
        if finished or reports[-1].elapsed_seconds - self._drawn_at > SECONDS_BETWEEN_PICTURES:
            draw_progress(self._model.progress(self._fold, "png"), reports)
            self._drawn_at = reports[-1].elapsed_seconds

    def close(self) -> None:
        """Tells the trackers that the run ended."""
        self._tell(lambda tracker: tracker.close(finished=self._finished))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        """Goes on without a tracker that fails, such as one whose server is away: a record must not cost a training."""
        for name, tracker in list(self._trackers.items()):
            try:
                what(tracker)
            except Exception as error:  # noqa: BLE001 - see above
                self._reporter.say(f"--log {name} failed, training goes on without it: {_first_line(error)}")
                del self._trackers[name]


@contextmanager
def open_log_files(
    fold: TrackedFold, trackers: Mapping[str, OpenTracker], reports: Sequence[EpochReport], reporter: Reporter
) -> Iterator[LogFiles]:
    """The record of a fold while it is trained.

    Args:
        fold: Which.
        trackers: What opens each of those that were asked for.
        reports: Of the epochs that were trained before; what the record holds beyond them was lost, and is cut.
        reporter: Is told of trackers that fail.

    Raises:
        AutosegError: A tracker cannot be opened.
    """
    write_lines(fold.model.progress(fold.fold, "jsonl"), reports)
    opened = {name: _open(name, tracker, fold) for name, tracker in trackers.items()}
    record = LogFiles(fold.model, fold.fold, opened, reporter, len(reports))
    try:
        yield record
    finally:
        record.close()


def _open(name: str, tracker: OpenTracker, fold: TrackedFold) -> Tracker:
    try:
        return tracker(fold)
    except Exception as error:
        what = f"--log {name} cannot begin: {_first_line(error)}"
        raise AutosegError(what, "mend that, or leave the option out") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
