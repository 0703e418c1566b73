"""Distributions of a measure over the cases, ready to draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_BINS = 24
DIGITS = 3  # Significant digits of the numbers below an axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar of a histogram.

    Attributes:
        left, width, height: Place as a share of the drawing, 0 to 1; heights are relative to the highest bar.
        text: What it stands for, in words.
    """

    left: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A histogram.

    Attributes:
        title: What is counted, with its unit.
        bars: From the smallest value to the largest.
        first, middle, last: Smallest value, median and largest value as texts.
    """

    title: str
    bars: tuple[Bar, ...]
    first: str
    middle: str
    last: str


def make_histogram(title: str, values: Sequence[float], unit: str = "") -> Histogram | None:
    """Counts values in bins of one width.

    Args:
        title: What is counted.
        values: The values; those that are not finite are left out.
        unit: Their unit.

    Returns:
        The histogram; None if there are no values.

    Example:
        >>> histogram = make_histogram("spacing", [1.0, 1.0, 1.0, 2.0], "mm")
        >>> histogram.title, len(histogram.bars), histogram.bars[0].text, histogram.last
        ('spacing, mm', 2, '3 cases from 1 to 1.5 mm', '2 mm')
    """
    finite = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    if finite.size == 0:
        return None
    bins = min(MOST_BINS, max(1, int(np.ceil(np.sqrt(finite.size)))))
    low, high = float(finite.min()), float(finite.max())
    counts, edges = np.histogram(finite, bins=bins if high > low else 1)
    bars = tuple(
        Bar(
            left=index / len(counts),
            width=1 / len(counts),
            height=count / counts.max(),
            text=_describe(int(count), edges[index : index + 2].tolist() if high > low else [low, high], unit),
        )
        for index, count in enumerate(counts)
    )
    first, middle, last = (_number(value, unit) for value in (low, float(np.median(finite)), high))
    return Histogram(title=f"{title}, {unit}" if unit else title, bars=bars, first=first, middle=middle, last=last)


def _describe(count: int, edges: Sequence[float], unit: str) -> str:
    cases = "1 case" if count == 1 else f"{count} cases"
    low, high = (f"{edge:.{DIGITS}g}" for edge in edges)
    return (
        f"{cases} of {_number(edges[0], unit)}" if low == high else f"{cases} from {low} to {_number(edges[1], unit)}"
    )


def _number(value: float, unit: str) -> str:
    return f"{value:.{DIGITS}g} {unit}".strip()
