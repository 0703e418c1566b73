"""Overlap of two label maps, counted in voxels for each label: Dice and intersection over union."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Numbers, Targets

LARGEST_TABLE = 2**20
"""Largest number of pairs of numbers that are counted in a table. Decision: 8 MB, for a thousand numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Overlap of a reference and a prediction for one label, in voxels.

    For a label that occurs in neither, `dice` and `iou` are undefined (NaN), and means leave it out. For a label that
    occurs in only one of the two they are 0. Source: the reference method (nnU-Net v2.8.1, evaluate_predictions).

    >>> overlap = Overlap(true_positive=6, false_positive=2, false_negative=2)
    >>> overlap.dice, overlap.iou
    (0.75, 0.6)

    Attributes:
        true_positive: Number of voxels with the label in both.
        false_positive: Number of voxels with the label in the prediction only.
        false_negative: Number of voxels with the label in the reference only.
    """

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def reference_voxels(self) -> int:
        """Number of voxels of the label in the reference."""
        return self.true_positive + self.false_negative

    @property
    def predicted_voxels(self) -> int:
        """Number of voxels of the label in the prediction."""
        return self.true_positive + self.false_positive

    @property
    def dice(self) -> float:
        """Dice coefficient, 0 to 1; NaN if both masks are empty."""
        total = self.reference_voxels + self.predicted_voxels
        return 2 * self.true_positive / total if total else math.nan

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index), 0 to 1; NaN if both masks are empty."""
        union = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / union if union else math.nan


def case_overlaps(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], targets: Targets
) -> dict[str, Overlap]:
    """Counts the overlap of each structure of a case in one pass over the voxels.

    Pairs of numbers are counted plane by plane. The time is the same for 2 structures and for 100, and little memory is
    needed beside the label maps. Ignored voxels do not count.

    >>> reference, prediction = np.array([[[1, 1, 2, 0]]]), np.array([[[1, 0, 2, 2]]])
    >>> overlaps = case_overlaps(reference, prediction, Targets.of_labels({"liver": 1, "tumour": 2}))
    >>> {name: round(overlap.dice, 3) for name, overlap in overlaps.items()}
    {'liver': 0.667, 'tumour': 0.667}

    Args:
        reference: Label map of shape (z, y, x).
        prediction: Label map of the same shape; its number type may differ.
        targets: The structures; their numbers are not negative.

    Returns:
        Name of each structure to its overlap, in the order of the structures.

    Raises:
        ValueError: The shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference of shape {reference.shape} and prediction of shape {prediction.shape} differ")
    size = max(targets.values) + 2  # the last code stands for all values that belong to no structure
    pairs, counts = _count_pairs(reference, prediction, size)
    reference_numbers, predicted_numbers = np.divmod(pairs, size)
    if targets.ignore is not None:
        counts = np.where(reference_numbers == targets.ignore, 0, counts)

    def count(numbers: Numbers) -> Overlap:
        belongs = np.zeros(size, dtype=bool)
        belongs[list(numbers)] = True
        actual, predicted = belongs[reference_numbers], belongs[predicted_numbers]
        return Overlap(
            true_positive=int(counts[actual & predicted].sum()),
            false_positive=int(counts[predicted & ~actual].sum()),
            false_negative=int(counts[actual & ~predicted].sum()),
        )

    return {name: count(numbers) for name, numbers in targets.structures.items()}


def _count_pairs(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the pairs of numbers that occur, coded as reference x size + prediction, and their frequencies.

    Pairs are counted in a table, plane by plane. If the table would be large, because structures overlap in many
    combinations, they are counted by sorting.
    """
    codes = (
        _encode(reference_plane, size) * size + _encode(predicted_plane, size)
        for reference_plane, predicted_plane in zip(reference, prediction, strict=True)
    )
    if size * size <= LARGEST_TABLE:
        table = np.zeros(size * size, dtype=np.int64)
        for plane in codes:
            table += np.bincount(plane.ravel(), minlength=size * size)
        (occurring,) = np.nonzero(table)
        return occurring, table[occurring]
    counted = [np.unique(plane, return_counts=True) for plane in codes]
    occurring, index = np.unique(np.concatenate([pairs for pairs, _ in counted]), return_inverse=True)
    weights = np.concatenate([counts for _, counts in counted])
    return occurring, np.bincount(index, weights=weights, minlength=len(occurring)).astype(np.int64)


def _encode(plane: NDArray[np.integer], size: int) -> NDArray[np.intp]:
    """Returns the labels of a plane as codes below `size`, of which the last stands for all values out of range.

    >>> _encode(np.array([0, 1, 7, -1]), size=3).tolist()
    [0, 1, 2, 2]
    """
    codes = plane.astype(np.intp)
    if codes.size and (codes.min() < 0 or codes.max() >= size):
        codes[(codes < 0) | (codes >= size)] = size - 1
    return codes
