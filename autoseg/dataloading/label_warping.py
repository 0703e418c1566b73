"""Label maps of single patches, interpolated by the threads that read them.

Most voxels of a patch lie between eight voxels of one label, which is theirs too. Only for the others, at the borders
of structures, shares of labels are interpolated.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from autoseg.dataloading.warping import interpolate_labels

MOST_SHARES = 12
"""Number of labels up to which the share of each label is interpolated.

Decision: for more labels, comparing the corners of cells is faster; see `warping.interpolate_labels`.
"""

SHARES_AT_ONCE = 4
"""Number of labels whose shares are interpolated together. Decision: it takes little memory, and more gain little."""

MIXED = np.iinfo(np.int16).min
"""Marks cells of several labels."""


def warp_labels(label: NDArray[np.integer], offsets: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Returns the label with the largest linearly interpolated share at each position, the smallest one of several.

    Args:
        label: Label map, shape (z, y, x).
        offsets: Offset of each position from the centre of the label map, in voxels, shape (*patch, 3), z first.
        grid: The same positions as `grid_sample` wants them, shape (1, *patch, 3), x first.

    Returns:
        Shape (*patch), int16.

    Example:
        >>> offsets = torch.tensor([[[[0.0, 0.0, -0.4], [0.0, 0.0, 0.1]]]])
        >>> warp_labels(np.array([[[3, 5]]]), offsets, 2 * offsets.flip(-1)[None])
        tensor([[[3, 5]]], dtype=torch.int16)
    """
    values = np.unique(label)
    last = torch.tensor([size - 1 for size in reversed(label.shape)]).float()
    # Calculated as `grid_sample` and `interpolate_labels` do it, so that a position is in the same cell here.
    few = len(values) <= MOST_SHARES
    positions = (grid[0] + 1) / 2 * last if few else offsets.flip(-1) + last / 2
    winner = _label_cells(label)[_find_cells(positions, last, label.shape)]
    mixed = (winner == MIXED).nonzero(as_tuple=True)
    if not len(mixed[0]):
        return winner
    if few:
        winner[mixed] = _compare_shares(label, values, grid[0][mixed])
    else:
        places = positions[mixed].T[None]
        winner[mixed] = interpolate_labels(torch.from_numpy(label)[None], places, last)[0].short()
    return winner


def _label_cells(label: NDArray[np.integer]) -> torch.Tensor:
    """Returns the label of each cell between eight voxels, `MIXED` for a cell of several labels; flat, int16.

    A cell has the index of its first voxel. The cells that begin at the last voxel of an axis end there too.
    """
    lowest, highest = label.astype(np.int16), label.astype(np.int16)
    for axis in range(label.ndim):
        before = tuple(slice(None, -1) if other == axis else slice(None) for other in range(label.ndim))
        after = tuple(slice(1, None) if other == axis else slice(None) for other in range(label.ndim))
        np.minimum(lowest[before], lowest[after], out=lowest[before])
        np.maximum(highest[before], highest[after], out=highest[before])
    lowest[lowest != highest] = MIXED
    return torch.from_numpy(lowest).flatten()


def _find_cells(positions: torch.Tensor, last: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Returns the flat index of the cell around each position (*patch, 3), x first; the border counts beyond it."""
    x, y, z = positions.clamp_min(0).minimum(last).int().unbind(-1)
    return (z * shape[1] + y) * shape[2] + x


def _compare_shares(label: NDArray[np.integer], values: NDArray[np.integer], grid: torch.Tensor) -> torch.Tensor:
    """Returns the label of the largest share at each position (n, 3) of a grid, int16."""
    winner = torch.full((len(grid),), int(values[0]), dtype=torch.int16)
    best = torch.zeros(len(grid))
    for start in range(0, len(values), SHARES_AT_ONCE):  # the shares of all labels at once would fill the memory
        group = values[start : start + SHARES_AT_ONCE]
        for value, share in zip(group, _find_shares(label, group, grid), strict=True):
            winner[share > best] = int(value)
            best = torch.maximum(best, share)
    return winner


def _find_shares(label: NDArray[np.integer], values: NDArray[np.integer], grid: torch.Tensor) -> torch.Tensor:
    """Returns the linearly interpolated share of some labels at each position (n, 3), shape (labels, n)."""
    indicators = torch.from_numpy(np.stack([label == value for value in values]).astype(np.float32))
    shares = F.grid_sample(indicators[None], grid[None, None, None], align_corners=True, padding_mode="border")
    return shares[0, :, 0, 0]
