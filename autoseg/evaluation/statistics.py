"""How sure a mean over cases is, and whether two runs differ."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.runtime.artifact import Score

RESAMPLES = 5000
"""Decision: the ends of the intervals then vary by a few percent of their width."""

SEED = 0
"""Decision: the same cases always give the same intervals."""

ENDS = (2.5, 97.5)
"""Percentiles between which 95 % of the resampled means lie."""

Interval = tuple[Score, Score]
"""Lower and upper end."""


def draw_resamples(cases: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Draws as many cases as there are, with replacement, `RESAMPLES` times.

    Returns:
        Shape (resamples, cases): how often each case was drawn. To be used for all scores of the same cases.
    """
    if not cases:
        return np.zeros((RESAMPLES, 0))
    return random.multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES).astype(np.float64)


def bootstrap_means(
    values: NDArray[np.float64], resamples: NDArray[np.float64]
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """95 % confidence intervals of means over cases, by the percentile bootstrap.

    Means leave out what is undefined, in each resample as in the data. With fewer than two cases nothing is known about
    how cases differ, and the interval is undefined (NaN). Source: Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 13.

    Args:
        values: Shape (cases, labels); undefined values are NaN.
        resamples: From `draw_resamples`.

    Returns:
        The interval of the mean of each label, and that of the mean of these means.
    """
    defined = ~np.isnan(values)
    counts = resamples @ defined.astype(np.float64)
    means = _divide(resamples @ np.where(defined, values, 0.0), counts)
    known = ~np.isnan(means)
    overall = _divide(np.where(known, means, 0.0).sum(axis=1), known.sum(axis=1))
    intervals = [
        _ends(means[:, label], cases=int(cases)) for label, cases in enumerate(np.count_nonzero(defined, axis=0))
    ]
    return intervals, _ends(overall, cases=int(np.count_nonzero(defined.any(axis=1))))


def signed_rank_p(differences: Sequence[float]) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test: how likely such differences are if neither run is better.

    Cases without any difference are left out, as Wilcoxon did. NaN without cases; 1 if none of them differs.
    """
    from scipy.stats import wilcoxon  # noqa: PLC0415 - takes half a second to import, for `compare` alone

    if not differences:
        return float("nan")
    moved = [difference for difference in differences if difference]
    return float(wilcoxon(moved).pvalue) if moved else 1.0


def _divide(sums: NDArray[np.float64], counts: NDArray[np.floating | np.integer]) -> NDArray[np.float64]:
    """Means, NaN where nothing was counted."""
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _ends(means: NDArray[np.float64], *, cases: int) -> tuple[float, float]:
    if cases < 2:
        return float("nan"), float("nan")
    low, high = np.percentile(means[~np.isnan(means)], ENDS)
    return float(low), float(high)
