"""Partition of a feature map into shifted windows, its reversal, the attention mask, and relative positions.

Whatever depends on sizes alone is calculated once for each size and cached. The partition is a single index, whatever
the shift, where rolling a volume takes a copy for each axis; and gradients are gathered by the inverse index instead of
being accumulated, so they are deterministic.

Worked example: along an axis of 5 voxels, windows of 2 that are shifted by 1 hold the voxels 1 and 2, 3 and 4, and one
voxel of padding and 0.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from math import ceil, prod
from operator import mod
from typing import Any, ParamSpec, cast

import torch
from torch import Tensor

from autoseg.networks.tracing import is_traced

Parameters = ParamSpec("Parameters")
Axes = tuple[int, ...]


def partition_windows(x: Tensor, window_size: Axes, shifts: Axes, heads: int) -> Tensor:
    """Partitions a map (n, features, *size) into windows.

    Where a window reaches beyond the map, any voxel stands in as padding; the attention mask hides it.

    Args:
        x: The feature map.
        window_size: Voxels of a window along each axis, at most those of the map.
        shifts: Voxels by which the windows are shifted along each axis.
        heads: Number of heads, which divides the features.

    Returns:
        Shape (n, windows, heads, voxels of a window, head features).
    """
    (samples, features), size = x.shape[:2], [int(length) for length in x.shape[2:]]
    rows, width = x.movedim(1, x.ndim - 1), features // heads
    if window_size == tuple(size):
        return rows.reshape(samples, 1, -1, heads, width).transpose(2, 3)
    layout = (tuple(size), window_size, shifts, heads, x.device)
    rows = reorder_rows(rows.reshape(samples, -1, width), _partition_order(*layout), _merge_order(*layout))
    return rows.view(samples, -1, heads, prod(window_size), width)


def merge_windows(x: Tensor, window_size: Axes, shifts: Axes, size: Axes) -> Tensor:
    """Undoes `partition_windows`: returns the map (n, features, *size)."""
    samples, _, heads, _, width = x.shape
    if window_size == size:
        rows = x.transpose(2, 3)
    else:
        layout = (size, window_size, shifts, heads, x.device)
        padding = _mark_padding(*layout) if any(map(mod, size, window_size)) else None
        rows = reorder_rows(x.reshape(samples, -1, width), _merge_order(*layout), _partition_order(*layout), padding)
    return rows.reshape(samples, *size, heads * width).movedim(len(size) + 1, 1)


def reorder_rows(rows: Tensor, order: Tensor, inverse: Tensor, padding: Tensor | None = None) -> Tensor:
    """Reorders rows (n, rows, width), with a deterministic gradient.

    Args:
        rows: See above.
        order: Index of the input row at each output position.
        inverse: Index of the output row of each input row; arbitrary for padding.
        padding: Whether each input row is padding and is dropped; None if there is no padding.
    """
    if is_traced():
        return rows.index_select(1, order)
    return cast(Tensor, _ReorderRows.apply(rows, order, inverse, padding))  # type: ignore[no-untyped-call]


class _ReorderRows(torch.autograd.Function):
    """Reorders rows; the gradient is gathered by the inverse index instead of being accumulated."""

    @staticmethod
    def forward(rows: Tensor, order: Tensor, inverse: Tensor, padding: Tensor | None) -> Tensor:  # noqa: ARG004
        return rows.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.inverse, ctx.padding = inputs[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows = gradient.index_select(1, ctx.inverse)
        return rows if ctx.padding is None else rows.masked_fill_(ctx.padding[:, None], 0), None, None, None


def cached_constant(make: Callable[Parameters, Tensor]) -> Callable[Parameters, Tensor]:
    """Caches tensors that depend on sizes alone.

    They are made as ordinary tensors even in inference mode, so that training may use them later. A compiled network
    calculates them where it needs them, as part of its graph.
    """
    cached = cast(Callable[Parameters, Tensor], lru_cache(maxsize=128)(make))

    @wraps(make)
    def look_up(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Tensor:
        if torch.compiler.is_compiling():
            return make(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return cached(*args, **kwargs)

    return look_up


@cached_constant
def index_relative_positions(window_size: Axes, edges: Axes, device: torch.device) -> Tensor:
    """Returns the row in the relative position table for each pair of voxels of a window.

    The table is that of windows of `edges` voxels; `window_size` is no larger.

    Worked example: along an axis with an edge of 4 the rows 0 to 6 are those of the offsets -3 to 3. In a window of 2
    voxels each voxel attends to itself by row 3, the first to the second by row 2, and the second to the first by row
    4.
    """
    positions = _unravel(prod(window_size), window_size, device)
    offsets = [
        position[:, None] - position[None, :] + edge - 1 for position, edge in zip(positions, edges, strict=True)
    ]
    return _ravel(offsets, [2 * edge - 1 for edge in edges])


@cached_constant
def attention_mask(size: Axes, window_size: Axes, shifts: Axes, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns minus infinity for pairs of voxels of a window that must not attend to each other, else 0.

    These are voxels from opposite borders of the map, which the shift brought into one window; and padding, which
    attends to padding alone. Shape (windows, 1, voxels, voxels).
    """
    positions = _window_positions(size, window_size, shifts, device)
    # Only in the last window of an axis do positions wrap around to the first voxels.
    wrapped = [position < shift for position, shift in zip(positions, shifts, strict=True)]
    regions = _ravel([*wrapped, _is_padding(positions, size)], [2] * (len(size) + 1))
    masked = regions[:, None, :, None] != regions[:, None, None, :]
    return torch.zeros(masked.shape, dtype=dtype, device=device).masked_fill(masked, -torch.inf)


