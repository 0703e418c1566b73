"""The layers of drawn networks in torch, with fresh weights."""

from collections.abc import Callable
from math import cos, pi, prod, sin
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.blocks import InstanceNorm, Upsampling
from autoseg.networks.convolutions import Conv2d, Conv3d, convolve
from autoseg.networks.layer_spec import Kind, Layer

NARROW = 0.02
"""Deviation of fresh weights of linear layers and of offset biases. Source: Dosovitskiy et al. 2021, and most since."""

VARIANCE_EPSILON = 1e-12
"""Added to the variance of weights that are standardized. Source: Zhang et al. 2020, ConResNet."""


class StandardizedConv(nn.Module):
    """Convolution whose weights are brought to mean 0 and deviation 1, output by output, whenever it is used.

    Source: Qiao et al. 2019, "Micro-batch training with batch-channel normalization and weight standardization".
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.empty(layer.features, layer.in_features, *layer.kernel))
        self.bias = nn.Parameter(torch.empty(layer.features)) if layer.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size / stride)."""
        layer = self.layer
        variance, mean = torch.var_mean(self.weight.flatten(1).float(), dim=1)
        shape = (-1, *[1] * (1 + layer.dimensions))
        weight = (self.weight - mean.view(shape)) * (variance + VARIANCE_EPSILON).rsqrt().view(shape)
        dilation = (layer.dilation,) * layer.dimensions
        return convolve(x, weight, self.bias, layer.stride, _padding(layer), dilation)


class Linear(nn.Linear):
    """A linear map of the features of each voxel."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class GroupNorm(nn.GroupNorm):
    """Normalizes groups of features, in the precision of its input.

    Decision: autocast would make it 32 bits on a GPU, and so the maps that it keeps, and what follows it, twice as
    large as memory is planned for; means and deviations are found in 32 bits anyway.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, features, *size) to the same."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class LayerNorm(nn.LayerNorm):
    """Normalizes the features of each voxel.

    Decision: 16-bit maps stay so under autocast, which on a GPU would make float32 of them; torch calculates mean and
    deviation in float32 all the same. What follows would copy them back, each layer for itself, and keep the copies.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, features, *size) to the same."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = (one.to(x.dtype) for one in (self.weight, self.bias))
            return F.layer_norm(x.movedim(1, -1), self.normalized_shape, weight, bias, self.eps).movedim(-1, 1)


class Embedding(nn.Module):
    """Adds learned numbers, the same for all samples."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.features, *layer.kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, features, *size) to the same."""
        return x + self.weight


