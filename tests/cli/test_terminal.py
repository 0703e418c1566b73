"""What people see: bars that fill, remarks as they were said, and tables with means."""

import math
from pathlib import Path

import pytest

from autoseg.cli import terminal
from autoseg.cli.terminal import MOST_CASES, Terminal, print_scores, print_table
from autoseg.evaluation.summary import CaseResult, LabelScores, Summary, summarize
from autoseg.importing.nnunet import read_fingerprint
from autoseg.info import DatasetInfo
from autoseg.planning.planner import PlanningOptions, make_plan

LABELS = {"liver": 1, "spleen": 2}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Gives the console a width that holds every line."""
    monkeypatch.setattr(terminal.console, "_width", 120)


def scores(dice: float) -> LabelScores:
    """Scores of which only the Dice matters."""
    return LabelScores(
        dice=dice,
        iou=dice / (2 - dice),
        true_positive=1,
        false_positive=0,
        false_negative=0,
        reference_volume_mm3=1.0,
        predicted_volume_mm3=1.0,
    )


def summary_of(cases: dict[str, tuple[float, float]]) -> Summary:
    """A summary of cases with these Dice of liver and spleen."""
    results = [
        CaseResult(name=name, scores=dict(zip(LABELS, map(scores, dice), strict=True))) for name, dice in cases.items()
    ]
    return summarize(results, LABELS)


def test_scores_are_listed_from_the_worst(capsys):
    """A row per case, a column per label, the means below; what is undefined is a dash."""
    print_scores(summary_of({"good": (0.9, 0.8), "bad": (0.1, math.nan)}), title="two cases")
    out = capsys.readouterr().out
    assert "two cases: Dice / IoU" in out
    assert out.index("bad") < out.index("good")
    rows = {line.split()[1]: " ".join(line.split()) for line in out.splitlines() if len(line.split()) > 5}
    assert "0.100 / 0.053 │ – / –" in rows["bad"]  # noqa: RUF001
    assert "0.500 / 0.435 │ 0.800 / 0.667" in rows["mean"]
    assert "mean foreground Dice 0.650" in out


def test_only_the_worst_of_many_cases_are_shown(capsys):
    """The table says how many it leaves out; the means are of all."""
    print_scores(summary_of({f"case_{n:02d}": (n / 100, n / 100) for n in range(50)}), title="many")
    out = capsys.readouterr().out
    assert f"the worst {MOST_CASES} of 50" in out
    assert "case_19" in out
    assert "case_20" not in out
    assert "mean foreground Dice 0.245" in out


def test_many_labels_have_a_row_each(capsys):
    """A hundred structures would be too wide a table; their means are listed."""
    labels = {f"rib_{number}": number for number in range(1, 25)}
    cases = [CaseResult(name=f"case_{n}", scores=dict.fromkeys(labels, scores(n / 4))) for n in range(1, 4)]
    print_scores(summarize(cases, labels), title="ribs")
    out = capsys.readouterr().out
    assert "ribs: mean over 3 cases" in out
    assert sum("rib_" in line and "0.500 / 0.359" in line for line in out.splitlines()) == 24


def test_remarks_and_cells_are_shown_as_they_are(capsys):
    """Square brackets and colons in names and paths are no markup."""
    Terminal().say("wrote [bold]results[/bold] to a[0]:heart:.nii.gz")
    print_table("[b]names", ("case", "problem"), [("[red]a", "b[/]:heart:")])
    print_scores(summary_of({"[/]case": (1.0, 1.0)}), title="[/]")
    with Terminal().task("[/] reading", total=1) as task:
        task.advance(1)
    out = capsys.readouterr().out
    for text in ("[bold]results[/bold] to a[0]:heart:.nii", "[b]names", "[red]a", "b[/]:heart:", "[/]case"):
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
