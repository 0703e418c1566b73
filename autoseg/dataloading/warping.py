"""Rotates, scales and deforms patches of a batch all at once, on the device that holds them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from autoseg.networks.architecture import Axes

MOST_CORNERS = 2**23
"""Number of corners whose labels are compared at once. Decision: it takes 120 MB, also in each thread that reads."""


def warp(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    patch: Axes,
    matrices: torch.Tensor,
    field: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolates patches from their source regions, which have the same centres.

    Beyond a source region the image is 0, and the label is that of the border. Images are interpolated linearly; a
    label is the one with the largest interpolated share, the smallest label if several have it.

    Args:
        images: Images of the source regions, shape (k, c, *axes) with 2 or 3 axes.
        labels: Label maps of the source regions, shape (k, *axes), integers.
        patch: Size of the patches, in voxels.
        matrices: Map an offset from the centre of a patch to one from the centre of its source region, in voxels; shape
            (k, d, d).
        field: Displacement of each voxel before the matrix is applied, along the last of the axes, in voxels; shape
            (k, deformed axes, *patch along these axes).

    Returns:
        Images (k, c, *patch) and labels (k, *patch).

    Example:
        Doubled in size, the line 1, 2, 3 is read between its voxels:

        >>> line = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> half = torch.tensor([[[0.5, 0.0], [0.0, 0.5]]])
        >>> images, labels = warp(line, line[0].long(), patch=(1, 3), matrices=half, field=None)
        >>> images.tolist(), labels.tolist()
        ([[[[1.5, 2.0, 2.5]]]], [[[1, 2, 2]]])
    """
    sizes = images.shape[2:]
    voxels = _find_voxels(sizes, patch, matrices, field)
    # grid_sample wants the last axis first, from -1 to 1 between the first and the last voxel centre.
    scaled = [voxel * (2 / max(size - 1, 1)) - 1 for voxel, size in zip(voxels, sizes, strict=True)]
    warped = F.grid_sample(images, torch.stack(scaled[::-1], dim=-1), align_corners=True, padding_mode="zeros")
    return warped, interpolate_labels(labels, voxels)


def _find_voxels(
    sizes: Sequence[int], patch: Axes, matrices: torch.Tensor, field: torch.Tensor | None
) -> list[torch.Tensor]:
    """Returns where each voxel of the patches is read.

    Calculated by sums, not by a matrix product, which a GPU may be told to calculate in a precision of a tenth of a
    voxel.

    Returns:
        For each axis of the source regions, the position along that axis in voxels; shape (k, *patch).
    """
    axes = len(patch)
    offsets = []
    for axis, size in enumerate(patch):
        line = torch.arange(size, dtype=torch.float32, device=matrices.device) - (size - 1) / 2
        offset = line.reshape([-1 if other == axis else 1 for other in range(axes)])[None]
        undeformed = 0 if field is None else axes - field.shape[1]
        if field is not None and axis >= undeformed:
            shift = field[:, axis - undeformed]
            offset = offset + shift.reshape(len(field), *[1] * undeformed, *shift.shape[1:])
        offsets.append(offset)
    entries = matrices.reshape(*matrices.shape, *[1] * axes)
    voxels = [
        sum((entries[:, row, axis] * offsets[axis] for axis in range(axes)), start=torch.tensor((size - 1) / 2))
        for row, size in enumerate(sizes)
    ]
    return [voxel.expand(len(matrices), *patch) for voxel in voxels]


def interpolate_labels(labels: torch.Tensor, voxels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the label with the largest linearly interpolated share at each position, the smallest one of several.

    Each corner of the cell around a position votes for its label, with its linear weight. That needs no list of the
    labels that occur, which would have to be waited for, and takes the same time and memory for two labels and for a
    hundred.

    Args:
        labels: Label maps, shape (k, *axes).
        voxels: For each axis, the position along it in voxels, shape (k, *patch); beyond the border, the border counts.

    Returns:
        Shape (k, *patch), of the type of `labels`.

    Example:
        >>> interpolate_labels(torch.tensor([[5, 8]]), [torch.tensor([[-1.0, 0.2, 0.5, 0.7]])])
        tensor([[5, 5, 5, 8]])
    """
    rows = max(1, MOST_CORNERS * voxels[0].shape[1] // (voxels[0].numel() * 2 ** len(voxels)))
    slabs = [slice(start, start + rows) for start in range(0, voxels[0].shape[1], rows)]
    return torch.cat([_interpolate_slab(labels, [voxel[:, slab] for voxel in voxels]) for slab in slabs], dim=1)


def _interpolate_slab(labels: torch.Tensor, voxels: Sequence[torch.Tensor]) -> torch.Tensor:
    corners, weights = _gather_corners(labels, voxels)
    best = torch.full_like(weights[0], -1.0)
    winner = corners[0]
    for candidate in corners:
        share = torch.zeros_like(best)
        for label, weight in zip(corners, weights, strict=True):
            share = share.addcmul_(weight, (label == candidate).to(weight.dtype))
        better = (share > best) | ((share == best) & (candidate < winner))
        best = torch.maximum(best, share)
        winner = torch.where(better, candidate, winner)
    return winner.reshape(voxels[0].shape)


def _gather_corners(
    labels: torch.Tensor, voxels: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns the label and the linear weight of each corner of the cell around each position.

    Returns:
        A list of labels and a list of weights, one of each for every corner, of shape (k, positions).
    """
    flat = labels.flatten(1)
    indices = [torch.zeros(1, 1, dtype=torch.int64, device=labels.device)]
    weights = [torch.ones(1, 1, device=labels.device)]
    for voxel, size in zip(voxels, labels.shape[1:], strict=True):
        position = voxel.flatten(1).clamp(0, size - 1)
        below = position.floor()
        share = position - below
        low = below.long()
        high = (low + 1).clamp_max(size - 1)
        indices = [index * size + end for index in indices for end in (low, high)]
        weights = [weight * part for weight in weights for part in (1 - share, share)]
    return [flat.gather(1, index) for index in indices], weights
