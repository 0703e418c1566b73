"""Masks of the structures of label maps, as tensors."""

from collections.abc import Iterable

import torch

from autoseg.imaging.targets import Numbers


def structure_masks(labels: torch.Tensor, structures: Iterable[Numbers]) -> torch.Tensor:
    """Returns a mask for each structure.

    Args:
        labels: Label maps, shape (n, *size), integers.
        structures: The numbers that the voxels of each structure have in a label map.

    Returns:
        Shape (n, structures, *size), bool.

    Example:
        >>> structure_masks(torch.tensor([[0, 1, 2]]), [(1, 2), (2,)]).int().tolist()
        [[[0, 1, 1], [0, 0, 1]]]
    """
    masks = []
    for numbers in structures:
        mask = labels == numbers[0]
        for number in numbers[1:]:
            mask = mask | (labels == number)
        masks.append(mask)
    return torch.stack(masks, dim=1)


def structure_channels(segmentation: torch.Tensor, structures: Iterable[Numbers]) -> torch.Tensor:
    """Returns `structure_masks` as channels of an image: float32, 1 inside the structure and 0 elsewhere."""
    return structure_masks(segmentation, structures).float()
