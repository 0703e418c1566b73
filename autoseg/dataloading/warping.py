"""Rotates, scales and deforms patches of a batch all at once, on the device that holds them.

Positions in a source region have the last axis first, as torch's `grid_sample` wants them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from autoseg.networks.architecture import Axes

MOST_CORNERS = {"cpu": 2**18, "cuda": 2**25}
"""Number of corners whose labels are compared at once, by type of device; on others as on a CUDA GPU.

Decision: on a CPU so few that they stay in the cache of a core. On a GPU, where each operation has a cost, two patches
of 128 x 128 x 128 voxels at once: that takes 0.6 GB, which the feature maps of a training step occupy afterwards.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpGrid:
    """Where the voxels of k patches lie in their source regions of d axes, as small tensors; see `make_grid`.

    The position of a voxel is the centre of the source region plus one term for each axis of the patch.

    Attributes:
        last: Index of the last voxel along each axis of the source regions, shape (1, d, 1, ...), float32.
        scale: Converts positions from 0 to `last` into positions from 0 to 2, of the same shape.
        terms: Term of each axis that is not deformed, shape (k, d, 1, ..., size, ..., 1).
        lines: Offset of each voxel along each axis that is deformed from the centre, shape (size, 1, ...).
        columns: What an offset along each of these axes is multiplied by, shape (k, d, 1, ...).
    """

    last: torch.Tensor
    scale: torch.Tensor
    terms: tuple[torch.Tensor, ...]
    lines: tuple[torch.Tensor, ...]
    columns: tuple[torch.Tensor, ...]

    def find_positions(self, field: torch.Tensor | None) -> torch.Tensor:
        """Returns where each voxel of the patches is read.

        Calculated by sums, not by a matrix product, which a GPU may be told to calculate in a precision of a tenth of a
        voxel.

        Args:
            field: Displacement of each voxel along each deformed axis; see `warp`.

        Returns:
            Position along each axis of the source regions, the last axis first, in voxels; shape (k, d, *patch).
        """
        positions = self.last / 2
        for term in self.terms:
            positions = positions + term
        if field is not None:
            undeformed = [1] * len(self.terms)
            for line, column, shift in zip(self.lines, self.columns, field.unbind(1), strict=True):
                offset = (line + shift).reshape(len(shift), 1, *undeformed, *shift.shape[1:])
                positions = positions + column * offset
        return positions


def make_grid(sizes: Sequence[int], patch: Axes, matrices: NDArray[np.floating], deformed: int = 0) -> WarpGrid:
    """Prepares the grid of a warp on the CPU.

    Args:
        sizes: Size of the source regions along each axis, in voxels.
        patch: Size of the patches along the same axes, in voxels.
        matrices: Map an offset from the centre of a patch to one from the centre of its source region, in voxels; shape
            (k, d, d).
        deformed: Number of axes, counted from the last one, along which voxels are displaced before.
    """
    axes = len(patch)
    last = torch.tensor([size - 1 for size in reversed(sizes)]).float()
    rows = torch.from_numpy(np.ascontiguousarray(matrices[:, ::-1])).float()
    columns = [rows[:, :, axis].reshape(len(rows), axes, *[1] * axes) for axis in range(axes)]
    lines = [
        (torch.arange(size, dtype=torch.float32) - (size - 1) / 2).reshape(-1, *[1] * (axes - 1 - axis))
        for axis, size in enumerate(patch)
    ]
    plain = axes - deformed
    return WarpGrid(
        last=last.reshape(1, axes, *[1] * axes),
        scale=torch.tensor([2 / max(size - 1, 1) for size in reversed(sizes)]).reshape(1, axes, *[1] * axes),
        terms=tuple(column * line for column, line in zip(columns[:plain], lines, strict=False)),
        lines=tuple(lines[plain:]),
        columns=tuple(columns[plain:]),
    )


