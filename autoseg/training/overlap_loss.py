"""Losses by the overlap of masks: Dice and its kin, and the recall of skeletons."""

import torch

from autoseg.planning.loss_settings import LossSettings
from autoseg.training.ground_truth import GroundTruth
from autoseg.training.ranks import ALONE, Ranks

SMOOTH = 1e-5
"""Keeps Dice defined where a class is in neither target nor prediction."""


def structure_probabilities(logits: torch.Tensor, ground_truth: GroundTruth) -> torch.Tensor:
    """Returns the probability of each structure, shape (n, structures, *size); 0 where voxels do not count."""
    probabilities = logits.softmax(dim=1)[:, 1:] if ground_truth.exclusive else logits.sigmoid()
    return probabilities if ground_truth.counted is None else probabilities * ground_truth.counted


def overlap_of(
    hits: torch.Tensor, predicted: torch.Tensor, actual: torch.Tensor, settings: LossSettings
) -> torch.Tensor:
    """Returns the overlap of masks, 0 to 1, from three sums over their voxels, of equal shape.

    Args:
        hits: Sum of the probabilities inside the mask of the ground truth.
        predicted: Sum of the probabilities, or of their squares for "squared_dice".
        actual: Number of voxels of the mask of the ground truth.
        settings: The kind of overlap; see `overlap_loss`.
    """
    if settings.overlap == "tversky":
        wrong = settings.false_positives * (predicted - hits) + settings.false_negatives * (actual - hits)
        return (hits + SMOOTH) / (hits + wrong + SMOOTH)
    return (2 * hits + SMOOTH) / (predicted + actual + SMOOTH).clamp_min(1e-8)


def overlap_loss(
    logits: torch.Tensor,
    ground_truth: GroundTruth,
    settings: LossSettings,
    *,
    batch_dice: bool = False,
    ranks: Ranks = ALONE,
) -> torch.Tensor:
    """Returns minus the mean overlap of the structures, between -1 (perfect) and 0.

    "dice" is soft Dice. "squared_dice" has squares in the denominator. Source: Milletari et al. 2016, V-Net. "tversky"
    weighs false positives and false negatives apart. Source: Salehi et al. 2017, Tversky loss.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        settings: The kind of overlap.
        batch_dice: Whether to sum over the batch before dividing; see `losses.Loss`.
        ranks: The processes that share the batch; see `losses.Loss`.
    """
    axes = tuple(range(2, logits.ndim))
    probabilities, present = structure_probabilities(logits, ground_truth), ground_truth.present
    if ground_truth.counted is not None:
        present = present & ground_truth.counted
    hits = (probabilities * present).sum(axes)
    squares = probabilities.square() if settings.overlap == "squared_dice" else probabilities
    predicted, actual = squares.sum(axes), present.sum(axes)
    if batch_dice:
        hits, predicted, actual = ranks.all_reduce_with_gradient(
            torch.stack([hits.sum(0), predicted.sum(0), actual.sum(0)])
        )
    overlap = overlap_of(hits, predicted, actual, settings)
    return -mean_of_annotated(overlap, ground_truth, batch_dice=batch_dice, ranks=ranks)


def skeleton_loss(
    logits: torch.Tensor,
    ground_truth: GroundTruth,
    skeletons: torch.Tensor,
    *,
    batch_dice: bool = False,
    ranks: Ranks = ALONE,
) -> torch.Tensor:
    """Returns minus the mean recall of the skeletons of the structures, between -1 (all is found) and 0.

    The recall is the sum of the probabilities on a skeleton, divided by its voxels. A structure without a skeleton has
    the recall 1, as an absent one has the Dice 1 where nothing is predicted. Source: Kirchhoff et al. 2024, skeleton
    recall loss.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        skeletons: Thickened skeleton of each structure, shape (n, structures, *size), bool; see `imaging.skeletons`.
        batch_dice: Whether to sum over the batch before dividing; see `losses.Loss`.
        ranks: The processes that share the batch; see `losses.Loss`.
    """
    axes = tuple(range(2, logits.ndim))
    skeletons = skeletons if ground_truth.counted is None else skeletons & ground_truth.counted
    found = (structure_probabilities(logits, ground_truth) * skeletons).sum(axes)
    whole = skeletons.sum(axes)
    if batch_dice:
        found, whole = ranks.all_reduce_with_gradient(torch.stack([found.sum(0), whole.sum(0)]))
    recall = (found + SMOOTH) / (whole + SMOOTH)
    return -mean_of_annotated(recall, ground_truth, batch_dice=batch_dice, ranks=ranks)


def mean_of_annotated(
    values: torch.Tensor, ground_truth: GroundTruth, *, batch_dice: bool, ranks: Ranks
) -> torch.Tensor:
    """Returns the mean over the structures that were annotated: the share of this rank in that of all ranks.

    Args:
        values: Shape (n, structures), or (structures,) if the values are those of the batch of all ranks.
        ground_truth: Says which structures were not annotated.
        batch_dice: Whether the values are those of the batch.
        ranks: The processes that share the batch.
    """
    unknown = ground_truth.unknown
    shape = ground_truth.present.shape[:2]
    known = torch.ones(shape, dtype=torch.bool, device=values.device) if unknown is None else ~unknown
    if batch_dice:
        known = ranks.all_reduce(known.sum(0)) > 0
        return ranks.equal_share((values * known).sum() / known.sum().clamp_min(1))
    return (values * known).sum() / ranks.all_reduce(known.sum()).clamp_min(1)
