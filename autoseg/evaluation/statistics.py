"""Confidence intervals of means over cases, and a test whether two runs differ."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.runtime.artifact import Score

RESAMPLES = 5000
"""Number of bootstrap resamples. Decision: the ends of the intervals then vary by a few percent of their width."""

SEED = 0
"""Seed of the resamples. Decision: the same cases always give the same intervals."""

ENDS = (2.5, 97.5)
"""Percentiles of the resampled means that are the ends of a 95 % interval."""

Interval = tuple[Score, Score]
"""Lower and upper end of a confidence interval."""


def draw_resamples(cases: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Draws `RESAMPLES` bootstrap resamples: as many cases as there are, with replacement.

    >>> resamples = draw_resamples(3, np.random.default_rng(SEED))
    >>> resamples.shape, bool((resamples.sum(axis=1) == 3).all())
    ((5000, 3), True)

    Returns:
        How often each case was drawn, shape (resamples, cases). The same resamples are used for all scores of the same
        cases.
    """
    if not cases:
        return np.zeros((RESAMPLES, 0))
    return random.multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES).astype(np.float64)


def bootstrap_means(
    values: NDArray[np.float64], resamples: NDArray[np.float64]
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Computes 95 % confidence intervals of means over cases by the percentile bootstrap.

    Means leave out undefined values, in each resample as in the data. With fewer than two cases the variation between
    cases is unknown, and the interval is undefined (NaN). Source: Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 13.

    >>> values = np.array([[0.9], [0.7], [0.8], [np.nan]])
    >>> [interval], _ = bootstrap_means(values, draw_resamples(4, np.random.default_rng(SEED)))
    >>> 0.7 <= interval[0] < 0.8 < interval[1] <= 0.9
    True

    Args:
        values: Shape (cases, labels); undefined values are NaN.
        resamples: Resamples from `draw_resamples`, shape (resamples, cases).

    Returns:
        The interval of the mean of each label, and that of the mean of these means.
    """
    defined = ~np.isnan(values)
    counts = resamples @ defined.astype(np.float64)
    means = _divide(resamples @ np.where(defined, values, 0.0), counts)
    has_mean = ~np.isnan(means)
    overall = _divide(np.where(has_mean, means, 0.0).sum(axis=1), has_mean.sum(axis=1))
    intervals = [
        _ends(means[:, label], cases=int(cases)) for label, cases in enumerate(np.count_nonzero(defined, axis=0))
    ]
    return intervals, _ends(overall, cases=int(np.count_nonzero(defined.any(axis=1))))


def signed_rank_p(differences: Sequence[float]) -> float:
    """Returns the two-sided p value of Wilcoxon's signed-rank test for paired differences.

    Cases without any difference are left out, as in Wilcoxon's original method. The p value is NaN without cases, and 1
    if no case differs.

    >>> signed_rank_p([0.1, 0.2, 0.3, 0.4, 0.5]), signed_rank_p([0.0, 0.0])
    (0.0625, 1.0)
    """
    from scipy.stats import wilcoxon  # noqa: PLC0415 - importing scipy.stats takes half a second, and only `compare` needs it

    if not differences:
        return float("nan")
    nonzero = [difference for difference in differences if difference]
    return float(wilcoxon(nonzero).pvalue) if nonzero else 1.0


def _divide(sums: NDArray[np.float64], counts: NDArray[np.floating | np.integer]) -> NDArray[np.float64]:
    """Divides sums by counts; NaN where the count is zero."""
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _ends(means: NDArray[np.float64], *, cases: int) -> tuple[float, float]:
    if cases < 2:
        return float("nan"), float("nan")
    low, high = np.percentile(means[~np.isnan(means)], ENDS)
    return float(low), float(high)
