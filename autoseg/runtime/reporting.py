"""How long work tells that it goes on. Stages report to a `Reporter`; only the command line draws it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work with a known length."""

    def advance(self, units: float = 1) -> None:
        """Moves on by some units of the task's total."""


class Reporter(Protocol):
    """Where progress and remarks go."""

    def task(self, title: str, total: float) -> AbstractContextManager[Task]:
        """Opens a task that counts up to `total`."""

    def say(self, line: str) -> None:
        """States one finished fact, such as a decision of the planner or the result of an epoch."""


class _SilentTask:
    def advance(self, units: float = 1) -> None:
        """Says nothing."""


class Silent:
    """A reporter that says nothing: the default of the Python functions."""

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:  # noqa: ARG002 - the protocol's names
        """Opens a task that nobody watches."""
        yield _SilentTask()

    def say(self, line: str) -> None:
        """Says nothing."""


SILENT = Silent()