@cached_constant
def _partition_order(size: Axes, window_size: Axes, shifts: Axes, heads: int, device: torch.device) -> Tensor:
    """Returns the row (voxel, head) of the map for each (window, head, voxel); any row for padding."""
    positions = _window_positions(size, window_size, shifts, device)
    voxels = _ravel(positions, size).masked_fill(_is_padding(positions, size), 0)
    return (voxels[:, None] * heads + torch.arange(heads, device=device)[:, None]).flatten().int()


@cached_constant
def _merge_order(size: Axes, window_size: Axes, shifts: Axes, heads: int, device: torch.device) -> Tensor:
    """Returns the index of (window, head, voxel) for each row (voxel, head) of the map."""
    positions = _unravel(prod(size), size, device)
    counts, windows, inside = _count_windows(size, window_size), [], []
    for position, edge, shift, count in zip(positions, window_size, shifts, counts, strict=True):
        moved = (position + count * edge - shift) % (count * edge)  # never negative, which some compilers get wrong
        windows.append(moved // edge)
        inside.append(moved % edge)
    window, voxel = _ravel(windows, counts)[:, None], _ravel(inside, window_size)[:, None]
    return ((window * heads + torch.arange(heads, device=device)) * prod(window_size) + voxel).flatten().int()


@cached_constant
def _mark_padding(size: Axes, window_size: Axes, shifts: Axes, heads: int, device: torch.device) -> Tensor:
    """Returns whether each (window, head, voxel) is padding."""
    padding = _is_padding(_window_positions(size, window_size, shifts, device), size)
    return padding[:, None].expand(-1, heads, -1).flatten()


def _window_positions(size: Axes, window_size: Axes, shifts: Axes, device: torch.device) -> list[Tensor]:
    """Returns the position of each voxel of each window along each axis, shape (windows, voxels).

    A position beyond the axis is padding.
    """
    counts = _count_windows(size, window_size)
    windows, inside = _unravel(prod(counts), counts, device), _unravel(prod(window_size), window_size, device)
    return [
        (window[:, None] * edge + voxel + shift) % (count * edge)
        for window, voxel, edge, shift, count in zip(windows, inside, window_size, shifts, counts, strict=True)
    ]


def _is_padding(positions: Sequence[Tensor], size: Axes) -> Tensor:
    padding = torch.zeros_like(positions[0], dtype=torch.bool)
    for position, length in zip(positions, size, strict=True):
        padding = padding | (position >= length)
    return padding


def _count_windows(size: Axes, window_size: Axes) -> Axes:
    return tuple(ceil(length / edge) for length, edge in zip(size, window_size, strict=True))


def _unravel(count: int, size: Sequence[int], device: torch.device) -> list[Tensor]:
    """Turns the indices 0 to `count` - 1 into positions along each axis of a grid."""
    indices = torch.arange(count, device=device)
    return [indices // prod(size[axis + 1 :]) % length for axis, length in enumerate(size)]


def _ravel(positions: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Turns positions along each axis of a grid into indices; undoes `_unravel`."""
    indices = torch.zeros_like(positions[0], dtype=torch.long)
    for position, length in zip(positions, size, strict=True):
        indices = indices * length + position
    return indices
