"""What a model takes for what: the volume of each structure that was segmented as another one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.summary import SegmentedCase
from autoseg.imaging.targets import Targets

NOTHING = "nothing"
"""Name of the background in the table."""

MOST_NAMED = 10
"""Structures up to which all pairs are shown. Decision: a larger table is read by nobody; the largest pairs are
listed instead."""

MOST_PAIRS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """Volume of one structure that was segmented as another.

    Attributes:
        reference, prediction: Names of the two, `NOTHING` for the background.
        volume: In mm³, or in pixels for pictures of one plane.
        share: Of the volume of the reference, 0 to 1; if that is the background, of the volume of the prediction. NaN
            if there is none.
    """

    reference: str
    prediction: str
    volume: float
    share: float

    @property
    def right(self) -> bool:
        """Whether this is no error."""
        return self.reference == self.prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """The volumes of all pairs.

    Attributes:
        names: Names of the structures, then `NOTHING`.
        rows: For each name in the reference, each name in the prediction; empty if there are more than `MOST_NAMED`
            structures.
        largest: The pairs that differ, from the largest share of the reference; the background comes last.
        unit: "mm³" or "pixels".
    """

    names: tuple[str, ...]
    rows: tuple[tuple[ConfusedPair, ...], ...]
    largest: tuple[ConfusedPair, ...]
    unit: str


def count_confusion(case: SegmentedCase) -> NDArray[np.float64]:
    """Counts the volume of each structure that was segmented as another.

    At a voxel, structures of the reference that were not segmented are missed, and structures that were segmented in
    excess are extra. Each missed structure counts as confused with each extra one, or with nothing. For structures
    that exclude each other this is the usual confusion matrix. Voxels that were not annotated count nowhere.

    Args:
        case: The case, with the label maps on one grid.

    Returns:
        Volume in mm³, or in pixels for a plane, of shape (structures + 1, structures + 1): rows for the reference,
        columns for the prediction, the background last. The background as itself is not counted.

    Example:
        >>> from autoseg.imaging.geometry import Geometry, Volume
        >>> geometry = Geometry(shape=(1, 1, 4), spacing_mm=(1.0, 1.0, 2.0))
        >>> maps = [Volume(array=np.array([[row]]), geometry=geometry) for row in ([1, 1, 2, 0], [1, 2, 0, 0])]
        >>> targets = Targets.of_labels({"liver": 1, "tumour": 2})
        >>> case = SegmentedCase(name="a", reference=maps[0], prediction=maps[1], targets=targets)
        >>> count_confusion(case).tolist()
        [[2.0, 2.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
    """
    names = [name for name in case.targets.names if name not in case.unannotated]
    counts = np.zeros((len(case.targets.names) + 1,) * 2)
    places = {name: number for number, name in enumerate(case.targets.names)}
    nothing = len(case.targets.names)
    for (first, second), voxels in _count_pairs(case).items():
        reference, prediction = (
            {places[name] for name in names if number in case.targets.structures[name]} for number in (first, second)
        )
        for same in reference & prediction:
            counts[same, same] += voxels
        missed, extra = reference - prediction, prediction - reference
        if missed or extra:
            for row in missed or {nothing}:
                for column in extra or {nothing}:
                    counts[row, column] += voxels
    volume = case.reference.geometry.voxel_volume_mm3
    return counts * (volume if np.isfinite(volume) else 1.0)


def summarize_confusion(matrices: Sequence[NDArray[np.float64]], targets: Targets, *, planes: bool) -> Confusion | None:
    """Adds up the volumes of many cases.

    Args:
        matrices: The volumes of each case, from `count_confusion`.
        targets: The structures.
        planes: Whether the cases are pictures of one plane, whose volumes are pixels.

    Returns:
        The table; None if there is no case.
    """
    if not matrices:
        return None
    total = np.sum(matrices, axis=0)
    names = (*targets.names, NOTHING)
    of_reference, of_prediction = total.sum(axis=1), total.sum(axis=0)

    def pair(row: int, column: int) -> ConfusedPair:
        whole = of_reference[row] if row < len(names) - 1 else of_prediction[column]
        volume = float(total[row, column])
        share = volume / float(whole) if whole > 0 else float("nan")
        return ConfusedPair(reference=names[row], prediction=names[column], volume=volume, share=share)

    rows = [tuple(pair(row, column) for column in range(len(names))) for row in range(len(names))]
    wrong = [cell for row in rows for cell in row if not cell.right and cell.volume > 0]
    largest = sorted(wrong, key=lambda cell: (cell.reference == NOTHING, -cell.share, cell.reference, cell.prediction))
    return Confusion(
        names=names,
        rows=tuple(rows) if len(targets.names) <= MOST_NAMED else (),
        largest=tuple(largest[:MOST_PAIRS]),
        unit="pixels" if planes else "mm³",
    )


def _count_pairs(case: SegmentedCase) -> dict[tuple[int, int], int]:
    """Returns the numbers of reference and prediction at each voxel, with the number of voxels of each pair."""
    reference, prediction = case.reference.array.ravel(), case.prediction.array.ravel()
    either = (reference != 0) | (prediction != 0)
    if case.targets.ignore is not None:
        either &= reference != case.targets.ignore
    first, second = reference[either].astype(np.int64), prediction[either].astype(np.int64)
    base = int(second.max(initial=0)) + 1
    codes, voxels = np.unique(first * base + second, return_counts=True)
    return {(int(code) // base, int(code) % base): int(count) for code, count in zip(codes, voxels, strict=True)}
