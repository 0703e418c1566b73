"""Attention among the voxels of a map: all of them, those of a window, or those at places that each voxel chooses."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.networks.ops import Window, spread
from autoseg.networks.windows import bar_strangers, constant, cut, index_offsets, put_together


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, window: Window | None = None, table: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention, in windows; see `canvas.Ops.attend`.

    Decision: under autocast all of it is calculated in 16 bits but the sums of a product and of the softmax, which
    torch keeps in float32 inside; so what autograd keeps takes half of what it would under the rules of autocast.

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
    blocks = tuple(map(min, edges, size))
    shifted = window is not None and window.shifted
    shifts = tuple(edge // 2 if shifted and edge < length else 0 for edge, length in zip(blocks, size, strict=True))
    kind, device = query.device.type, query.device
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    queries, keys, values = (cut(one.to(dtype), blocks, shifts, heads) for one in (query, key, value))
    bias = None if table is None else _look_up(table, index_offsets(blocks, edges, device)).to(dtype)
    apart = any(shifts) or any(length % edge for edge, length in zip(blocks, size, strict=True))
    barrier = bar_strangers(size, blocks, shifts, dtype, device) if apart else None
    with torch.autocast(kind, enabled=False):
        result = _weigh(queries, keys, values, bias, barrier)
    return put_together(result, blocks, shifts, size)


def _weigh(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, barrier: Tensor | None) -> Tensor:
    """Attention of the voxels of each window.

    Args:
        queries: Shape (n, windows, heads, voxels, features of a head), as the next two.
        keys: See above.
        values: See above.
        bias: Added to how well voxels meet, shape (heads, voxels, voxels).
        barrier: Likewise, shape (windows, 1, voxels, voxels).
    """
    if bias is None and barrier is None:
        query, key, value = (one.flatten(0, 1) for one in (queries, keys, values))
        return F.scaled_dot_product_attention(query, key, value).reshape(values.shape)
    scores: Tensor = (queries * queries.shape[-1] ** -0.5) @ keys.mT
    for added in (bias, barrier):
        if added is not None:
            scores += added
    return torch.matmul(scores.softmax(dim=-1), values)


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """What a table holds for each pair of voxels: shape (heads, voxels, voxels)."""
    return F.embedding(index, table).permute(2, 0, 1).contiguous()  # its gradient is the same each time


def sample(values: Sequence[Tensor], offsets: Tensor, weights: Tensor, heads: int) -> Tensor:
    """Deformable attention; see `canvas.Ops.sample`.

    Args:
        values: Maps (n, features, *size).
        offsets: Shape (n, heads * maps * points * axes, voxels of all maps).
        weights: Shape (n, heads * maps * points, voxels of all maps).
        heads: Divide the features.

    Returns:
        Shape (n, features, voxels of all maps).
    """
    samples, features, *size = values[0].shape
    axes, line, dtype = len(size), weights.shape[-1], values[0].dtype
    points = weights.shape[1] // (heads * len(values))
    # In bfloat16 the places that can be told apart along an axis of 256 voxels lie half a voxel apart.
    exact = torch.promote_types(dtype, torch.float32)
    moved = offsets.to(exact).mT.reshape(samples, line, heads, len(values), points, axes).transpose(1, 2)
    shares = weights.to(exact).mT.reshape(samples, line, heads, -1).softmax(dim=3)
    shares = shares.view(samples, line, heads, 1, len(values), points).transpose(1, 2).movedim(2, 3)
    starts = torch.cat([_place_voxels(tuple(one.shape[2:]), one.device, exact) for one in values])  # (line, axes)
    parts = []
    for number, one in enumerate(values):
        grid = moved[:, :, :, number].flatten(0, 1) * _step(tuple(one.shape[2:]), one.device, exact)
        grid = grid + starts[:, None]  # (n * heads, line, points, axes)
        source = one.reshape(samples * heads, features // heads, *one.shape[2:]).to(exact)
        grid = grid if axes == 2 else grid.unsqueeze(3)
        found = F.grid_sample(source, grid, align_corners=False, padding_mode="zeros")
        found = found.to(dtype).view(samples, heads, features // heads, line, points)  # by far the most that is kept
        parts.append((found * shares[..., number, :].to(dtype)).sum(dim=-1))  # (n, heads, features of a head, line)
    return reduce(torch.add, parts).reshape(samples, features, line)


@constant
def _place_voxels(size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The middle of each voxel, along each axis from -1 to 1, the last axis first; shape (voxels, axes)."""
    lines = [(torch.arange(length, dtype=dtype) + 0.5) * (2 / length) - 1 for length in size]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)
    return grid.flatten(0, -2).to(device)


@constant
def _step(size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """How far the middles of two voxels are apart by the same measure; shape (axes)."""
    return torch.tensor([2 / length for length in reversed(size)], dtype=dtype, device=device)


@constant
def positional_encoding(
    features: int, size: tuple[int, ...], device: torch.device, temperature: float = 10_000.0
) -> Tensor:
    """Sines and cosines of the place of each voxel, in turn, of ever longer waves, for one axis after the other.

    Source: Carion et al. 2020, DETR, which continues Vaswani et al. 2017 to several axes: places run from 0 to 2 pi.

    Args:
        features: As many as there are axes, times an even number; those that remain are 0.
        size: Of the map.
        device: Where they are used.
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
    return result.to(device)
