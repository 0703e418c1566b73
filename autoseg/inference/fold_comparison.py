"""The folds of a configuration on one image: their mean, how far they agree, and what tells the image from others.

`agreement.EnsembleAgreement` compares all votes, of folds and of mirror images, with their mean. Here they are kept
apart, because only one of them can be had for a held-out case: the fold that held it out, with its mirror images. So
the agreement of mirror images within a fold means the same for a held-out case, whose Dice is known, and for a new
scan. All other folds have learned from a held-out case, and would agree on it better than on any new scan.

    agreement        mean over the folds of the agreement of the mirror images within each
    fold_agreement   mean over the folds of the Dice of each with the mean of all
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.repeats import mean_of_defined
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import Agreement
from autoseg.inference.descriptor import describe_image
from autoseg.inference.prediction import Prediction
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.sliding_window import OnProgress, ignore_progress
from autoseg.runtime.arrays import bring_to_cpu

Structures = NDArray[np.integer]
"""Which structures are at each voxel, shape (words, z, y, x): the number of a class, or a bit for each region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldComparison:
    """What the folds find in one image.

    Attributes:
        prediction: The mean of the folds; its agreement is that of the folds.
        agreement: Agreement of mirror images within folds, 0 to 1; NaN without mirror images, or if nothing is found.
        fold_agreement: Agreement of the folds, 0 to 1; NaN if nothing is found.
        descriptor: See `describe_image`.
    """

    prediction: Prediction
    agreement: float
    fold_agreement: float
    descriptor: NDArray[np.float32]


def compare_folds(
    folds: Sequence[Segmenter], image: Volume, on_progress: OnProgress = ignore_progress
) -> FoldComparison:
    """Predicts an image by each fold of a configuration, one after the other.

    Besides the logits of a fold, their sum and a byte or two for each voxel and fold are in memory.

    Args:
        folds: A segmenter for each fold, at least one, all of one configuration.
        image: Shape (c, z, y, x), on the grid of its file.
        on_progress: Called with the share of the work, 0 to 1, that each step adds.

    Raises:
        AutosegError: See `Segmenter.prepare` and `Prepared.predict`.
    """
    prepared, targets = folds[0].prepare(image), folds[0].info.targets
    coarse = None if prepared.previous is None else prepared.previous.predict().segmentation()
    votes: list[Structures] = []
    within: list[float] = []
    total: NDArray[np.float32] | None = None
    for segmenter in folds:
        fold = replace(prepared, segmenter=segmenter)
        prediction = fold.predict(lambda share: on_progress(share / len(folds)), coarse)
        logits = np.asarray(bring_to_cpu(prediction.logits), dtype=np.float32)
        votes.append(find_structures(logits, targets))
        within.append(prediction.agreement.score)
        total = logits.copy() if total is None else total + logits
    mean_logits = np.asarray(total, dtype=np.float32) / np.float32(len(folds))
    mean = find_structures(mean_logits, targets)
    between = Agreement(votes=len(folds), structures=dict(measure_agreement(votes, mean, targets)))
    return FoldComparison(
        prediction=replace(prediction, logits=mean_logits, agreement=between),
        agreement=mean_of_defined(within),
        fold_agreement=between.score,
        descriptor=describe_image(np.asarray(prepared.case.image), np.asarray(mean.any(axis=0))),
    )


def find_structures(logits: NDArray[np.float32], targets: Targets) -> Structures:
    """Returns which structures are at each voxel.

    Example:
        >>> labels = Targets.of_labels({"liver": 1, "tumour": 2})
        >>> find_structures(np.array([[[[2.0, 0.0]]], [[[0.0, 1.0]]], [[[1.0, 3.0]]]]), labels).tolist()
        [[[[0, 2]]]]

    Args:
        logits: Shape (outputs, z, y, x).
        targets: What the outputs stand for.
    """
    if targets.exclusive:
        return np.asarray(logits.argmax(axis=0)[None], dtype=np.uint8 if targets.outputs <= 256 else np.int16)
    return np.packbits(logits > 0, axis=0, bitorder="little")


def measure_agreement(votes: Sequence[Structures], mean: Structures, targets: Targets) -> Mapping[str, float]:
    """Returns the mean Dice of each structure between votes and their mean; NaN where the mean has none of it.

    Example: of two votes, one equals the mean, and the other one lacks one of two voxels.
        >>> labels = Targets.of_labels({"liver": 1})
        >>> one, other = np.array([[[[1, 1]]]]), np.array([[[[1, 0]]]])
        >>> measure_agreement([one, other], one, labels)
        {'liver': 0.8333333333333333}
    """

    def show(found: Structures, number: int) -> NDArray[np.bool_]:
        """Returns the mask of a structure."""
        if targets.exclusive:
            return np.asarray(found[0] == number + 1)
        return np.asarray(found[number // 8] >> number % 8 & 1, dtype=bool)

    agreement = {}
    for number, name in enumerate(targets.names):
        reference = show(mean, number)
        masks, size = [show(vote, number) for vote in votes], int(reference.sum())
        dice = [2 * int((mask & reference).sum()) / (int(mask.sum()) + size) for mask in masks] if size else []
        agreement[name] = float(np.mean(dice)) if dice else math.nan
    return agreement