class OffsetBias(nn.Module):
    """Learned numbers for each offset of two voxels of a window, and each head; see `attention.attend`."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.edges = layer.kernel
        self.weight = nn.Parameter(torch.empty(prod(2 * edge - 1 for edge in layer.kernel), layer.features))


def make_layer(layer: Layer) -> nn.Module:
    """The module of a layer, whose weights are still to be drawn."""
    return _MAKERS[layer.kind](layer)


@torch.no_grad()
def draw_weights(module: nn.Module, layer: Layer) -> None:
    """Gives a layer fresh weights, from torch's own generator.

    Convolutions follow He's normal rule, with biases of 0; slopes of PReLU are 0.25. Source: He et al. 2015, which most
    of the papers name; Decision: the same for those that name none. Linear layers and offset biases are normal with a
    deviation of 0.02, cut off at two of them, and biases 0, as the transformers have it; embeddings likewise. What
    `sample` looks at first is the same for all voxels, all its places count alike, and the weights of both layers are
    0; see `_lay_rays`. Source: Zhu et al. 2021, Deformable DETR.
    """
    if layer.kind in ("conv", "transposed"):
        nn.init.kaiming_normal_(cast(Tensor, module.weight))
        if module.bias is not None:
            nn.init.zeros_(cast(Tensor, module.bias))
    elif layer.kind == "linear":
        nn.init.trunc_normal_(cast(Tensor, module.weight), std=NARROW, a=-2 * NARROW, b=2 * NARROW)
        if layer.bias:
            nn.init.zeros_(cast(Tensor, module.bias))
    elif layer.kind in ("offsets", "shares"):
        nn.init.zeros_(cast(Tensor, module.weight))
        cast(Tensor, module.bias).copy_(_lay_rays(layer) if layer.kind == "offsets" else torch.zeros(layer.features))
    elif layer.kind in ("embedding", "offset_bias"):
        nn.init.trunc_normal_(cast(Tensor, module.weight), std=NARROW, a=-2 * NARROW, b=2 * NARROW)
    elif layer.kind == "instance_norm":
        nn.init.ones_(cast(Tensor, module.weight))
        nn.init.zeros_(cast(Tensor, module.bias))
    else:
        cast(Callable[[], None], module.reset_parameters)()


def _lay_rays(layer: Layer) -> Tensor:
    """Offsets so that each head looks into a direction of its own, its points ever further: 1 voxel, 2, ...

    Source: Deformable DETR, whose directions are even on a circle, and scaled so that the longer part is 1. Decision:
    where there are two heads for each axis, as in CoTr, they look both ways along it.
    """
    axes = layer.dimensions
    directions = torch.zeros(layer.groups, axes)
    if layer.groups == 2 * axes:
        for head in range(layer.groups):
            directions[head, head // 2] = 1 - 2 * (head % 2)
    else:
        for head in range(layer.groups):
            angle = 2 * pi * head / layer.groups
            directions[head, 0], directions[head, 1] = cos(angle), sin(angle)
        directions /= directions.abs().amax(dim=1, keepdim=True)
    steps = torch.arange(1, layer.points + 1)
    maps = layer.features // (layer.groups * layer.points * axes)
    rays = directions[:, None, None, :] * steps[None, None, :, None]
    return rays.expand(-1, maps, -1, -1).flatten()


def _padding(layer: Layer) -> tuple[int, ...]:
    return tuple(layer.dilation * (edge - 1) // 2 if layer.padded else 0 for edge in layer.kernel)


def _make_conv(layer: Layer) -> nn.Module:
    if layer.standardized:
        return StandardizedConv(layer)
    convolution = Conv2d if layer.dimensions == 2 else Conv3d
    return convolution(
        layer.in_features,
        layer.features,
        layer.kernel,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        _padding(layer),  # type: ignore[arg-type]
        layer.dilation,
        bias=layer.bias,
    )


def _make_transposed(layer: Layer) -> nn.Module:
    if layer.bias:
        return Upsampling(layer.in_features, layer.features, layer.stride)
    up = nn.ConvTranspose2d if layer.dimensions == 2 else nn.ConvTranspose3d
    return up(layer.in_features, layer.features, layer.kernel, layer.stride, bias=False)  # type: ignore[arg-type]


def _make_batch_norm(layer: Layer) -> nn.Module:
    norm = nn.BatchNorm2d if layer.dimensions == 2 else nn.BatchNorm3d
    return norm(layer.features, affine=layer.bias)


_MAKERS: dict[Kind, Callable[[Layer], nn.Module]] = {
    "conv": _make_conv,
    "transposed": _make_transposed,
    "linear": lambda layer: Linear(layer.in_features, layer.features, bias=layer.bias),
    "batch_norm": _make_batch_norm,
    "instance_norm": lambda layer: InstanceNorm(layer.features),
    "group_norm": lambda layer: GroupNorm(layer.groups, layer.features),
    "layer_norm": lambda layer: LayerNorm(layer.features),
    "prelu": lambda layer: nn.PReLU(layer.features),
    "offsets": lambda layer: Linear(layer.in_features, layer.features),
    "shares": lambda layer: Linear(layer.in_features, layer.features),
    "embedding": Embedding,
    "offset_bias": OffsetBias,
}
