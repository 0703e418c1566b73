"""Which scans to label next: those on which the folds disagree most, and of these such that are unlike each other.

Source of the two steps: Yang et al. 2017, "Suggestive Annotation" (uncertain ones first, then those that differ), and
Sener and Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", for the choice of
those that differ: the next scan is the one that lies farthest from all labelled and all chosen scans.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.datasets.info import DatasetInfo
from autoseg.evaluation.repeats import mean_of_defined
from autoseg.evaluation.summary import CaseResult
from autoseg.imaging.label_encoding import CaseLabels
from autoseg.inference.descriptor import describe_image
from autoseg.model_selection.unlabelled_scans import ComparedScan
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.artifact import Artifact, Score, atomic_file

if TYPE_CHECKING:
    import pandas as pd

POOL = 3
"""How many times as many uncertain scans as are suggested are looked at. Decision: of fewer there is nothing to choose,
and of more, scans would be suggested that the model segments well already."""

INTENSITY_LENGTH = 64  # numbers of a descriptor for each channel, and for the foreground


class Suggestion(BaseModel):
    """A scan that is worth labelling.

    Attributes:
        rank: Place in the order in which to label them, from 1.
        case: Name of the scan.
        disagreement: One minus the mean of both agreements, 0 to 1; 1 if nothing was found.
        agreement, fold_agreement: See `inference.fold_comparison`.
        share_to_correct: Voxels that are expected to be added to or taken from structures, as a share of those that
            are segmented; see `CorrectionEstimate`. Undefined without mirror images, or if nothing was found.
        distance: How far the scan lies from the nearest one that is labelled or ranks before it, in standard deviations
            of its descriptor.
        segmentation: Path of the segmentation that may be corrected instead of drawing one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int
    case: str
    disagreement: Score
    agreement: Score
    fold_agreement: Score
    share_to_correct: Score
    distance: Score
    segmentation: str


