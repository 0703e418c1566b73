"""Patches of a batch, rotated, scaled and deformed all at once, on the device where they are."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from autoseg.networks.architecture import Axes

MOST_VOTES = 2**23
"""Corners whose labels are counted at once. Decision: that takes about 120 MB, also in each thread that reads."""


def turn(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    patch: Axes,
    matrices: torch.Tensor,
    field: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolates patches from their surroundings, which have the same middle.

    Beyond them the image is 0; the label is that of the border. Images are interpolated linearly; a label is the one
    with the largest interpolated share, the smallest of several.

    Args:
        images: Surroundings, shape (k, c, *axes) with 2 or 3 axes.
        labels: Shape (k, *axes), integers.
        patch: Voxels of the patches.
        matrices: Map an offset from the middle of a patch to one from that of the surroundings; shape (k, d, d).
        field: Movement of each voxel before that along the last of the axes, shape (k, moving, *patch along these).

    Returns:
        Images (k, c, *patch) and labels (k, *patch).
    """
    sizes = images.shape[2:]
    voxels = _find_voxels(sizes, patch, matrices, field)
    # grid_sample wants the last axis first, from -1 to 1 between the first and the last voxel centre.
    scaled = [voxel * (2 / max(size - 1, 1)) - 1 for voxel, size in zip(voxels, sizes, strict=True)]
    turned = F.grid_sample(images, torch.stack(scaled[::-1], dim=-1), align_corners=True, padding_mode="zeros")
    return turned, elect_labels(labels, voxels)


def _find_voxels(
    sizes: Sequence[int], patch: Axes, matrices: torch.Tensor, field: torch.Tensor | None
) -> list[torch.Tensor]:
    """Where each voxel of the patches is read: the voxel along each axis of the surroundings, shape (k, *patch).

    Sums, not a matrix product, which a GPU may be told to calculate in a precision of a tenth of a voxel.
    """
    axes = len(patch)
    offsets = []
    for axis, size in enumerate(patch):
        line = torch.arange(size, dtype=torch.float32, device=matrices.device) - (size - 1) / 2
        offset = line.reshape([-1 if other == axis else 1 for other in range(axes)])[None]
        still = 0 if field is None else axes - field.shape[1]
        if field is not None and axis >= still:
            shift = field[:, axis - still]
            offset = offset + shift.reshape(len(field), *[1] * still, *shift.shape[1:])
        offsets.append(offset)
    entries = matrices.reshape(*matrices.shape, *[1] * axes)
    voxels = [
        sum((entries[:, row, axis] * offsets[axis] for axis in range(axes)), start=torch.tensor((size - 1) / 2))
        for row, size in enumerate(sizes)
    ]
    return [voxel.expand(len(matrices), *patch) for voxel in voxels]


def elect_labels(labels: torch.Tensor, voxels: Sequence[torch.Tensor]) -> torch.Tensor:
    """The label with the largest linearly interpolated share at each place, the smallest of several.

    The corners of the cell around a place vote, each with its weight. That needs no list of the labels that occur,
    which would have to be waited for, and takes the same time and memory for two labels and for a hundred.

    Args:
        labels: Shape (k, *axes).
        voxels: Of each axis, where to look, shape (k, *patch); beyond the border, the border counts.

    Returns:
        Shape (k, *patch), of the type of `labels`.
    """
    rows = max(1, MOST_VOTES * voxels[0].shape[1] // (voxels[0].numel() * 2 ** len(voxels)))
    slabs = [slice(start, start + rows) for start in range(0, voxels[0].shape[1], rows)]
    return torch.cat([_elect(labels, [voxel[:, slab] for voxel in voxels]) for slab in slabs], dim=1)


def _elect(labels: torch.Tensor, voxels: Sequence[torch.Tensor]) -> torch.Tensor:
    corners, weights = _look_at_corners(labels, voxels)
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


def _look_at_corners(
    labels: torch.Tensor, voxels: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Label and weight of each corner of the cell around each place; both of shape (k, places)."""
    flat = labels.flatten(1)
    indices = [torch.zeros(1, 1, dtype=torch.int64, device=labels.device)]
    weights = [torch.ones(1, 1, device=labels.device)]
    for voxel, size in zip(voxels, labels.shape[1:], strict=True):
        place = voxel.flatten(1).clamp(0, size - 1)
        below = place.floor()
        share = place - below
        low = below.long()
        high = (low + 1).clamp_max(size - 1)
        indices = [index * size + end for index in indices for end in (low, high)]
        weights = [weight * part for weight in weights for part in (1 - share, share)]
    return [flat.gather(1, index) for index in indices], weights
