"""How long work reports its progress: to a `Reporter`, which only the command line draws on the screen."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

MOST_NAMES = 5
"""Names that a message lists before it says only how many there are."""


def list_names(names: Iterable[object], *, most: int = MOST_NAMES, count_rest: bool = True) -> str:
    """Lists names for a message; of many, the first few.

    Args:
        names: What to list, in this order.
        most: Number of names that are listed at most.
        count_rest: Whether the number of further names is said. If not, three dots stand for them, for example where
            the message has said how many there are.

    Examples:
        >>> list_names(["liver", "spleen"])
        'liver, spleen'
        >>> list_names(range(10))
        '0, 1, 2, 3, 4 and 5 more'
        >>> list_names(range(10), most=3, count_rest=False)
        '0, 1, 2, ...'
    """
    texts = [str(name) for name in names]
    if len(texts) <= most:
        return ", ".join(texts)
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if count_rest else ", ...")


class Task(Protocol):
    """A piece of work of a known length."""

    def advance(self, units: float = 1) -> None:
        """Says that some units of the task's total are done."""


class Reporter(Protocol):
    """Receives the progress of work, and its messages."""

    def task(self, title: str, total: float) -> AbstractContextManager[Task]:
        """Opens a task that is done when it has advanced by `total` units."""

    def say(self, line: str) -> None:
        """Gives one message in a line, such as a decision of the planner or the result of an epoch."""


@runtime_checkable
class LogReporter(Reporter, Protocol):
    """A reporter that may write into a log file, which has no progress bar to tell what is done."""

    def log(self, line: str) -> None:
        """Gives a line that a progress bar makes needless, such as that a scan is done."""


def log_line(reporter: Reporter, line: str) -> None:
    """Gives a line for log files to a reporter that writes some; see `LogReporter`."""
    if isinstance(reporter, LogReporter):
        reporter.log(line)


def describe_item(title: str, number: int, total: int, name: str, problem: str | None = None) -> str:
    """Returns the line of a log file about one of many items that is done or has failed.

    Examples:
        >>> describe_item("importing", 3, 12, "liver_02")
        'importing: 3 of 12: liver_02'
        >>> describe_item("importing", 3, 12, "liver_02", "it is empty; replace it")
        'importing: 3 of 12: liver_02 failed: it is empty; replace it'
    """
    outcome = "" if problem is None else f" failed: {' / '.join(problem.splitlines())}"
    return f"{title}: {number} of {total}: {name}{outcome}"


class _SilentTask:
    def advance(self, units: float = 1) -> None:
        """Does nothing."""


class Silent:
    """A reporter that shows nothing: the default of the Python functions."""

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:  # noqa: ARG002 - the protocol's names
        """Opens a task that shows nothing."""
        yield _SilentTask()

    def say(self, line: str) -> None:
        """Does nothing."""


SILENT = Silent()
