"""Label maps of single patches, interpolated by the threads that read them.

Most voxels of a patch lie between eight voxels of one label, which is theirs too. Only for the others, at the borders
of structures, shares of labels are compared.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.warping import interpolate_labels

MOST_SHARES = 12
"""Number of labels up to which positions and shares are rounded as torch's `grid_sample` rounds them.

Decision: so that a seed gives the same patches in all versions of the package, of which the first one called that
function for each label, up to this number of labels.
"""

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
    last = torch.tensor([size - 1 for size in reversed(label.shape)]).float()
    few = int(label.max()) - int(label.min()) < MOST_SHARES or len(np.unique(label)) <= MOST_SHARES
    positions = (grid[0] + 1).div_(2).mul_(last) if few else offsets.flip(-1).add_(last / 2)
    positions = torch.minimum(positions.clamp_min_(0), last, out=positions)
    winner = _label_cells(label)[_find_cells(positions, label.shape)]
    mixed = (winner == MIXED).nonzero(as_tuple=True)
    if len(mixed[0]):
        places = positions[mixed].T[None]
        winner[mixed] = interpolate_labels(torch.from_numpy(label)[None], places, last, last_axis_first=few)[0].short()
    return winner


def _label_cells(label: NDArray[np.integer]) -> torch.Tensor:
    """Returns the label of each cell between eight voxels, `MIXED` for a cell of several labels; flat, int16.

    A cell has the index of its first voxel. The cells that begin at the last voxel of an axis end there too.
    """
    lowest, highest = label.copy(), label.copy()
    for axis in range(label.ndim):
        before = tuple(slice(None, -1) if other == axis else slice(None) for other in range(label.ndim))
        after = tuple(slice(1, None) if other == axis else slice(None) for other in range(label.ndim))
        np.minimum(lowest[before], lowest[after], out=lowest[before])
        np.maximum(highest[before], highest[after], out=highest[before])
    cells = lowest.astype(np.int16)
    cells[lowest != highest] = MIXED
    return torch.from_numpy(cells).flatten()


def _find_cells(positions: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Returns the flat index of the cell around each position (*patch, 3) inside the label map, x first."""
    x, y, z = positions.int().unbind(-1)
    return (z * shape[1] + y) * shape[2] + x
