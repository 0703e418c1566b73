"""Confidence intervals of means, and the test of paired differences."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation import statistics
from autoseg.evaluation.statistics import ENDS, RESAMPLES, bootstrap_means, draw_resamples, signed_rank_p

SCORES = st.floats(0, 1) | st.just(math.nan)


def intervals_of(values, seed=0):
    """Computes the intervals of scores of shape (cases, labels)."""
    values = np.asarray(values, dtype=float)
    return bootstrap_means(values, draw_resamples(len(values), np.random.default_rng(seed)))


def naive_mean(values):
    """Returns the mean of the defined values."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def naive_ends(means):
    """Returns percentiles of the defined values."""
    return np.percentile([mean for mean in means if not math.isnan(mean)], ENDS)


@given(st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=6))
@settings(max_examples=15, deadline=None)
def test_intervals_equal_resampling_case_by_case(values):
    """Resampling case by case, with means over the defined values, gives the same intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 60)
        drawn = draw_resamples(len(values), np.random.default_rng(3))
    labels, foreground = bootstrap_means(np.array(values), drawn)
    means = []
    for counts in drawn:
        cases = [case for case, count in zip(values, counts, strict=True) for _ in range(int(count))]
        means.append([naive_mean(scores) for scores in zip(*cases, strict=True)])
    for label, of_label in enumerate(zip(*means, strict=True)):
        defined = sum(not math.isnan(case[label]) for case in values)
        expected = naive_ends(of_label) if defined > 1 else [math.nan, math.nan]
        assert labels[label] == pytest.approx(tuple(expected), nan_ok=True)
    if sum(not all(map(math.isnan, case)) for case in values) > 1:
        assert foreground == pytest.approx(tuple(naive_ends([naive_mean(of_labels) for of_labels in means])))


def test_each_resample_has_as_many_cases():
    """Cases are drawn with replacement: some twice, some not at all."""
    drawn = draw_resamples(7, np.random.default_rng(0))
    assert drawn.shape == (RESAMPLES, 7)
    assert (drawn.sum(axis=1) == 7).all()
    assert drawn.max() > 1
    assert drawn.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)


def test_intervals_of_many_cases_are_those_of_the_normal_distribution():
    """For normal scores the interval is the mean plus and minus 1.96 standard errors."""
    values = np.random.default_rng(1).normal(0.8, 0.1, size=(400, 1))
    [(low, high)], foreground = intervals_of(values)
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)
    assert foreground == (low, high)


def test_the_same_seed_gives_the_same_intervals():
    """The same seed gives the same interval, and another one nearly the same."""
    values = np.random.default_rng(2).random((30, 2))
    assert intervals_of(values) == intervals_of(values)
    assert intervals_of(values, seed=1) != intervals_of(values)
    assert np.array(intervals_of(values, seed=1)[0]) == pytest.approx(np.array(intervals_of(values)[0]), abs=0.01)


@pytest.mark.parametrize("values", [np.zeros((0, 2)), [[0.5, math.nan]], [[math.nan, math.nan]] * 3])
def test_fewer_than_two_cases_have_no_interval(values):
    """The variation between cases is unknown for a single case."""
    labels, foreground = intervals_of(values)
    assert np.isnan([*labels, foreground]).all()


@given(st.lists(st.integers(-40, 40).filter(bool), min_size=1, max_size=9, unique_by=abs))
@settings(max_examples=25, deadline=None)
def test_p_equals_the_share_of_all_signs(differences):
    """Without ties, the p value is the share of all choices of signs that are as far from the middle."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    middle = ranks.sum() / 2

    def distance(signs):
        return abs(sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) - middle)

    every = [distance(signs) for signs in product((False, True), repeat=len(ranks))]
    actual = distance([difference > 0 for difference in differences])
    share = sum(one >= actual for one in every) / len(every)
    assert signed_rank_p([float(one) for one in differences]) == pytest.approx(share)
    assert signed_rank_p([*map(float, differences), 0.0, 0.0]) == pytest.approx(share)


def test_without_a_difference_nothing_is_shown():
    """The p value is 1 if all cases are the same, and undefined without cases."""
    assert signed_rank_p([0.0, 0.0]) == 1
    assert math.isnan(signed_rank_p([]))
