"""Cases that are judged several times count once, and each repeat has a mean of its own."""

import math

import numpy as np
import pytest

from autoseg.evaluation.paired import compare_summaries
from autoseg.evaluation.repeats import average_repeats
from autoseg.evaluation.scores import UNDEFINED
from autoseg.evaluation.summary import CaseResult, Summary, summarize


def results(*dice):
    """Results of cases a, b, c, ... again and again, of one label."""
    return [
        CaseResult(name="abc"[number % 3], scores={"liver": UNDEFINED.model_copy(update={"dice": value})})
        for number, value in enumerate(dice)
    ]


def test_results_that_are_repeated_make_no_interval_narrower():
    """Three cases that are judged ten times alike have the interval of three cases."""
    once, often = (summarize(results(*[0.5, 0.7, 0.9] * times), ["liver"]) for times in (1, 10))
    assert often.mean["liver"].intervals["dice"] == once.mean["liver"].intervals["dice"]
    assert often.mean["liver"].dice == pytest.approx(0.7)
    assert often.repeats == pytest.approx([0.7] * 10)
    assert once.repeats == ()


def test_means_of_cases_in_part_of_a_repeat_are_not_compared():
    """A second repeat of which one fold is trained holds other cases than the first."""
    assert summarize(results(0.5, 0.7, 0.9, 0.4, 0.6), ["liver"]).repeats == ()


def test_undefined_results_do_not_count():
    """A case keeps the repeats in which its score is defined."""
    values = np.array([[0.2, math.nan], [math.nan, math.nan], [0.4, 0.5]])
    averages = average_repeats(values, ["a", "b", "a"])
    assert averages[0].tolist() == pytest.approx([0.3, 0.5])
    assert np.isnan(averages[1]).all()


def test_a_summary_of_repeats_survives_the_disk(tmp_path):
    """The results tell the repeats apart by their order, which files keep."""
    summary = summarize(results(0.5, 0.7, 0.9, 0.6, 0.8, 1.0), ["liver"])
    summary.save(tmp_path / "summary.json")
    assert Summary.load(tmp_path / "summary.json").repeats == pytest.approx([0.7, 0.8])
    assert [case.mean_dice for case in summary.ranked_cases()] == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_runs_with_repeats_are_compared_by_cases():
    """Two repeats of three cases are three differences, not six."""
    first = summarize(results(0.5, 0.7, 0.9, 0.5, 0.7, 0.9), ["liver"])
    second = summarize(results(0.6, 0.7, 0.9, 0.8, 0.7, 0.9), ["liver"])
    row = compare_summaries(first, second, names=("a", "b")).rows[0]
    assert (row.cases, row.wins, row.losses, row.ties) == (3, 1, 0, 2)
    assert row.difference == pytest.approx(0.2 / 3)
