"""The operations in torch, which apply the layers of a network to tensors."""

# ruff: noqa: ARG002, D102 - a layer module knows its properties, so only its name is used; `Ops` has the docstrings

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.attention import deformable_attention, positional_encoding, window_attention
from autoseg.networks.instance_norm import NEGATIVE_SLOPE
from autoseg.networks.ops import ABSENCE_PENALTY, Edges, Window, per_axis


@dataclass(frozen=True, slots=True)
class TorchOps:
    """The operations in torch; see `ops.Ops` for each of them.

    Attributes:
        network: The network whose submodules are the layers.
    """

    network: nn.Module

    @property
    def training(self) -> bool:
        """Whether the network is in training mode."""
        return self.network.training

    # --- Layers with weights ------------------------------------------------------------------------------------------

    def conv(  # noqa: PLR0913 - see `Ops`
        self,
        x: Tensor,
        features: int,
        kernel: Edges,
        name: str,
        *,
        stride: Edges = 1,
        bias: bool = True,
        dilation: int = 1,
        padded: bool = True,
        standardized: bool = False,
    ) -> Tensor:
        return self._apply(name, x)

    def transposed_conv(self, x: Tensor, features: int, stride: Edges, name: str, *, bias: bool = True) -> Tensor:
        return self._apply(name, x)

    def linear(self, x: Tensor, features: int, name: str, *, bias: bool = True) -> Tensor:
        return self._apply(name, x)

    def batch_norm(self, x: Tensor, name: str, *, affine: bool = True) -> Tensor:
        return self._apply(name, x)

    def instance_norm(self, x: Tensor, name: str) -> Tensor:
        return self._apply(name, x)

    def group_norm(self, x: Tensor, groups: int, name: str) -> Tensor:
        return self._apply(name, x)

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        return self._apply(name, x)

    def prelu(self, x: Tensor, name: str) -> Tensor:
        return self._apply(name, x)

    def add_embedding(self, x: Tensor, name: str) -> Tensor:
        return self._apply(name, x)

    def add_position_embedding(self, x: Tensor, name: str) -> Tensor:
        return self._apply(name, x)

    # --- Attention ----------------------------------------------------------------------------------------------------

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int, window: Window | None = None) -> Tensor:
        bias = None if window is None else window.bias
        table = None if bias is None else cast(Tensor, self.network.get_submodule(bias).weight)
        return window_attention(query, key, value, heads, window, table)

    def deformable_attention(
        self, tokens: Tensor, values: Sequence[Tensor], heads: int, points: int, name: str
    ) -> Tensor:
        offsets, weights = self._apply(f"{name}.offsets", tokens), self._apply(f"{name}.weights", tokens)
        return deformable_attention(values, offsets, weights, heads)

    def positional_encoding(self, like: Tensor) -> Tensor:
        return positional_encoding(like.shape[1], tuple(like.shape[2:]), like.device).to(like.dtype).expand_as(like)

    def flatten_maps(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat([x.flatten(2).mT for x in maps], dim=1).mT  # features last, as linear layers want them

    def unflatten_maps(self, tokens: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
        parts = torch.split(tokens, [x[0, 0].numel() for x in like], dim=2)
        return [part.reshape(*part.shape[:2], *x.shape[2:]) for part, x in zip(parts, like, strict=True)]

    # --- Without weights ----------------------------------------------------------------------------------------------

    def relu(self, x: Tensor) -> Tensor:
        return F.relu_(x)

    def leaky_relu(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(x, NEGATIVE_SLOPE)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def sigmoid(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def dropout(self, x: Tensor, rate: float, *, whole_maps: bool = False) -> Tensor:
        if not self.training or rate == 0:
            return x
        return (
            F.dropout3d(x, rate)
            if whole_maps and x.ndim == 5
            else F.dropout2d(x, rate)
            if whole_maps
            else F.dropout(x, rate)
        )

    def drop_path(self, x: Tensor, rate: float) -> Tensor:
        if not self.training or rate == 0:
            return x
        kept = torch.rand([len(x), *[1] * (x.ndim - 1)], device=x.device) >= rate
        return x * (kept.to(x.dtype) / (1 - rate))

    def max_pool(self, x: Tensor, factor: int, *, kernel: int | None = None) -> Tensor:
        pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
        return pool(x, kernel or factor, factor, padding=0 if kernel is None else kernel // 2)

    def global_max_pool(self, x: Tensor) -> Tensor:
        return x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)

    def resize(self, x: Tensor, like: Tensor, *, align_corners: bool = False) -> Tensor:
        return x if x.shape[2:] == like.shape[2:] else _interpolate(x, like.shape[2:], align_corners)

    def upsample(self, x: Tensor, factor: Edges, *, align_corners: bool = False) -> Tensor:
        factors = per_axis(factor, x.ndim - 2)
        return _interpolate(
            x, [length * times for length, times in zip(x.shape[2:], factors, strict=True)], align_corners
        )

    def center_crop(self, x: Tensor, like: Tensor) -> Tensor:
        for axis, inner in enumerate(like.shape[2:], start=2):
            x = x.narrow(axis, (x.shape[axis] - inner) // 2, inner)
        return x

    def space_to_depth(self, x: Tensor, factor: int) -> Tensor:
        axes, size = x.ndim - 2, x.shape[2:]
        blocks = x.reshape(*x.shape[:2], *(part for length in size for part in (length // factor, factor)))
        order = [0, *range(3, 3 + 2 * axes, 2), 1, *range(2, 2 + 2 * axes, 2)]
        return blocks.permute(order).reshape(len(x), -1, *(length // factor for length in size))

    def depth_to_space(self, x: Tensor, factor: int) -> Tensor:
        axes, size = x.ndim - 2, x.shape[2:]
        blocks = x.reshape(len(x), *[factor] * axes, -1, *size)  # (n, *block, features, *size)
        order = [0, 1 + axes, *(axis for number in range(axes) for axis in (2 + axes + number, 1 + number))]
        return blocks.permute(order).reshape(len(x), -1, *(length * factor for length in size))

    def slice_difference(self, x: Tensor) -> Tensor:
        change = (x[:, :, 1:] - x[:, :, :-1]).abs()
        return torch.cat([torch.zeros_like(x[:, :, :1]), change], dim=2)

    def concat(self, values: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(values), dim=1)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight

    def mask_absent(self, x: Tensor, present: Tensor, absent: Tensor) -> Tensor:
        return x - ABSENCE_PENALTY * (absent > present).to(x.dtype)

    def mean(self, values: Sequence[Tensor]) -> Tensor:
        return reduce(torch.add, values) / len(values)

    def repeat_features(self, x: Tensor, features: int) -> Tensor:
        present = x.shape[1]
        return x if present == features else torch.cat([x] * -(-features // present), dim=1)[:, :features]

    def features(self, x: Tensor) -> int:
        return x.shape[1]

    def size(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[2:])

    def _apply(self, name: str, x: Tensor) -> Tensor:
        return cast(Tensor, self.network.get_submodule(name)(x))


def _interpolate(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(x, size=list(size), mode=mode, align_corners=align_corners)
