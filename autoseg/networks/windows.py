"""The voxels of a map in the order of windows, and back; which of them must not see each other; how far they are apart.

What depends on sizes alone is worked out once for each, and kept. The order is one index, whatever the shift, where
rolling a volume takes a copy for each axis; and the index takes the gradients back instead of adding them up, so they
are the same each time.

Worked example: along an axis of 5 voxels windows of 2, shifted by 1, hold the voxels 1 2, 3 4, and one that is not
there beside 0.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from math import ceil, prod
from operator import mod
from typing import Any, ParamSpec, cast

import torch
from torch import Tensor

Given = ParamSpec("Given")
Axes = tuple[int, ...]


def cut(x: Tensor, blocks: Axes, shifts: Axes, heads: int) -> Tensor:
    """The voxels of each window: shape (n, windows, heads, voxels, features of a head).

    Where a window sticks out of the map, any voxel stands in; the barrier hides it.
    """
    samples, features, *size = x.shape
    rows, width = x.movedim(1, -1), features // heads
    if blocks == tuple(size):
        return rows.reshape(samples, 1, -1, heads, width).transpose(2, 3)
    place = (tuple(size), blocks, shifts, heads, x.device)
    rows = move(rows.reshape(samples, -1, width), _order(*place), _order_back(*place))
    return rows.view(samples, -1, heads, prod(blocks), width)


def put_together(x: Tensor, blocks: Axes, shifts: Axes, size: Axes) -> Tensor:
    """Undoes `cut`."""
    samples, _, heads, _, width = x.shape
    if blocks == size:
        rows = x.transpose(2, 3)
    else:
        place = (size, blocks, shifts, heads, x.device)
        outside = _find_outside(*place) if any(map(mod, size, blocks)) else None
        rows = move(x.reshape(samples, -1, width), _order_back(*place), _order(*place), outside)
    return rows.reshape(samples, *size, heads * width).movedim(-1, 1)


def move(rows: Tensor, order: Tensor, back: Tensor, missing: Tensor | None = None) -> Tensor:
    """Puts rows (n, rows, width) into another order.

    Args:
        rows: See above.
        order: Which row stands at each place of the result.
        back: Which row of the result each row is; any, if it is none.
        missing: Whether each row is none; None if there are no such rows.
    """
    return cast(Tensor, _Moved.apply(rows, order, back, missing))  # type: ignore[no-untyped-call]


class _Moved(torch.autograd.Function):
    """Rows in another order, whose gradients go back without being added up."""

    @staticmethod
    def forward(rows: Tensor, order: Tensor, back: Tensor, missing: Tensor | None) -> Tensor:  # noqa: ARG004
        return rows.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.back, ctx.missing = inputs[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        moved = gradient.index_select(1, ctx.back)
        return moved if ctx.missing is None else moved.masked_fill_(ctx.missing[:, None], 0), None, None, None


def constant(make: Callable[Given, Tensor]) -> Callable[Given, Tensor]:
    """Remembers tensors that follow from sizes alone.

    They are made as ordinary tensors even in inference mode, so that training may use them later. A compiled network
    works them out where it needs them, as part of what it calculates with them.
    """
    remembered = cast(Callable[Given, Tensor], lru_cache(maxsize=128)(make))

    @wraps(make)
    def look(*args: Given.args, **kwargs: Given.kwargs) -> Tensor:
        if torch.compiler.is_compiling():
            return make(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return remembered(*args, **kwargs)

    return look


@constant
def index_offsets(blocks: Axes, edges: Axes, device: torch.device) -> Tensor:
    """The row of the table of a window of `edges` for each pair of voxels of `blocks`, which are no larger.

    Worked example: along an axis with an edge of 4 the rows 0 to 6 are those of the offsets -3 to 3; in a block of 2
    voxels each sees itself by row 3, the first sees the second by row 2, and the second the first by row 4.
    """
    places = _unravel(prod(blocks), blocks, device)
    apart = [one[:, None] - one[None, :] + edge - 1 for one, edge in zip(places, edges, strict=True)]
    return _ravel(apart, [2 * edge - 1 for edge in edges])


@constant
def bar_strangers(size: Axes, blocks: Axes, shifts: Axes, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Minus infinity for pairs of voxels of a window that must not see each other, else 0.

    These are voxels of parts of the map that were not beside each other before it was shifted around; and places
    outside the map, which see but one another. Shape (windows, 1, voxels, voxels).
    """
    found = _find_voxels(size, blocks, shifts, device)
    begun_anew = [one < shift for one, shift in zip(found, shifts, strict=True)]  # in the last window of an axis alone
    parts = _ravel([*begun_anew, _are_outside(found, size)], [2] * (len(size) + 1))
    strangers = parts[:, None, :, None] != parts[:, None, None, :]
    return torch.zeros(strangers.shape, dtype=dtype, device=device).masked_fill(strangers, -torch.inf)


