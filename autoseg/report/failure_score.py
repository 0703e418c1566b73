"""Whether the agreement of a model with itself tells which segmentations are bad, on cases whose truth is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.evaluation.summary import CaseResult
from autoseg.report.charts import Chart, Frame, Series, make_chart

FEWEST_CASES = 4
"""Cases below which no correlation is stated. Decision: the ranks of three cases agree by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureScore:
    """Agreement against the true Dice.

    Attributes:
        cases: Number of cases for which both are known.
        spearman: Rank correlation of the two; NaN for fewer than `FEWEST_CASES`, or if all are equal.
        chart: A dot for each case.
    """

    cases: int
    spearman: float
    chart: Chart | None


def judge_agreement(results: Sequence[CaseResult]) -> FailureScore | None:
    """Compares agreement with the true Dice; None if it is known for no case.

    Example:
        >>> from autoseg.evaluation.scores import UNDEFINED
        >>> def case(dice, agreement):
        ...     scores = {"liver": UNDEFINED.model_copy(update={"dice": dice})}
        ...     return CaseResult(name="a", scores=scores, agreement=agreement)
        >>> judge_agreement([case(0.5, 0.6), case(0.7, 0.9), case(0.8, 0.8), case(0.9, 0.95)]).spearman
        0.8
    """
    from scipy.stats import spearmanr  # noqa: PLC0415 - importing scipy.stats takes half a second

    known = [case for case in results if not math.isnan(case.agreement) and not math.isnan(case.mean_dice)]
    if not known:
        return None
    agreement, dice = [case.agreement for case in known], [case.mean_dice for case in known]
    varied = len(known) >= FEWEST_CASES and len(set(agreement)) > 1 and len(set(dice)) > 1
    names = [f"{case.name}: agreement {case.agreement:.3f}, Dice {case.mean_dice:.3f}" for case in known]
    points = list(zip(agreement, dice, strict=True))
    return FailureScore(
        cases=len(known),
        spearman=round(float(spearmanr(agreement, dice).statistic), 6) if varied else math.nan,
        chart=make_chart(
            "Agreement against Dice",
            [Series(name="cases", points=points, names=names)],
            Frame(x_title="agreement", y_title="mean Dice", dots=True),
        ),
    )
