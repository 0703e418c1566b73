"""What people see: bars that fill, remarks as they were said, and tables."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.cli import terminal
from autoseg.cli.terminal import Terminal, print_table
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.errors import ImageError
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.runtime.thread_map import map_in_threads


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Gives the console a width that holds every line."""
    monkeypatch.setattr(terminal.console, "_width", 120)


def test_remarks_and_cells_are_shown_as_they_are(capsys):
    """Square brackets and colons in names and paths are no markup."""
    Terminal().say("wrote [bold]results[/bold] to a[0]:heart:.nii.gz")
    print_table("[b]names", ("case", "problem"), [("[red]a", "b[/]:heart:")])
    with Terminal().task("[/] reading", total=1) as task:
        task.advance(1)
    out = capsys.readouterr().out
    for text in ("[bold]results[/bold] to a[0]:heart:.nii", "[b]names", "[red]a", "b[/]:heart:"):
        assert text in out
    assert "[/] reading" in out


def test_bar_fills(capsys, monkeypatch):
    """Title and share are shown."""
    monkeypatch.setattr(terminal.console, "_force_terminal", True)
    with Terminal().task("training [0]", total=2) as task:
        task.advance(0.5)
        task.advance(1.5)
    out = capsys.readouterr().out
    assert "training [0]" in out
    assert "100%" in out


def test_the_report_is_named_at_a_terminal_alone(capsys, monkeypatch):
    """As a command that a shell takes, whatever the path holds."""
    terminal.suggest_report("scans", Path("my masks"))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(terminal.console, "_force_terminal", True)
    terminal.suggest_report("scans", Path("my masks"))
    terminal.suggest_report("model", "-d", 4, **{"--plan": None, "-w": Path("work")})
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "in a browser: autoseg report scans 'my masks'",
        "in a browser: autoseg report model -d 4 -w work",
    ]


def test_remarks_may_come_while_a_bar_is_drawn(capsys):
    """An epoch's line stands above the bar."""
    reporter = Terminal()
    with reporter.task("training", total=1) as task:
        reporter.say("epoch 0: loss 0.5")
        task.advance(1)
    assert "epoch 0: loss 0.5" in capsys.readouterr().out


def test_bar_stays_where_a_failure_left_it(capsys, monkeypatch):
    """An error passes through and the bar is closed."""
    monkeypatch.setattr(terminal.console, "_force_terminal", True)

    def fail():
        with Terminal().task("reading", total=4) as task:
            task.advance(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert " 25%" in capsys.readouterr().out


def test_a_plan_fits_the_narrowest_terminal(capsys, monkeypatch):
    """Names and numbers of all four configurations are shown whole in 80 columns; reasons only if asked for."""
    golden = Path(__file__).parents[1] / "golden" / "plans" / "LiverCT"
    options = PlanningOptions(dataset="Dataset503_LiverCT", memory_budget_bytes=8 * 10**9)
    plan = make_plan(
        read_fingerprint(golden / "dataset_fingerprint.json"), DatasetInfo.load(golden / "dataset.json"), options
    )
    monkeypatch.setattr(terminal.console, "_width", 80)
    terminal.print_plan(plan, explain=False)
    output = capsys.readouterr().out
    for name, one in plan.configurations.items():
        [row] = [line for line in output.splitlines() if line.split()[:1] == [name]]
        assert "x".join(f"{step:.3g}" for step in one.spacing_mm) in row
        assert "x".join(map(str, one.patch_size)) in row
    assert plan.why[0] not in output
    terminal.print_plan(plan, explain=True)
    output = capsys.readouterr().out
    assert all(f"- {sentence}\n" in output for sentence in plan.why)


def test_terminals_get_no_control_codes_from_names(capsys):
    """Remarks, tables and titles of bars show them as escapes, and keep their lines."""
    name = "liver\x1b[31m\x9b2J"
    Terminal().say(f"first line\n{name}")
    print_table("names", ("case",), [(name,)])
    with Terminal().task(name, total=1):
        pass
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert "\x9b" not in out
    assert "first line\nliver\\x1b[31m\\x9b2J" in out
    assert out.count("liver\\x1b[31m\\x9b2J") >= 3


class Flushed(io.StringIO):
    """A file that notes what is in it whenever it is flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def flush(self) -> None:
        """Notes the lines that a reader of the file sees by now."""
        self.seen.append(self.getvalue())


def double(number: int) -> int:
    """Fails for one number."""
    if number == 2:
        raise ImageError("it is empty", "replace it")
    return 2 * number


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb", "FORCE_COLOR": "1"}, {"NO_COLOR": "1"}], ids=str)
def test_a_log_file_has_a_line_for_each_item_as_it_happens(monkeypatch, environment):
    """Without bars: a line for each stage and item, failures too, each of which is flushed at once."""
    log = Flushed()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(terminal.console, "_environ", os.environ)
    monkeypatch.setattr(sys, "stdout", log)
    reporter = Terminal()
    map_in_threads(double, [1, 2, 3], title="doubling", reporter=reporter, most_workers=1)
    reporter.say("a remark")
    assert log.getvalue().splitlines() == [
        "doubling: begins",
        "doubling: 1 of 3: 1",
        "doubling: 2 of 3: 2 failed: it is empty; replace it",
        "doubling: 3 of 3: 3",
        "doubling: done, 0 s",
        "a remark",
    ]
    assert [text.count("\n") for text in dict.fromkeys(log.seen)] == [1, 2, 3, 4, 5, 6]
    reporter.log("reading: 1 of 1: liver\n1")
    assert log.getvalue().splitlines()[-1] == r"reading: 1 of 1: liver\n1"


def test_a_task_without_items_gives_signs_of_life(monkeypatch, capsys):
    """Its share, once in a while, and only if it has grown."""
    clock = iter(range(0, 100000, 40))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with Terminal().task("segmenting", total=4) as task:
        for _ in range(8):
            task.advance(0.25)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "segmenting: begins"
    assert lines[1:-1] == [f"segmenting: {percent} %" for percent in (12, 25, 37, 50)]
    with Terminal().task("nothing to do", total=0):
        pass
    assert capsys.readouterr().out == ""


def test_a_pipe_that_nobody_reads_ends_no_work(tmp_path):
    """What is printed later goes nowhere, and the program ends as usual; a pipe holds half of what is printed."""
    code = "from autoseg.cli.terminal import console\nfor _ in range(20000): console.print('a line')\nopen('done', 'w')"
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path)
    program.stdout.readline()
    program.stdout.close()
    assert program.wait(60) == 0
    assert (tmp_path / "done").exists()
