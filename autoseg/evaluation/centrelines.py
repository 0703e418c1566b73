"""Centreline Dice: whether vessels and other thin structures are whole, whatever their width."""

import math

from autoseg.evaluation.masks import MaskPair
from autoseg.imaging.skeletons import find_skeleton


def centreline_dice(pair: MaskPair) -> float:
    """Returns the centreline Dice of a structure, 0 to 1; NaN if both masks are empty, 0 if one is.

    It is the harmonic mean of two shares: that of the skeleton of the reference which lies inside the prediction, and
    that of the skeleton of the prediction which lies inside the reference. Source: Shit et al. 2021, clDice.

    Example:
        >>> import numpy as np
        >>> reference = np.array([[[1, 1, 1, 1]]], dtype=bool)
        >>> prediction = np.array([[[1, 1, 0, 0]]], dtype=bool)
        >>> round(centreline_dice(MaskPair(reference=reference, prediction=prediction)), 3)
        0.667

    Args:
        pair: Masks of the structure, shape (z, y, x).
    """
    skeletons = [find_skeleton(mask) for mask in (pair.reference, pair.prediction)]
    lengths = [int(skeleton.sum()) for skeleton in skeletons]
    if not all(lengths):
        return 0.0 if any(lengths) else math.nan
    recall = int((skeletons[0] & pair.prediction).sum()) / lengths[0]
    precision = int((skeletons[1] & pair.reference).sum()) / lengths[1]
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0
