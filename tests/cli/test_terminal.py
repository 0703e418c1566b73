"""What people see: bars that fill, remarks as they were said, and tables."""

from pathlib import Path

import pytest

from autoseg.cli import terminal
from autoseg.cli.terminal import Terminal, print_table
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.planning.planner import PlanningOptions, make_plan


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


def test_bar_fills(capsys):
    """Title and share are shown."""
    with Terminal().task("training [0]", total=2) as task:
        task.advance(0.5)
        task.advance(1.5)
    out = capsys.readouterr().out
    assert "training [0]" in out
    assert "100%" in out


def test_remarks_may_come_while_a_bar_is_drawn(capsys):
    """An epoch's line stands above the bar."""
    reporter = Terminal()
    with reporter.task("training", total=1) as task:
        reporter.say("epoch 0: loss 0.5")
        task.advance(1)
    assert "epoch 0: loss 0.5" in capsys.readouterr().out


def test_bar_stays_where_a_failure_left_it(capsys):
    """An error passes through and the bar is closed."""

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
