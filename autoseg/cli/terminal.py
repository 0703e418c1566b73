"""What people see: progress bars with the time that is left, remarks, and tables; scores have `score_tables`."""

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

# Names and paths are shown as they are, whatever brackets and colons they hold.
console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, units: float = 1) -> None:
        """Moves the bar on."""
        self._progress.update(self._task, advance=units)


class Terminal:
    """A reporter that draws bars and prints remarks above them."""

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:
        """Draws a bar while the work goes on; it stays when the work is done."""
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
            yield _Bar(progress, task)
            progress.update(task, completed=total)  # shares of a scan may add up to a little less than one

    def say(self, line: str) -> None:
        """Prints a remark."""
        console.print(line)


def print_plan(plan: "Plan", *, explain: bool) -> None:
    """Prints a table of the configurations and, if asked for, a sentence for every decision."""
    title = f"{plan.dataset}, by preset {plan.preset}"
    table = Table(
        "configuration", title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1)
    )
    for column in ("voxels in mm", "typical image", "patch", "batch", "memory"):
        table.add_column(column, justify="right")
    for name, one in plan.configurations.items():
        table.add_row(
            name,
            "x".join(f"{step:.3g}" for step in one.spacing_mm),
            "x".join(map(str, one.median_shape)),
            "x".join(map(str, one.patch_size)),
            str(one.batch_size),
            describe_memory(one.estimated_bytes),
        )
    console.print(table)
    if explain:
        for sentence in plan.why:
            console.print(f"- {sentence}")
    else:
        console.print("the reason for each decision: --explain, or plan.json")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a plain table; words that are too long for it, such as paths, go on in the next line."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
