"""Paired comparison of two runs: differences, wins, and runs that cannot be compared."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from autoseg.errors import DatasetError
from autoseg.evaluation.paired import FOREGROUND, Comparison, compare_summaries
from autoseg.evaluation.scores import LabelScores
from autoseg.evaluation.summary import CaseResult, summarize

NAMES = ("runs/a", "runs/b")


def scores(dice, *, hd95_mm=math.nan, error=math.nan, reference=100):
    """Makes the scores of a label, of which only a few are given."""
    return LabelScores(
        dice=dice,
        iou=dice / (2 - dice),
        hd95_mm=hd95_mm,
        volume_error_mm3=error,
        true_positive=reference,
        false_positive=0,
        false_negative=0,
        reference_volume_mm3=100.0,
        predicted_volume_mm3=100.0,
    )


def run_of(cases, **options):
    """Makes a run from case names, label names and scores."""
    results = [CaseResult(name=name, scores=labels) for name, labels in cases.items()]
    return summarize(results, list(results[0].scores), **options)


def compare(first, second):
    """Returns the rows by label and metric, and the comparison."""
    comparison = compare_summaries(run_of(first), run_of(second), names=NAMES)
    return {(row.label, row.metric): row for row in comparison.rows}, comparison


def random_runs():
    """Makes the Dice of 12 cases and two labels in two runs, of which the second is mostly better."""
    random = np.random.default_rng(5)
    first = random.uniform(0.5, 0.8, size=(12, 2))
    return first, first + random.normal(0.05, 0.04, size=(12, 2))


def test_rows_say_by_how_much_and_how_sure():
    """Mean differences, intervals, SciPy's p values and wins agree, for each label and for the foreground."""
    values = random_runs()
    runs = [
        {f"case_{n}": {"liver": scores(a), "spleen": scores(b)} for n, (a, b) in enumerate(of_run)} for of_run in values
    ]
    rows, comparison = compare(*runs)
    differences = values[1] - values[0]
    for column, label in enumerate(("liver", "spleen")):
        row, difference = rows[label, "dice"], differences[:, column]
        assert (row.first, row.second) == pytest.approx((values[0][:, column].mean(), values[1][:, column].mean()))
        assert row.difference == pytest.approx(difference.mean())
        assert row.interval[0] < row.difference < row.interval[1]
        assert row.p_value == pytest.approx(wilcoxon(difference).pvalue)
        assert (row.wins, row.losses, row.ties) == ((difference > 0).sum(), (difference < 0).sum(), 0)
    foreground = rows[FOREGROUND, "dice"]
    assert foreground.difference == pytest.approx(differences.mean())
    assert foreground.p_value == pytest.approx(wilcoxon(differences.mean(axis=1)).pvalue)
    assert comparison.rows[0] == foreground
    assert (comparison.first, comparison.second) == NAMES


def test_shorter_distances_and_smaller_errors_are_better():
    """The second run wins where its distance is shorter, or its volume error smaller, whatever its sign."""
    first = {"a": {"liver": scores(0.5, hd95_mm=4.0, error=-30.0)}, "b": {"liver": scores(0.5, hd95_mm=1.0, error=5.0)}}
    second = {"a": {"liver": scores(0.5, hd95_mm=2.0, error=20.0)}, "b": {"liver": scores(0.5, hd95_mm=2.5, error=5.0)}}
    rows, _ = compare(first, second)
    assert [(row.wins, row.losses, row.ties) for (label, _), row in rows.items() if label == "liver"] == [
        (0, 0, 2),
        (0, 0, 2),
        (1, 1, 0),
        (1, 0, 1),
    ]
    assert rows["liver", "hd95_mm"].difference == pytest.approx(-0.25)
    assert rows["liver", "volume_error_mm3"].difference == pytest.approx(-5)
    assert rows["liver", "dice"].p_value == 1


def test_only_what_both_have_is_compared():
    """Cases and labels of one run are named; cases with a score that is undefined in one run do not count."""
    first = {name: {"liver": scores(0.5), "cyst": scores(0.5)} for name in ("a", "b", "c")}
    second = {name: {"liver": scores(0.75), "vein": scores(0.5)} for name in ("b", "c", "d")}
    second["c"]["liver"] = scores(math.nan)
    rows, comparison = compare(first, second)
    assert comparison.cases == ("b", "c")
    assert comparison.only_first == ("a", "cyst")
    assert comparison.only_second == ("d", "vein")
    assert {label for label, _ in rows} == {"liver", FOREGROUND}
    assert {metric for _, metric in rows} == {"dice", "iou"}  # the others are undefined everywhere
    row = rows["liver", "dice"]
    assert (row.cases, row.first, row.second, row.wins) == (1, 0.5, 0.75, 1)
    assert math.isnan(row.interval[0])


def test_runs_on_other_data_are_refused():
    """For no common case, other references or another tolerance, the error says what differs."""
    one = {"a": {"liver": scores(0.5)}}
    with pytest.raises(DatasetError, match="no case or no label in common"):
        compare(one, {"b": {"liver": scores(0.5)}})
    with pytest.raises(DatasetError, match="no case or no label in common"):
        compare(one, {"a": {"spleen": scores(0.5)}})
    with pytest.raises(DatasetError, match=r"case 'a': the references .* differ: 'liver' has 100 and 90 voxels"):
        compare(one, {"a": {"liver": scores(0.5, reference=90)}})
    with pytest.raises(DatasetError, match=r"at 1 and at 2.5 mm; evaluate both with the same --tolerance"):
        compare_summaries(run_of(one), run_of(one, tolerance_mm=2.5), names=NAMES)


def test_files_hold_the_comparison(tmp_path):
    """The JSON file gives the same comparison; the table has a row each, with both ends of the interval."""
    values = random_runs()
    _, comparison = compare(*({str(n): {"x": scores(a)} for n, (a, _) in enumerate(of_run)} for of_run in values))
    comparison.save(tmp_path / "c.json")
    assert Comparison.load(tmp_path / "c.json") == comparison
    assert json.loads((tmp_path / "c.json").read_text())["rows"][0]["label"] == FOREGROUND
    comparison.save_csv(tmp_path / "c.csv")
    table = pd.read_csv(tmp_path / "c.csv")
    assert len(table) == len(comparison.rows)
    assert (table["low"][0], table["high"][0]) == pytest.approx(comparison.rows[0].interval)
    assert "interval" not in table
