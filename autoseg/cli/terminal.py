"""Output on the terminal: progress bars with the remaining time, remarks, and tables; see `score_tables` for scores."""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Table
from rich.text import Text

from autoseg.runtime.printable import printable
from autoseg.runtime.reporting import Task
from autoseg.runtime.units import describe_duration, describe_memory

if TYPE_CHECKING:
    from autoseg.planning.plan import Plan


class _Console(Console):
    """A console that shows control codes in names and paths as escapes, so that the terminal does not obey them.

    Once nobody reads its pipe it prints into nothing, so that a night's work does not end with it.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a text as it is drawn."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    def on_broken_pipe(self) -> None:
        """Leads the output nowhere from now on."""
        self.quiet = True
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())

    @contextmanager
    def at_least(self, columns: int) -> Iterator[None]:
        """Takes the terminal to be so many columns wide, if it is narrower."""
        given, self._width = self._width, max(self.width, columns)
        try:
            yield
        finally:
            self._width = given


# Names and paths are printed unchanged, whatever brackets and colons they contain.
console = _Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


NARROWEST = 80
"""Columns that tables take at least. Decision: what they are made for; fewer would cut numbers off."""

SECONDS_BETWEEN_SHARES = 60.0

_bars: list[Progress] = []
"""The progress bars that are being drawn."""


def close_bars() -> None:
    """Stops drawing progress bars, and shows the cursor again, because the process is about to end."""
    for progress in _bars[:]:
        progress.stop()


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, units: float = 1) -> None:
        """Advances the bar."""
        self._progress.update(self._task, advance=units)


def draws_bars() -> bool:
    """Returns whether the output is a terminal that can draw progress bars, and no file, pipe or dumb terminal."""
    return console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)


class _LoggedTask:
    """A task in a log file: its share is written once a minute if it has grown, as a sign of life."""

    def __init__(self, title: str, total: float) -> None:
        self._title, self._total, self._done = title, total, 0.0
        self._written_at, self._written = time.monotonic(), 0

    def advance(self, units: float = 1) -> None:
        """Notes the progress."""
        self._done += units
        now, percent = time.monotonic(), int(100 * self._done / self._total) if self._total else 0
        if now - self._written_at >= SECONDS_BETWEEN_SHARES and percent > self._written:
            self._written_at, self._written = now, percent
            console.print(f"{self._title}: {percent} %")


def suggest_report(*words: object, **options: object) -> None:
    """Names the command that shows results in a browser, to whoever sits at a terminal; no log needs it.

    Args:
        words: What stands after "autoseg report".
        options: Further options; those without a value are left out.
    """
    if draws_bars():
        given = [str(word) for name, value in options.items() if value is not None for word in (name, value)]
        console.print(f"in a browser: autoseg report {shlex.join([*map(str, words), *given])}")


class Terminal:
    """A reporter that draws progress bars, and prints remarks above them.

    Into a file or a pipe it prints a line when a task begins and ends, and for each item that is done, as it happens.
    """

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:
        """Draws a progress bar during the work, which remains when the work is done; or prints lines for a log."""
        if draws_bars():
            with self._draw_bar(title, total) as bar:
                yield bar
            return
        if total:
            console.print(f"{title}: begins")
        started = time.monotonic()
        yield _LoggedTask(title, total)
        if total:
            console.print(f"{title}: done, {describe_duration(time.monotonic() - started)}")

    @contextmanager
    def _draw_bar(self, title: str, total: float) -> Iterator[Task]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeftColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(printable(title), total=total)
            _bars.append(progress)
            try:
                yield _Bar(progress, task)
            finally:
                _bars.remove(progress)
            progress.update(task, completed=total)  # the fractions of a scan may add up to a little less than one

    def say(self, line: str) -> None:
        """Prints a remark."""
        console.print(line)

    def log(self, line: str) -> None:
        """Prints a line into a log; a progress bar tells as much. Line breaks, as in names of files, are escaped."""
        if not draws_bars():
            console.print(printable(line))


def print_whole(table: RenderableType) -> None:
    """Prints a table at least `NARROWEST` columns wide: on a narrower terminal its rows run on in the next line.

    Squeezed into fewer columns, it would be cut off or have a letter in each line.
    """
    with console.at_least(NARROWEST):
        console.print(table)


def print_plan(plan: "Plan", *, explain: bool) -> None:
    """Prints a table of the configurations and, with `explain`, the reason for every decision."""
    from autoseg.planning.spacing import name_axes

    title = f"{plan.dataset}, by preset {plan.preset}; sizes along {name_axes(plan.axis_order, 3)}"
    table = Table(
        "configuration", title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1)
    )
    for column in ("voxels in mm", "typical image", "patch", "batch", "memory"):
        table.add_column(column, justify="right")
    for name, configuration in plan.configurations.items():
        table.add_row(
            name,
            "x".join(f"{step:.3g}" for step in configuration.spacing_mm),
            "x".join(map(str, configuration.median_shape)),
            "x".join(map(str, configuration.patch_size)),
            str(configuration.batch_size),
            describe_memory(configuration.estimated_bytes),
        )
    print_whole(table)
    if explain:
        for sentence in plan.why:
            console.print(f"- {sentence}")
    else:
        console.print("the reason for each decision: --explain, or plan.json")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a plain table; words that are too long for a column, such as paths, are wrapped."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    print_whole(table)
