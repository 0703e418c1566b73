"""Output on the terminal: progress bars with the remaining time, remarks, and tables; see `score_tables` for scores."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Table

from autoseg.runtime.reporting import Task
from autoseg.runtime.units import describe_memory

if TYPE_CHECKING:
    from autoseg.planning.plan import Plan

# Names and paths are printed unchanged, whatever brackets and colons they contain.
console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


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


class Terminal:
    """A reporter that draws progress bars, and prints remarks above them."""

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:
        """Draws a progress bar during the work; it remains when the work is done."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeftColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total)
            _bars.append(progress)
            try:
                yield _Bar(progress, task)
            finally:
                _bars.remove(progress)
            progress.update(task, completed=total)  # the fractions of a scan may add up to a little less than one

    def say(self, line: str) -> None:
        """Prints a remark."""
        console.print(line)


def print_plan(plan: "Plan", *, explain: bool) -> None:
    """Prints a table of the configurations and, with `explain`, the reason for every decision."""
    title = f"{plan.dataset}, by preset {plan.preset}"
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
    console.print(table)
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
    console.print(table)
