"""How far two label maps agree, counted in voxels, per label."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Numbers, Targets

LARGEST_TABLE = 2**20
"""Pairs of numbers that are counted in a table. Decision: 8 MB, for a thousand numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Agreement of a reference and a prediction about one label, in voxels.

    A label that is in neither of the two has no score: `dice` and `iou` are NaN, and means leave it out. A label that
    is in one of the two only scores 0. Source: the reference method (nnU-Net v2.8.1, evaluate_predictions).

    Attributes:
        true_positive: Voxels that both give the label.
        false_positive: Voxels that only the prediction gives it.
        false_negative: Voxels that only the reference gives it.
    """

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def reference_voxels(self) -> int:
        """Size of the label in the reference."""
        return self.true_positive + self.false_negative

    @property
    def predicted_voxels(self) -> int:
        """Size of the label in the prediction."""
        return self.true_positive + self.false_positive

    @property
    def dice(self) -> float:
        """Dice coefficient, 0 to 1, or NaN."""
        both = self.reference_voxels + self.predicted_voxels
        return 2 * self.true_positive / both if both else math.nan

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index), 0 to 1, or NaN."""
        union = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / union if union else math.nan


def case_overlaps(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], targets: Targets
) -> dict[str, Overlap]:
    """Counts the agreement about each structure of a case, in one look at its voxels.

    Pairs of numbers are counted, plane by plane: it takes the same time for 2 structures and for 100, and no memory to
    speak of beside the label maps. Voxels that nobody labelled do not count.

    Args:
        reference: Shape (z, y, x).
        prediction: The same shape; its number type may be another.
        targets: Their numbers are not negative.

    Returns:
        Name of a structure to its overlap, in the order of the structures.

    Raises:
        ValueError: The shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference of shape {reference.shape} and prediction of shape {prediction.shape} differ")
    size = max(targets.values) + 2  # one more than needed: it stands for all values that nobody asked for
    pairs, counts = _count_pairs(reference, prediction, size)
    of_reference, of_prediction = np.divmod(pairs, size)
    if targets.ignore is not None:
        counts = np.where(of_reference == targets.ignore, 0, counts)

    def count(numbers: Numbers) -> Overlap:
        belongs = np.zeros(size, dtype=bool)
        belongs[list(numbers)] = True
        actual, predicted = belongs[of_reference], belongs[of_prediction]
        return Overlap(
            true_positive=int(counts[actual & predicted].sum()),
            false_positive=int(counts[predicted & ~actual].sum()),
            false_negative=int(counts[actual & ~predicted].sum()),
        )

    return {name: count(numbers) for name, numbers in targets.structures.items()}


def _count_pairs(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of numbers that occur, as reference x size + prediction, and how often.

    Counted in a table, plane by plane; if that would be large, because structures overlap in many ways, by sorting.
    """
    codes = (_codes(one, size) * size + _codes(other, size) for one, other in zip(reference, prediction, strict=True))
    if size * size <= LARGEST_TABLE:
        table = np.zeros(size * size, dtype=np.int64)
        for plane in codes:
            table += np.bincount(plane.ravel(), minlength=size * size)
        (found,) = np.nonzero(table)
        return found, table[found]
    counted = [np.unique(plane, return_counts=True) for plane in codes]
    found, place = np.unique(np.concatenate([pairs for pairs, _ in counted]), return_inverse=True)
    weights = np.concatenate([counts for _, counts in counted])
    return found, np.bincount(place, weights=weights, minlength=len(found)).astype(np.int64)


def _codes(plane: NDArray[np.integer], size: int) -> NDArray[np.intp]:
    """The labels of a plane as numbers below `size`, of which the last stands for every value outside."""
    codes = plane.astype(np.intp)
    if codes.size and (codes.min() < 0 or codes.max() >= size):
        codes[(codes < 0) | (codes >= size)] = size - 1
    return codes
