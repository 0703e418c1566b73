"""Attention among the voxels of a map: all of them, those of a window, or those at places that each voxel chooses."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.networks.canvas import Window, spread


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, window: Window | None = None, table: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention, in windows; see `canvas.Canvas.attend`.

    Args:
        query: Shape (n, features, *size), as `key` and `value`; of each head the features lie beside each other.
        key: See above.
        value: See above.
        heads: Divide the features.
        window: See `canvas.Window`; None for one that is as large as the map.
        table: What the layer that the window names holds, shape (offsets, heads).

    Returns:
        Shape (n, features, *size).
    """
    size = tuple(query.shape[2:])
    edges = size if window is None else spread(window.edges, len(size))
    windows = tuple(map(min, edges, size))
    shifted = window is not None and window.shifted
    shifts = tuple(edge // 2 if shifted and edge < length else 0 for edge, length in zip(windows, size, strict=True))
    queries, keys, values = (_cut(one, windows, shifts, heads) for one in (query, key, value))
    mask: Tensor | None = None
    if table is not None:
        offsets = _index_offsets(windows, edges).to(table.device)
        mask = table[offsets.flatten()].view(*offsets.shape, heads).permute(2, 0, 1)  # (heads, voxels, voxels)
        mask = mask.to(query.dtype)
    if any(shifts) or any(length % edge for edge, length in zip(windows, size, strict=True)):
        apart = _find_strangers(size, windows, shifts).to(query.device)  # (windows, voxels, voxels)
        barrier = torch.zeros(apart.shape, dtype=query.dtype, device=query.device).masked_fill_(apart, -torch.inf)
        barrier = barrier[:, None].repeat(len(query), 1, 1, 1)
        mask = barrier if mask is None else barrier + mask
    elif mask is not None:
        mask = mask[None]
    result = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return _put_together(result, windows, shifts, size, len(query))


def _cut(x: Tensor, windows: tuple[int, ...], shifts: tuple[int, ...], heads: int) -> Tensor:
    """The voxels of each window: shape (n * windows, heads, voxels, features of a head)."""
    samples, features, *size = x.shape
    x = x.movedim(1, -1)
    counts = [ceil(length / edge) for length, edge in zip(size, windows, strict=True)]
    missing = [count * edge - length for count, edge, length in zip(counts, windows, size, strict=True)]
    if any(missing):
        x = F.pad(x, [0, 0, *(width for absent in reversed(missing) for width in (0, absent))])
    if any(shifts):
        x = x.roll([-shift for shift in shifts], dims=list(range(1, 1 + len(size))))
    axes = len(size)
    x = x.reshape(samples, *(part for pair in zip(counts, windows, strict=True) for part in pair), heads, -1)
    order = [0, *range(1, 2 * axes, 2), 2 * axes + 1, *range(2, 2 * axes + 1, 2), 2 * axes + 2]
    return x.permute(order).reshape(samples * prod(counts), heads, prod(windows), features // heads)


def _put_together(
    x: Tensor, windows: tuple[int, ...], shifts: tuple[int, ...], size: tuple[int, ...], samples: int
) -> Tensor:
    """Undoes `_cut`."""
    axes, heads, width = len(size), x.shape[1], x.shape[3]
    counts = [ceil(length / edge) for length, edge in zip(size, windows, strict=True)]
    x = x.reshape(samples, *counts, heads, *windows, width)
    pairs = (axis for number in range(axes) for axis in (1 + number, 2 + axes + number))
    x = x.permute(0, *pairs, 1 + axes, 2 + 2 * axes)
    x = x.reshape(samples, *(count * edge for count, edge in zip(counts, windows, strict=True)), heads * width)
    if any(shifts):
        x = x.roll(shifts, dims=list(range(1, 1 + axes)))
    return x[(slice(None), *(slice(length) for length in size))].movedim(-1, 1)


@lru_cache(maxsize=64)
def _index_offsets(windows: tuple[int, ...], edges: tuple[int, ...]) -> Tensor:
    """The row of the table of a window of `edges` for each pair of voxels of `windows`, which are no larger."""
    places = torch.cartesian_prod(*map(torch.arange, windows)).view(prod(windows), len(windows))
    index = torch.zeros(len(places), len(places), dtype=torch.long)
    for axis, edge in enumerate(edges):
        apart = places[:, None, axis] - places[None, :, axis] + edge - 1
        index = index * (2 * edge - 1) + apart
    return index


@lru_cache(maxsize=64)
def _find_strangers(size: tuple[int, ...], windows: tuple[int, ...], shifts: tuple[int, ...]) -> Tensor:
    """Pairs of voxels of a window that must not see each other: of parts of the map that were not beside each other.

    Voxels that the map was padded with are a part of their own. Shape (windows, voxels, voxels), bool.
    """
    parts = torch.zeros(1, 1, *(ceil(length / edge) * edge for length, edge in zip(size, windows, strict=True)))
    for axis, (length, edge, shift) in enumerate(zip(size, windows, shifts, strict=True)):
        whole = parts.shape[2 + axis]
        line = torch.zeros(whole)
        line[length:] = 1
        line = line.roll(-shift)
        if shift:
            line[whole - edge : whole - shift] += 2
            line[whole - shift :] += 4
        parts = parts * 8 + line.view([-1 if other == axis else 1 for other in range(len(size))])
    cut = _cut(parts, windows, (0,) * len(size), 1)[:, 0, :, 0]
    return cut[:, :, None] != cut[:, None, :]


def sample(values: Sequence[Tensor], offsets: Tensor, weights: Tensor, heads: int) -> Tensor:
    """Deformable attention; see `canvas.Canvas.sample`.

    Args:
        values: Maps (n, features, *size).
        offsets: Shape (n, heads * maps * points * axes, voxels of all maps).
        weights: Shape (n, heads * maps * points, voxels of all maps).
        heads: Divide the features.

    Returns:
        Shape (n, features, voxels of all maps).
    """
    samples, features = values[0].shape[:2]
    axes, line = values[0].ndim - 2, weights.shape[-1]
    points = weights.shape[1] // (heads * len(values))
    moved = offsets.float().view(samples, heads, len(values), points, axes, line)
    counts = weights.view(samples, heads, -1, line).softmax(dim=2).view(samples, heads, len(values), points, line)
    starts = torch.cat([_place_voxels(one.shape[2:], one.device) for one in values])  # (line, axes), from 0 to 1
    total: Tensor | None = None
    for number, one in enumerate(values):
        extent = torch.tensor(one.shape[:1:-1], dtype=torch.float32, device=one.device)
        places = starts + moved[:, :, number].permute(0, 1, 4, 2, 3).flatten(0, 1).movedim(1, 2) / extent
        grid = 2 * places.movedim(1, 2) - 1  # (n * heads, line, points, axes)
        grid = grid if axes == 2 else grid.unsqueeze(3)
        source = one.reshape(samples * heads, features // heads, *one.shape[2:])
        seen = F.grid_sample(source, grid.to(source.dtype), align_corners=False, padding_mode="zeros")
        seen = seen.view(samples, heads, features // heads, line, points)
        part = torch.einsum("nhflp,nhpl->nhfl", seen, counts[:, :, number].to(seen.dtype))
        total = part if total is None else total + part
    if total is None:
        raise ValueError("there is nothing to sample")
    return total.reshape(samples, features, line)


def _place_voxels(size: Sequence[int], device: torch.device) -> Tensor:
    """The middle of each voxel, as a share of each axis, the last axis first; shape (voxels, axes)."""
    lines = [(torch.arange(length, device=device) + 0.5) / length for length in size]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)
    return grid.flatten(0, -2)


@lru_cache(maxsize=16)
def waves(features: int, size: tuple[int, ...], temperature: float = 10_000.0) -> Tensor:
    """Sines and cosines of the place of each voxel, in turn, of ever longer waves, for one axis after the other.

    Source: Carion et al. 2020, DETR, which continues Vaswani et al. 2017 to several axes: places run from 0 to 2 pi.

    Args:
        features: As many as there are axes, times an even number; those that remain are 0.
        size: Of the map.
        temperature: How much longer the longest wave is than the shortest.

    Returns:
        Shape (features, *size), float32.
    """
    width = features // len(size) // 2 * 2
    result = torch.zeros(features, *size)
    lengths = temperature ** (torch.arange(0, width, 2) / max(width, 1))
    for axis, length in enumerate(size):
        places = (torch.arange(length) + 0.5) / length * 2 * torch.pi
        angles = places[None, :] / lengths[:, None]
        encoded = torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
        shape = [-1 if other == axis else 1 for other in range(len(size))]
        result[axis * width : (axis + 1) * width] = encoded.view(width, *shape)
    return result