class Suggestions(Artifact):
    """The scans to label next.

    Attributes:
        dataset: Name of the dataset that the model was trained on.
        model: Digest of each fold.
        scans: Number of scans that were considered.
        suggestions: The scans, in the order of their ranks.
    """

    dataset: str
    model: tuple[str, ...]
    scans: int
    suggestions: tuple[Suggestion, ...]

    def table(self) -> "pd.DataFrame":
        """Returns a row for each suggestion, with its fields as columns; undefined numbers are NaN."""
        import pandas as pd  # noqa: PLC0415 - importing pandas takes longer than most uses of this module

        rows = [suggestion.model_dump() for suggestion in self.suggestions]
        return pd.DataFrame(rows, columns=list(Suggestion.model_fields))

    def save_csv(self, path: Path) -> None:
        """Writes `table` as a CSV file, atomically; undefined numbers are empty."""
        with atomic_file(path) as writing:
            self.table().to_csv(writing, index=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionEstimate:
    """How many voxels of a segmentation are wrong, judged by the agreement of mirror images.

    Decision: the folds themselves err alike; where each differs from their mean is a quarter of what is wrong with it
    (measured on hippocampus scans). So the voxels that are wrong in held-out cases say how much one minus the agreement
    means.

    Attributes:
        factor: Share of wrong voxels for each unit of one minus the agreement; NaN if it is not known.
    """

    factor: float

    @classmethod
    def fit(cls, results: Sequence[CaseResult]) -> Self:
        """Fits the factor to held-out cases, by least squares.

        Example: a case of which the model finds 10 voxels, 2 of them wrong, and misses 1.
            >>> from autoseg.evaluation.scores import UNDEFINED
            >>> counts = {"true_positive": 8, "false_positive": 2, "false_negative": 1}
            >>> scores = {"liver": UNDEFINED.model_copy(update=counts)}
            >>> round(CorrectionEstimate.fit([CaseResult(name="a", scores=scores, agreement=0.9)]).factor, 3)
            3.0
        """
        doubt, wrong = [], []
        for case in results:
            found = sum(scores.true_positive + scores.false_positive for scores in case.scores.values())
            if found and not math.isnan(case.agreement):
                doubt.append(1 - case.agreement)
                wrong.append(sum(one.false_positive + one.false_negative for one in case.scores.values()) / found)
        total = float(np.dot(doubt, doubt))
        return cls(factor=float(np.dot(doubt, wrong)) / total if total else math.nan)

    def of(self, scan: ComparedScan) -> float:
        """Returns the share of the segmented voxels of a scan that are expected to be wrong."""
        return self.factor * (1 - scan.agreement)


def measure_disagreement(scan: ComparedScan) -> float:
    """Returns one minus the mean of the agreement of mirror images and of folds; 1 if nothing was found.

    Decision: together they rank cases better by their true Dice than folds alone; see "Calibration and failure scores"
    in the results.
    """
    return 1.0 if scan.is_empty else 1 - mean_of_defined([scan.agreement, scan.fold_agreement])


def suggest_scans(
    scans: Sequence[ComparedScan],
    labelled: Sequence[Sequence[float]],
    count: int,
    correction: CorrectionEstimate,
    folder: Path,
) -> list[Suggestion]:
    """Chooses the scans to label next.

    Args:
        scans: The scans without labels.
        labelled: Descriptor of each case that is labelled.
        count: Number of scans to suggest; at most as many as there are.
        correction: Estimates how much has to be corrected.
        folder: Folder of their segmentations.

    Example:
        >>> def scan(name, agreement, place):
        ...     values = dict(case=name, model=(), files=(), segmentation=name + ".nii.gz", agreement=agreement)
        ...     return ComparedScan(**values, fold_agreement=agreement, descriptor=(place,) * 65)
        >>> scans = [scan("a", 0.5, 0.0), scan("b", 0.6, 3.0), scan("c", 0.7, 3.1), scan("d", 0.9, 9.0)]
        >>> correction = CorrectionEstimate(factor=2.0)
        >>> [suggestion.case for suggestion in suggest_scans(scans, [[0.1] * 65], 1, correction, Path())]
        ['c']
    """
    ranked = sorted(scans, key=lambda scan: (-measure_disagreement(scan), scan.case))
    pool = ranked[: POOL * count]
    if not pool:
        return []
    vectors = standardize([*labelled, *(scan.descriptor for scan in scans)])
    place = {scan.case: vectors[len(labelled) + number] for number, scan in enumerate(scans)}
    order = choose_farthest(np.array([place[scan.case] for scan in pool]), vectors[: len(labelled)], count)
    return [
        Suggestion(
            rank=rank,
            case=pool[number].case,
            disagreement=measure_disagreement(pool[number]),
            agreement=pool[number].agreement,
            fold_agreement=pool[number].fold_agreement,
            share_to_correct=correction.of(pool[number]),
            distance=distance,
            segmentation=str(folder / pool[number].segmentation),
        )
        for rank, (number, distance) in enumerate(order, start=1)
    ]


def standardize(descriptors: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Brings descriptors to a scale on which channels, form and size count alike.

    Args:
        descriptors: Descriptors of all cases, each of the same length.

    Returns:
        Shape (cases, length): each number less its mean, divided by its standard deviation and by the root of the
        number of entries of its part. A number that is the same everywhere becomes 0.
    """
    values = np.array(descriptors, dtype=np.float64)
    spread = values.std(axis=0)
    parts = np.arange(values.shape[1]) // INTENSITY_LENGTH
    weights = np.sqrt(np.bincount(parts)[parts] * len(np.unique(parts)))
    standardized = np.zeros_like(values)
    np.divide(values - values.mean(axis=0), spread * weights, out=standardized, where=spread > 0)
    return standardized


def choose_farthest(candidates: NDArray[np.float64], known: NDArray[np.float64], count: int) -> list[tuple[int, float]]:
    """Chooses candidates one after the other, each of which lies farthest from all that are known or chosen.

    Args:
        candidates: Shape (n, length), the best first: it wins ties, and is chosen first if nothing is known.
        known: Shape (m, length); may be empty.
        count: How many to choose, at most n.

    Returns:
        Index and distance of each choice, in their order; the distance of the first is NaN if nothing is known.

    Example:
        >>> choose_farthest(np.array([[1.0], [5.0], [6.0]]), np.array([[0.0]]), 2)
        [(2, 6.0), (0, 1.0)]
    """
    nearest = np.full(len(candidates), math.inf)
    for vector in known:
        nearest = np.minimum(nearest, np.linalg.norm(candidates - vector, axis=1))
    chosen: list[tuple[int, float]] = []
    for _ in range(min(count, len(candidates))):
        index = int(np.argmax(nearest))
        distance = float(nearest[index])
        chosen.append((index, distance if math.isfinite(distance) else math.nan))
        nearest = np.minimum(nearest, np.linalg.norm(candidates - candidates[index], axis=1))
        nearest[[number for number, _ in chosen]] = -1
    return chosen


def describe_labelled(cases_folder: Path, names: Sequence[str], info: DatasetInfo) -> list[tuple[float, ...]]:
    """Returns the descriptor of each labelled case, from its preprocessed image and label map.

    Args:
        cases_folder: Folder of the preprocessed cases of the configuration.
        names: Names of the cases.
        info: Description of the dataset.

    Raises:
        ArtifactError: A case is missing or damaged.
    """
    ignore, descriptors = info.targets.ignore, []
    for name in names:
        image, stored = StoredCase.open(cases_folder, name).load()
        label = np.asarray(CaseLabels(stored))
        foreground = label > 0 if ignore is None else (label > 0) & (label != ignore)
        descriptors.append(tuple(describe_image(image, foreground).tolist()))
    return descriptors
