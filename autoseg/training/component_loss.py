"""The loss of each connected component, so that a small lesion counts as much as a large one."""

import torch

from autoseg.dataloading.shapes import MOST_REGIONS
from autoseg.planning.loss_settings import LossSettings
from autoseg.training.ground_truth import GroundTruth
from autoseg.training.overlap_loss import overlap_of, structure_probabilities
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.voxelwise_loss import each_voxel


def component_loss(
    logits: torch.Tensor,
    ground_truth: GroundTruth,
    regions: torch.Tensor,
    settings: LossSettings,
    ranks: Ranks = ALONE,
    borders: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns overlap and voxelwise loss of the region around each component, averaged over the components of a patch.

    Each structure divides a patch into regions: a voxel belongs to the component that is nearest to it. Source:
    Bouteille et al. 2025, arXiv 2511.17146, CC-DiceCE. Decision: components of all structures of a patch count alike,
    then patches count alike, those without a component as 0, so that the loss does not depend on how a batch is split
    over micro-batches and processes. A component of which no voxel is left at a coarse resolution does not count there.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        regions: Number of the region of each voxel, from 1, for each structure, shape (n, structures, *size), int16; 0
            where a structure has no component. See `dataloading.shapes`.
        settings: The terms, and their weights.
        ranks: The processes that share the batch; the loss of each is its share.
        borders: Borders between components, if they weigh more; see `voxelwise_loss.each_voxel`.
    """
    losses, weights = each_voxel(logits, ground_truth, settings, borders)
    losses = losses * weights
    probabilities, present = structure_probabilities(logits, ground_truth), ground_truth.present
    if ground_truth.counted is not None:
        present = present & ground_truth.counted
    total, count = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
    for structure in range(regions.shape[1]):
        channel = structure if losses.shape[1] > 1 else 0
        index = regions[:, structure].flatten(1).long()
        actual = _sum_by_region(present[:, structure], index)
        value = logits.new_zeros(actual.shape)
        if settings.overlap != "none":
            value = value - settings.overlap_weight * _overlap_by_region(
                probabilities[:, structure], present[:, structure], actual, index, settings
            )
        if settings.voxelwise != "none":
            whole = _sum_by_region(weights[:, channel], index).clamp_min(1e-8)
            value = value + settings.voxelwise_weight * _sum_by_region(losses[:, channel], index) / whole
        occurs = actual > 0
        total = total + torch.where(occurs, value, 0.0).sum(1)
        count = count + occurs.sum(1)
    patches = ranks.all_reduce(torch.tensor(float(len(logits))))
    return (total / count.clamp_min(1)).sum() / float(patches)


def _overlap_by_region(
    probabilities: torch.Tensor,
    present: torch.Tensor,
    actual: torch.Tensor,
    index: torch.Tensor,
    settings: LossSettings,
) -> torch.Tensor:
    """Returns the overlap of a structure in each region, shape (n, regions); see `overlap_loss.overlap_of`."""
    hits = _sum_by_region(probabilities * present, index)
    squares = probabilities.square() if settings.overlap == "squared_dice" else probabilities
    return overlap_of(hits, _sum_by_region(squares, index), actual, settings)


def _sum_by_region(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Returns the sum of values (n, *size) over each region, shape (n, regions); `index` has shape (n, voxels).

    There are as many regions as a patch may have, so that nothing is asked of the device, which would be waited for.
    """
    sums = torch.zeros(len(index), MOST_REGIONS + 1, device=index.device)
    return sums.scatter_add(1, index, values.flatten(1).float())
