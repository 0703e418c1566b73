"""Attention among the voxels of a feature map: in windows, or at sampling points that each voxel chooses."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.networks.ops import Window, per_axis
from autoseg.networks.windows import (
    attention_mask,
    cached_constant,
    index_relative_positions,
    merge_windows,
    partition_windows,
)


def window_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, window: Window | None = None, table: Tensor | None = None
) -> Tensor:
    """Applies multi-head attention in windows; see `ops.Ops.attention`.

    Decision: under autocast everything is calculated in 16 bits except the accumulation of products and of the softmax,
    which torch keeps in float32 internally; so what autograd keeps takes half of what it would under the rules of
    autocast.

    Args:
        query: Queries, shape (n, features, *size); the features of each head are consecutive.
        key: Keys, of the same shape.
        value: Values, of the same shape.
        heads: Number of heads, which divides the features.
        window: See `ops.Window`; None for one window as large as the map.
        table: Relative position bias of the layer that the window names, shape (offsets, heads).

    Returns:
        Shape (n, features, *size).
    """
    size = tuple(int(length) for length in query.shape[2:])
    edges = size if window is None else per_axis(window.edges, len(size))
    window_size = tuple(map(min, edges, size))
    is_shifted = window is not None and window.shifted
    shifts = tuple(
        edge // 2 if is_shifted and edge < length else 0 for edge, length in zip(window_size, size, strict=True)
    )
    kind, device = query.device.type, query.device
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    queries, keys, values = (partition_windows(x.to(dtype), window_size, shifts, heads) for x in (query, key, value))
    bias = None
    if table is not None:
        bias = _look_up_bias(table, index_relative_positions(window_size, edges, device)).to(dtype)
    needs_mask = any(shifts) or any(length % edge for edge, length in zip(window_size, size, strict=True))
    mask = attention_mask(size, window_size, shifts, dtype, device) if needs_mask else None
    with torch.autocast(kind, enabled=False):
        result = _scaled_dot_product_attention(queries, keys, values, bias, mask)
    return merge_windows(result, window_size, shifts, size)


def _scaled_dot_product_attention(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Applies attention within each window.

    Args:
        queries: Shape (n, windows, heads, voxels, head features), as `keys` and `values`.
        keys: See above.
        values: See above.
        bias: Added to the scores, shape (heads, voxels, voxels).
        mask: Added to the scores, 0 or minus infinity, shape (windows, 1, voxels, voxels).
    """
    if bias is None and mask is None:
        query, key, value = (x.flatten(0, 1) for x in (queries, keys, values))
        return F.scaled_dot_product_attention(query, key, value).reshape(values.shape)
    scores: Tensor = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    for term in (bias, mask):
        if term is not None:
            scores += term
    return torch.matmul(scores.softmax(dim=-1), values)


def _look_up_bias(table: Tensor, index: Tensor) -> Tensor:
    """Returns the bias for each pair of voxels: shape (heads, voxels, voxels)."""
    return F.embedding(index, table).permute(2, 0, 1).contiguous()  # its gradient is deterministic


def deformable_attention(values: Sequence[Tensor], offsets: Tensor, weights: Tensor, heads: int) -> Tensor:
    """Applies deformable attention; see `ops.Ops.deformable_attention`.

    Args:
        values: Feature maps (n, features, *size).
        offsets: Sampling offsets in voxels, shape (n, heads * maps * points * axes, tokens).
        weights: Attention weights before the softmax, shape (n, heads * maps * points, tokens).
        heads: Number of heads, which divides the features.

    Returns:
        Shape (n, features, tokens), where the tokens are the voxels of all maps.
    """
    samples, features, *size = values[0].shape
    axes, tokens, dtype = len(size), weights.shape[-1], values[0].dtype
    points = weights.shape[1] // (heads * len(values))
    # In bfloat16 the positions that can be told apart along an axis of 256 voxels lie half a voxel apart.
    exact = torch.promote_types(dtype, torch.float32)
    moves = offsets.to(exact).mT.reshape(samples, tokens, heads, len(values), points, axes).transpose(1, 2)
    shares = weights.to(exact).mT.reshape(samples, tokens, heads, -1).softmax(dim=3)
    shares = shares.view(samples, tokens, heads, 1, len(values), points).transpose(1, 2).movedim(2, 3)
    centres = torch.cat([_voxel_centres(tuple(x.shape[2:]), x.device, exact) for x in values])  # (tokens, axes)
    parts = []
    for number, feature_map in enumerate(values):
        map_size, device = tuple(feature_map.shape[2:]), feature_map.device
        grid = moves[:, :, :, number].flatten(0, 1) * _voxel_steps(map_size, device, exact)
        grid = grid + centres[:, None]  # (n * heads, tokens, points, axes)
        source = feature_map.reshape(samples * heads, features // heads, *map_size).to(exact)
        grid = grid if axes == 2 else grid.unsqueeze(3)
        sampled = F.grid_sample(source, grid, align_corners=False, padding_mode="zeros")
        # This is by far the largest tensor that autograd keeps here.
        sampled = sampled.to(dtype).view(samples, heads, features // heads, tokens, points)
        parts.append((sampled * shares[..., number, :].to(dtype)).sum(dim=-1))  # (n, heads, head features, tokens)
    return reduce(torch.add, parts).reshape(samples, features, tokens)


@cached_constant
def _voxel_centres(size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns the centre of each voxel from -1 to 1 along each axis, the last axis first; shape (voxels, axes)."""
    lines = [(torch.arange(length, dtype=dtype) + 0.5) * (2 / length) - 1 for length in size]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)
    return grid.flatten(0, -2).to(device)


@cached_constant
def _voxel_steps(size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns the distance between neighbouring voxel centres in the same coordinates; shape (axes)."""
    return torch.tensor([2 / length for length in reversed(size)], dtype=dtype, device=device)


@cached_constant
def positional_encoding(
    features: int, size: tuple[int, ...], device: torch.device, temperature: float = 10_000.0
) -> Tensor:
    """Returns sinusoidal positional encodings: pairs of sine and cosine of growing wavelength, axis after axis.

    Source: Carion et al. 2020, DETR, which extends Vaswani et al. 2017 to several axes: positions run from 0 to 2 pi.

    Args:
        features: Number of features. Each axis gets an equal, even number; the features that remain are 0.
        size: Voxels along each axis of the map.
        device: Device of the result.
        temperature: Ratio of the longest to the shortest wavelength.

    Returns:
        Shape (features, *size), float32.
    """
    width = features // len(size) // 2 * 2
    result = torch.zeros(features, *size)
    wavelengths = temperature ** (torch.arange(0, width, 2) / max(width, 1))
    for axis, length in enumerate(size):
        positions = (torch.arange(length) + 0.5) / length * 2 * torch.pi
        angles = positions[None, :] / wavelengths[:, None]
        encoded = torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
        shape = [-1 if other == axis else 1 for other in range(len(size))]
        result[axis * width : (axis + 1) * width] = encoded.view(width, *shape)
    return result.to(device)