@constant
def _order(size: Axes, blocks: Axes, shifts: Axes, heads: int, device: torch.device) -> Tensor:
    """The row (voxel, head) of a map that stands at each place (window, head, voxel); outside the map any."""
    found = _find_voxels(size, blocks, shifts, device)
    voxels = _ravel(found, size).masked_fill(_are_outside(found, size), 0)
    return (voxels[:, None] * heads + torch.arange(heads, device=device)[:, None]).flatten().int()


@constant
def _order_back(size: Axes, blocks: Axes, shifts: Axes, heads: int, device: torch.device) -> Tensor:
    """The place of each row."""
    places = _unravel(prod(size), size, device)
    counts, windows, inside = _count_windows(size, blocks), [], []
    for place, edge, shift, count in zip(places, blocks, shifts, counts, strict=True):
        moved = (place + count * edge - shift) % (count * edge)  # never negative, which some compilers get wrong
        windows.append(moved // edge)
        inside.append(moved % edge)
    window, voxel = _ravel(windows, counts)[:, None], _ravel(inside, blocks)[:, None]
    return ((window * heads + torch.arange(heads, device=device)) * prod(blocks) + voxel).flatten().int()


@constant
def _find_outside(size: Axes, blocks: Axes, shifts: Axes, heads: int, device: torch.device) -> Tensor:
    """Whether each place (window, head, voxel) is outside the map."""
    outside = _are_outside(_find_voxels(size, blocks, shifts, device), size)
    return outside[:, None].expand(-1, heads, -1).flatten()


def _find_voxels(size: Axes, blocks: Axes, shifts: Axes, device: torch.device) -> list[Tensor]:
    """Where along each axis the voxels of the windows are, (windows, voxels); beyond the axis if outside the map."""
    counts = _count_windows(size, blocks)
    windows, inside = _unravel(prod(counts), counts, device), _unravel(prod(blocks), blocks, device)
    return [
        (window[:, None] * edge + voxel + shift) % (count * edge)
        for window, voxel, edge, shift, count in zip(windows, inside, blocks, shifts, counts, strict=True)
    ]


def _are_outside(found: Sequence[Tensor], size: Axes) -> Tensor:
    outside = torch.zeros_like(found[0], dtype=torch.bool)
    for one, length in zip(found, size, strict=True):
        outside = outside | (one >= length)
    return outside


def _count_windows(size: Axes, blocks: Axes) -> Axes:
    return tuple(ceil(length / edge) for length, edge in zip(size, blocks, strict=True))


def _unravel(count: int, size: Sequence[int], device: torch.device) -> list[Tensor]:
    """The numbers from 0 on as places in a grid, along each axis."""
    numbers = torch.arange(count, device=device)
    return [numbers // prod(size[axis + 1 :]) % length for axis, length in enumerate(size)]


def _ravel(places: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Undoes `_unravel`."""
    numbers = torch.zeros_like(places[0], dtype=torch.long)
    for place, length in zip(places, size, strict=True):
        numbers = numbers * length + place
    return numbers
