"""Tables of scores: the worst cases, means with intervals, and two runs beside each other."""

import math

import pytest

from autoseg.cli import terminal
from autoseg.cli.score_tables import MOST_CASES, WIDEST, print_comparison, print_scores
from autoseg.evaluation.paired import Comparison, compare_summaries
from autoseg.evaluation.scores import METRICS, LabelScores
from autoseg.evaluation.summary import CaseResult, Summary, summarize

LABELS = {"liver": 1, "spleen": 2}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Gives the console the width that tables are made for."""
    monkeypatch.setattr(terminal.console, "_width", WIDEST)


def scores(dice: float, **others: float) -> LabelScores:
    """Scores of which only the Dice matters, and those that are given."""
    return LabelScores(
        dice=dice,
        iou=dice / (2 - dice),
        true_positive=1,
        false_positive=0,
        false_negative=0,
        reference_volume_mm3=1.0,
        predicted_volume_mm3=1.0,
        **others,
    )


def summary_of(cases: dict[str, tuple[float, ...]], labels=LABELS, **others: float) -> Summary:
    """A summary of cases with these Dice of the labels."""
    results = [
        CaseResult(name=name, scores={label: scores(one, **others) for label, one in zip(labels, dice, strict=True)})
        for name, dice in cases.items()
    ]
    return summarize(results, labels)


def rows_of(output: str) -> dict[str, str]:
    """Lines by their first word, with single spaces."""
    return {line.split()[0]: " ".join(line.split()) for line in output.splitlines() if line.split()}


def test_scores_are_listed_from_the_worst(capsys):
    """A row per case, a column per label, the means below; what is undefined is a dash."""
    print_scores(summary_of({"good": (0.9, 0.8), "bad": (0.1, math.nan)}), title="two cases")
    out = capsys.readouterr().out
    assert "two cases: Dice" in out
    assert out.index("bad") < out.index("good")
    rows = rows_of(out.split("means over")[0])
    assert rows["bad"] == "bad 0.100 –"  # noqa: RUF001
    assert rows["mean"] == "mean 0.500 0.800"
    assert "mean foreground Dice 0.650, IoU 0.551" in out


def test_only_the_worst_of_many_cases_are_shown(capsys):
    """The table says how many it leaves out; the means are of all."""
    print_scores(summary_of({f"case_{n:02d}": (n / 100, n / 100) for n in range(50)}), title="many")
    out = capsys.readouterr().out
    assert f"the worst {MOST_CASES} of 50" in out
    assert "case_19" in out
    assert "case_20" not in out
    assert "mean foreground Dice 0.245" in out


def test_means_of_all_metrics_have_their_intervals(capsys):
    """A row per metric, with its unit, the tolerance of NSD, and percent; metrics that nobody measured are left out."""
    others = dict.fromkeys(METRICS.keys() - {"dice", "iou", "lesion_f1"}, 0.25)
    print_scores(summary_of({"a": (0.9, 0.8), "b": (0.7, 0.8)}, **others), title="two")
    rows = rows_of(capsys.readouterr().out.split("means over 2 cases")[1])
    assert rows["NSD"] == "NSD at 1 mm" + 3 * " 0.250 (0.250 to 0.250)"
    assert rows["HD95,"] == "HD95, mm" + 3 * " 0.25 (0.25 to 0.25)"
    assert rows["volume"] == "volume error, %" + 3 * " 25.0 (25.0 to 25.0)"
    assert rows["IoU"].startswith("IoU 0.678 (0.538 to 0.818) 0.667 (0.667 to 0.667)")
    assert "lesion" not in rows


def test_one_case_has_no_interval(capsys):
    """Its means are its scores."""
    print_scores(summary_of({"only": (0.9, 0.8)}), title="1 case")
    out = capsys.readouterr().out
    assert "means over 1 case (" in out
    assert rows_of(out)["Dice"] == "Dice 0.900 0.800 0.850"


def test_one_label_is_its_own_foreground(capsys):
    """No column or row repeats another."""
    print_scores(summary_of({"a": (0.9,)}, labels=["liver"]), title="1 case")
    assert rows_of(capsys.readouterr().out)["Dice"] == "Dice 0.900"
    print_comparison(comparison_of(["liver"], (0.5,), (0.75,)))
    assert "foreground" not in capsys.readouterr().out


def test_many_labels_have_a_row_each(capsys):
    """A hundred structures would be too wide a table; their means are listed, Dice with its interval."""
    labels = [f"rib_{number}" for number in range(1, 25)]
    print_scores(summary_of({f"case_{n}": (n / 4,) * 24 for n in range(1, 4)}, labels, nsd=0.75), title="ribs")
    out = capsys.readouterr().out
    assert "ribs: means over 3 cases" in out
    assert "case_1" not in out
    assert (
        sum(
            "rib_" in line and "0.500 (0.250 to 0.750) 0.359 0.750" in " ".join(line.split())
            for line in out.splitlines()
        )
        == 24
    )
    assert "mean foreground 0.500 (0.250 to 0.750)" in " ".join(out.split())


@pytest.mark.parametrize(
    "labels", [list(LABELS), ["a", "b", "c", "d"], [f"vertebra of the neck {n}" for n in range(9)]]
)
def test_tables_fit_the_terminal(labels, capsys):
    """A hundred columns hold every line and every number whole."""
    others = {"nsd": 0.123, "hd95_mm": 123.4, "assd_mm": 12.34, "volume_error_mm3": -123456.0, "lesion_f1": 0.5}
    runs = [
        summary_of({f"c{n}": (n / 8,) * len(labels) for n in range(start, 7)}, labels, **others) for start in (0, 1)
    ]
    print_scores(runs[0], title="cases")
    print_comparison(compare_summaries(*runs, names=("a", "b")))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDEST
    assert "…" not in out
    for text in ("123.40", "12.34", "0.375"):
        assert text in out


def comparison_of(labels=LABELS, first=(0.5, 0.25), second=(0.75, 0.25)) -> Comparison:
    """Two runs with these Dice in three cases; the first has a case more."""
    cases = [dict.fromkeys(names, dice) for dice, names in ((first, "abcx"), (second, "abc"))]
    return compare_summaries(*(summary_of(one, labels) for one in cases), names=("runs/a", "runs/b"))


def test_two_runs_stand_beside_each_other(capsys):
    """Means, the difference with its interval, p, and in how many cases the second is better, worse and the same."""
    print_comparison(comparison_of())
    out = capsys.readouterr().out
    for text in ("A: runs/a", "B: runs/b", "left out, since only A has them: x", "3 cases of both runs"):
        assert text in out
    dice = [" ".join(line.split()) for line in out.splitlines() if line.startswith("   Dice")]
    assert dice == [
        "Dice 0.375 0.500 0.125 (0.125 to 0.125) 0.250 3 0 0",
        "Dice 0.500 0.750 0.250 (0.250 to 0.250) 0.250 3 0 0",
        "Dice 0.250 0.250 0.000 (0.000 to 0.000) 1.000 0 0 3",
    ]
    for heading in ("mean foreground", "liver", "spleen"):
        assert f" {heading}" in out


def test_of_many_labels_the_dice_is_compared(capsys):
    """After all metrics of the foreground."""
    labels = [f"rib_{number}" for number in range(1, 25)]
    print_comparison(comparison_of(labels, (0.5,) * 24, (0.75,) * 24))
    out = capsys.readouterr().out
    assert sum("Dice of rib_" in line and "0.250 (0.250 to 0.250)" in line for line in out.splitlines()) == 24
    assert sum("IoU" in line for line in out.splitlines()) == 1


def test_names_are_shown_as_they_are(capsys):
    """Square brackets in names and paths are no markup."""
    print_scores(summary_of({"[/]case": (1.0, 1.0)}, ["[b]liver", "a:heart:"]), title="[/]")
    out = capsys.readouterr().out
    for text in ("[/]case", "[b]liver", "a:heart:", "[/]: Dice"):
        assert text in out
