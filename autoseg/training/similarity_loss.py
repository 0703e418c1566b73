"""The loss of structural similarity at several scales, by which a mask has the outline of the ground truth."""

from functools import lru_cache

import torch
import torch.nn.functional as F

from autoseg.training.ground_truth import GroundTruth
from autoseg.training.overlap_loss import mean_of_annotated, structure_probabilities
from autoseg.training.ranks import ALONE, Ranks

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Importance of each scale, from the finest, as Wang et al. found it with observers."""

SIGMA_VOXELS, RADIUS = 1.5, 5
"""Standard deviation and reach of the Gaussian in which a neighbourhood is compared. Source: Wang et al. 2003."""

STABLE_MEAN, STABLE_DEVIATION = 0.01**2, 0.03**2
"""What keeps both quotients defined where means or deviations are 0. Source: Wang et al. 2003, for values 0 to 1."""

LEAST = 0.01
"""Smallest similarity at a scale. Decision: it may be negative, whose power is no number, and the power has an infinite
slope at 0; below this, the other scales and terms of the loss lead."""


def similarity_loss(logits: torch.Tensor, ground_truth: GroundTruth, ranks: Ranks = ALONE) -> torch.Tensor:
    """Returns minus the mean structural similarity at five scales of the structures, between -1 (the same) and 0.

    In the neighbourhood of each voxel, means, deviations and correlation of the probabilities are compared with those
    of the mask; then both are coarsened by 2 and compared again. Neighbourhoods are Gaussian, and beyond the patch its
    border goes on. Deviations and correlation count at each scale, means at the coarsest alone. A structure that is
    absent and nowhere predicted has the similarity 1.

    Source: Wang, Simoncelli, Bovik 2003, Multiscale structural similarity; as a loss of segmentation Huang et al. 2020,
    UNet 3+.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        ranks: The processes that share the batch; see `losses.Loss`.

    Example:
        >>> from autoseg.imaging.label_encoding import TargetLabels
        >>> from autoseg.imaging.targets import Targets
        >>> labels = torch.zeros(1, 32, 32, dtype=torch.long)
        >>> labels[:, 8:20, 8:20] = 1
        >>> truth = GroundTruth.of(TargetLabels(labels), Targets(structures={"a": (1,)}, exclusive=True), None)
        >>> logits = 40 * (torch.nn.functional.one_hot(labels, 2).movedim(3, 1) - 0.5)
        >>> round(float(similarity_loss(logits, truth)), 4), float(similarity_loss(-logits, truth)) > -0.1
        (-1.0, True)
    """
    probabilities, present = structure_probabilities(logits, ground_truth), ground_truth.present
    present = present if ground_truth.counted is None else present & ground_truth.counted
    with torch.autocast(logits.device.type, enabled=False):  # differences of squares need all digits
        return -mean_of_annotated(
            _similarity(probabilities.float(), present.float()), ground_truth, batch_dice=False, ranks=ranks
        )


def _similarity(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Returns the similarity of maps (n, structures, *size), 0 to 1, shape (n, structures)."""
    result = found.new_ones(found.shape[:2])
    axes = tuple(range(2, found.ndim))
    for scale, exponent in enumerate(EXPONENTS):
        means, shapes = _compare(found, wanted)
        is_coarsest = scale == len(EXPONENTS) - 1
        local = means * shapes if is_coarsest else shapes
        result = result * local.mean(axes).clamp_min(LEAST) ** exponent
        if not is_coarsest:
            found, wanted = _halve(found), _halve(wanted)
    return result


def _compare(found: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns for each voxel how alike the means of the neighbourhood are, and how alike what varies in it."""
    mean, other = _blur(found), _blur(wanted)
    variances = _blur(found * found) - mean * mean + _blur(wanted * wanted) - other * other
    covariance = _blur(found * wanted) - mean * other
    means = (2 * mean * other + STABLE_MEAN) / (mean * mean + other * other + STABLE_MEAN)
    return means, (2 * covariance + STABLE_DEVIATION) / (variances.clamp_min(0) + STABLE_DEVIATION)


def _blur(maps: torch.Tensor) -> torch.Tensor:
    for axis, size in enumerate(maps.shape[2:], start=2):
        maps = torch.tensordot(maps, _blur_matrix(size, maps.device), dims=([axis], [1])).movedim(-1, axis)
    return maps


@lru_cache(maxsize=64)
def _blur_matrix(size: int, device: torch.device) -> torch.Tensor:
    """Returns the weights of the voxels of an axis (columns) in the neighbourhood of each (rows)."""
    rows, matrix = torch.arange(size), torch.zeros(size, size)
    distances = range(-RADIUS, RADIUS + 1)
    kernel = torch.exp(-0.5 * (torch.tensor(list(distances)) / SIGMA_VOXELS) ** 2)
    for distance, weight in zip(distances, kernel / kernel.sum(), strict=True):
        matrix[rows, (rows + distance).clamp(0, size - 1)] += weight
    return matrix.to(device)


def _halve(maps: torch.Tensor) -> torch.Tensor:
    """Halves the resolution along each axis of at least two voxels, by the mean of neighbours."""
    steps = [2 if size > 1 else 1 for size in maps.shape[2:]]
    return F.avg_pool2d(maps, steps) if len(steps) == 2 else F.avg_pool3d(maps, steps)
