"""Scans that occur twice in a dataset, under two names: the same voxels, or nearly the same."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from autoseg.report.case_measures import CaseMeasures

ALIKE = 0.995
"""Correlation of signatures from which on two scans count as nearly the same. Decision: the most alike scans of
different patients reach 0.992 (three brains without skull), 0.886 (slices of hearts) and 0.872 (260 cropped
hippocampi). A copy with noise of a tenth of the range, or at 0.7 of the resolution, has at least 0.9995 with its scan
for such brains, but only 0.994 and 0.996 for the hearts and 0.94 for the hippocampi, where it may be missed. Source:
tests/benchmarks/duplicates.py."""

MOST_ALIKE = 5000
"""Pairs that are nearly the same which are listed. Decision: nobody looks at more, and of 20,000 scans of one phantom
200 million would be."""

BLOCK = 512  # Cases whose correlations with as many others are in memory at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Two cases that show the same scan.

    Attributes:
        first, second: Names of the cases.
        correlation: Correlation of their coarse images; 1 if all voxels are equal.
        same_voxels: Whether all voxels are equal.
        split: Whether a fold learns from the one and is judged on the other.
    """

    first: str
    second: str
    correlation: float
    same_voxels: bool
    split: bool


def find_duplicates(cases: Sequence[CaseMeasures], groups: Mapping[str, str]) -> list[Duplicate]:
    """Finds pairs of cases that show the same scan; the most alike come first.

    Args:
        cases: The cases; those without a signature are left out.
        groups: Group of each case that has one; cases of a group are never on both sides of a fold.

    Returns:
        The pairs. A scan that occurs three times makes two pairs of equal voxels: each with the first of them. Of those
        that are nearly the same, the first `MOST_ALIKE`.
    """
    signed = [case for case in cases if case.signature is not None and case.signature.any()]
    pairs = dict.fromkeys(_find_equal(signed), 1.0)
    equal = set(pairs)
    later = {second for _, second in equal}
    unequal = [case for case in signed if case.name not in later]
    for first, second, correlation in islice(_find_alike(unequal), MOST_ALIKE):
        pairs.setdefault((first, second), correlation)
    found = [
        Duplicate(
            first=first,
            second=second,
            correlation=correlation,
            same_voxels=(first, second) in equal,
            split=groups.get(first, first) != groups.get(second, second),
        )
        for (first, second), correlation in pairs.items()
    ]
    return sorted(found, key=lambda pair: (not pair.same_voxels, -pair.correlation, pair.first, pair.second))


def _find_equal(cases: Sequence[CaseMeasures]) -> Iterator[tuple[str, str]]:
    names = defaultdict(list)
    for case in cases:
        shape = case.facts.shape if case.facts else None
        names[case.digest, shape].append(case.name)
    for first, *others in names.values():
        yield from ((first, other) for other in others)


def _find_alike(cases: Sequence[CaseMeasures]) -> Iterator[tuple[str, str, float]]:
    """Yields pairs whose signatures correlate, with the correlation; two blocks of them are in memory twice."""
    if not cases:
        return
    signatures = [case.signature for case in cases if case.signature is not None]
    blocks = range(0, len(cases), BLOCK)
    for start in blocks:
        rows = np.stack(signatures[start : start + BLOCK])
        for other in blocks[start // BLOCK :]:
            correlations = rows @ np.stack(signatures[other : other + BLOCK]).T
            for row, column in zip(*np.nonzero(correlations >= ALIKE), strict=True):
                if other + column > start + row:
                    yield cases[start + row].name, cases[other + column].name, float(correlations[row, column])