def warp(
    images: torch.Tensor, labels: torch.Tensor, *, grid: WarpGrid, field: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolates patches from their source regions, which have the same centres.

    Beyond a source region the image is 0, and the label is that of the border. Images are interpolated linearly; a
    label is the one with the largest interpolated share, the smallest label if several have it.

    Args:
        images: Images of the source regions, shape (k, c, *axes) with 2 or 3 axes.
        labels: Label maps of the source regions, shape (k, *axes), integers.
        grid: Where the voxels lie, on the device of the images.
        field: Displacement of each voxel before the matrix is applied, along the deformed axes of the grid, in voxels;
            shape (k, deformed axes, *patch along these axes).

    Returns:
        Images (k, c, *patch) and labels (k, *patch).

    Example:
        Doubled in size, the line 1, 2, 3 is read between its voxels:

        >>> line = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> grid = make_grid((1, 3), (1, 3), np.array([[[0.5, 0.0], [0.0, 0.5]]]))
        >>> images, labels = warp(line, line[0].long(), grid=grid)
        >>> images.tolist(), labels.tolist()
        ([[[[1.5, 2.0, 2.5]]]], [[[1, 2, 2]]])
    """
    positions = grid.find_positions(field)
    # grid_sample wants numbers from -1 to 1 between the first and the last voxel centre.
    scaled = (positions * grid.scale).sub_(1).movedim(1, -1)
    warped = F.grid_sample(images, scaled, align_corners=True, padding_mode="zeros")
    return warped, interpolate_labels(labels, positions, grid.last)


def interpolate_labels(
    labels: torch.Tensor, positions: torch.Tensor, last: torch.Tensor, *, last_axis_first: bool = False
) -> torch.Tensor:
    """Returns the label with the largest linearly interpolated share at each position, the smallest one of several.

    Each corner of the cell around a position votes for its label, with its linear weight. That needs no list of the
    labels that occur, which would have to be waited for, and takes the same time and memory for two labels and for a
    hundred.

    Args:
        labels: Label maps, shape (k, *axes), integers.
        positions: Positions along the axes, the last axis first, in voxels, shape (k, d, *patch); beyond the border,
            the border counts.
        last: Index of the last voxel along each axis, the last axis first, d numbers of any shape, float32.
        last_axis_first: Whether the shares along the last axis are multiplied first, as `grid_sample` does it; else
            those along the first axis. The last bit of a product may differ.

    Returns:
        Shape (k, *patch), of the type of `labels`.

    Example:
        >>> positions = torch.tensor([[[-1.0, 0.2, 0.5, 0.7]]])
        >>> interpolate_labels(torch.tensor([[5, 8]]), positions, torch.tensor([1.0]))
        tensor([[5, 5, 5, 8]])
    """
    maps, axes, length, *_ = positions.shape
    most = MOST_CORNERS.get(labels.device.type, MOST_CORNERS["cuda"])
    rows = max(1, most * length // (maps * prod(positions.shape[2:]) * 2**axes))
    ends = [*range(0, length, rows), length]
    slabs = [
        _interpolate_slab(labels, positions[:, :, slice(*pair)], last, last_axis_first=last_axis_first)
        for pair in pairwise(ends)
    ]
    return torch.cat(slabs, dim=1) if len(slabs) > 1 else slabs[0]


def _interpolate_slab(
    labels: torch.Tensor, positions: torch.Tensor, last: torch.Tensor, *, last_axis_first: bool
) -> torch.Tensor:
    """Adds up the shares of the labels of all corners at once, corner by corner, and so always in the same order."""
    corners, weights = _gather_corners(labels, positions.flatten(2), last, last_axis_first=last_axis_first)
    shares = torch.zeros_like(weights)
    for label, weight in zip(corners, weights, strict=True):
        shares.addcmul_(weight, corners == label)
    corners.masked_fill_(shares < shares.amax(0), torch.iinfo(labels.dtype).max)
    return corners.amin(0).reshape(len(labels), *positions.shape[2:])


def _gather_corners(
    labels: torch.Tensor, positions: torch.Tensor, last: torch.Tensor, *, last_axis_first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the label and the linear weight of each corner of the cell around each position.

    Args:
        labels: Label maps, shape (k, *axes).
        positions: Positions, shape (k, d, positions).
        last: Index of the last voxel along each axis.
        last_axis_first: See `interpolate_labels`.

    Returns:
        Labels and weights, both of shape (corners, k, positions); the first axis has the corners of an axis of the
        label maps outside those of the axes that follow.
    """
    maps, axes, _ = positions.shape
    last = last.reshape(1, axes, 1)
    inside = positions.clamp_min(0).minimum(last)
    below = inside.floor()
    index = _index_corners(labels.shape[1:], below, last)
    corners = labels.reshape(1, maps, -1).expand(len(index), maps, -1).gather(2, index)
    del index  # it takes more memory than all else
    share = inside - below
    weights = _multiply(torch.stack([1 - share, share]).unbind(2), last_axis_first=last_axis_first)
    return corners, weights


def _index_corners(sizes: Sequence[int], below: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Returns the flat index of each corner of the cells that begin at voxels (k, d, positions), int64."""
    ends = torch.stack([below, (below + 1).minimum(last)]).int()  # (2, k, d, positions)
    *others, index = ends.unbind(2)
    for end, size in zip(reversed(others), sizes[1:], strict=True):
        index = torch.add(end, index[:, None], alpha=size).flatten(0, 1)
    return index.long()


def _multiply(shares: Sequence[torch.Tensor], *, last_axis_first: bool) -> torch.Tensor:
    """Returns the products of the shares (2, k, positions) of all axes, the last axis first, for each corner."""
    if last_axis_first:
        weights, *others = shares
        for share in others:
            weights = (share[:, None] * weights).flatten(0, 1)
    else:
        *others, weights = shares
        for share in reversed(others):
            weights = (weights[:, None] * share).flatten(0, 1)
    return weights
