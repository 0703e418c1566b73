"""Means over cases that may be judged several times, as the repeats of a cross-validation do."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def mean_of_defined(scores: Iterable[float]) -> float:
    """Returns the mean of the scores that are not NaN, or NaN if there is none.

    >>> mean_of_defined([1.0, math.nan, 0.5])
    0.75
    """
    values = np.fromiter(scores, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def average_repeats(values: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    """Averages the results of each case, so that each case counts once however often it was judged.

    Results of one case are alike: an interval would be too narrow, and a p value too small, if each counted as a case.

    >>> average_repeats(np.array([[0.5], [0.8], [0.7], [np.nan]]), ["a", "b", "a", "b"]).tolist()
    [[0.6], [0.8]]

    Args:
        values: Shape (results, ...); undefined values are NaN, and left out of the average.
        names: Name of the case of each result.

    Returns:
        Shape (cases, ...), in the order in which the cases occur first; NaN where all values are undefined.
    """
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(number_of) == len(values):
        return values
    rows, defined = [number_of[name] for name in names], ~np.isnan(values)
    sums, counts = (np.zeros((len(number_of), *values.shape[1:])) for _ in range(2))
    np.add.at(sums, rows, np.where(defined, values, 0.0))
    np.add.at(counts, rows, defined)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def number_occurrences(names: Iterable[str]) -> list[int]:
    """Returns how often each name occurred before.

    >>> number_occurrences(["a", "b", "a", "c", "a"])
    [0, 0, 1, 0, 2]
    """
    seen: Counter[str] = Counter()
    numbers = []
    for name in names:
        numbers.append(seen[name])
        seen[name] += 1
    return numbers


def mean_of_repeats(scores: Sequence[tuple[str, Sequence[float]]]) -> tuple[float, ...]:
    """Returns the mean score of each repeat: over labels of the means over cases.

    Args:
        scores: Name of the case of each result, in the order of the repeats, and the score of each label.

    Returns:
        The means of those repeats that hold all cases, if they are several; else nothing, since means over other cases
        differ for that reason alone.
    """
    repeats = number_occurrences(name for name, _ in scores)
    cases = len({name for name, _ in scores})
    whole = [number for number, count in sorted(Counter(repeats).items()) if count == cases]
    if len(whole) < 2:
        return ()
    means = []
    for number in whole:
        rows = [values for (_, values), repeat in zip(scores, repeats, strict=True) if repeat == number]
        means.append(mean_of_defined(mean_of_defined(column) for column in zip(*rows, strict=True)))
    return tuple(means)


def describe_repeats(means: Sequence[float]) -> str:
    """Returns a line about the means of several repeats: each, and their standard deviation.

    >>> describe_repeats([0.70, 0.72, 0.74])
    'mean Dice of 3 repeats: 0.7000, 0.7200, 0.7400 (standard deviation 0.0200)'
    """
    deviation = float(np.std(means, ddof=1)) if not any(map(math.isnan, means)) else math.nan
    listed = ", ".join(f"{mean:.4f}" for mean in means)
    return f"mean Dice of {len(means)} repeats: {listed} (standard deviation {deviation:.4f})"
