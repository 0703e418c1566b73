"""Agreement against the true Dice, beside a rank correlation by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.scores import UNDEFINED
from autoseg.evaluation.summary import CaseResult
from autoseg.report.failure_score import FEWEST_CASES, judge_agreement

NAN = float("nan")


def case(agreement: float, dice: float) -> CaseResult:
    """A case of one label."""
    scores = {"liver": UNDEFINED.model_copy(update={"dice": dice})}
    return CaseResult(name="a", scores=scores, agreement=agreement)


@settings(deadline=None)
@given(st.permutations(range(7)))
def test_correlation_is_that_of_the_ranks(order):
    """Source of the formula without ties: Spearman, 1904."""
    results = [case(0.5 + rank / 20, 0.2 + number / 10) for number, rank in enumerate(order)]
    squares = sum((number - rank) ** 2 for number, rank in enumerate(order))
    assert judge_agreement(results).spearman == pytest.approx(1 - 6 * squares / (7 * 48), abs=1e-5)


def test_cases_without_both_do_not_count():
    """And without any there is nothing to say."""
    assert judge_agreement([case(NAN, 0.5), case(0.5, NAN)]) is None
    assert judge_agreement([case(NAN, 0.5), case(0.5, 0.5)]).cases == 1


@pytest.mark.parametrize("agreement", [np.full(6, 0.9), np.arange(FEWEST_CASES - 1) / 10])
def test_equal_or_few_cases_have_no_correlation(agreement):
    """But a drawing."""
    score = judge_agreement([case(float(value), number / 10) for number, value in enumerate(agreement)])
    assert math.isnan(score.spearman)
    assert len(score.chart.series[0].dots) == len(agreement)
