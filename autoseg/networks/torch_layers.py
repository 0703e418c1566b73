"""The layers of networks of the literature as torch modules, and the initialization of their weights."""

from collections.abc import Callable
from math import cos, pi, prod, sin
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.blocks import Upsampling
from autoseg.networks.convolutions import Conv2d, Conv3d, convolve
from autoseg.networks.instance_norm import InstanceNorm
from autoseg.networks.layer_spec import Kind, LayerSpec

INITIAL_STD = 0.02
"""Standard deviation of initial weights of linear layers and of relative position biases.

Source: Dosovitskiy et al. 2021, and most transformers since.
"""

VARIANCE_EPSILON = 1e-12
"""Added to the variance of weights that are standardized. Source: Zhang et al. 2020, ConResNet."""


class StandardizedConv(nn.Module):
    """Convolution whose weights are standardized to mean 0 and standard deviation 1 per output feature in each pass.

    Source: Qiao et al. 2019, "Micro-batch training with batch-channel normalization and weight standardization".
    """

    def __init__(self, layer: LayerSpec) -> None:
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
    """Linear layer over the features of each voxel."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size)."""
        return super().forward(x.movedim(1, x.ndim - 1)).movedim(x.ndim - 1, 1)


class GroupNorm(nn.GroupNorm):
    """Group norm in the precision of its input.

    Decision: autocast would calculate it in 32 bits on a GPU, and so the maps that autograd keeps, and what follows
    them, would be twice as large as memory is planned for; mean and standard deviation are found in 32 bits anyway.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, features, *size) to the same."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class LayerNorm(nn.LayerNorm):
    """Layer norm over the features of each voxel.

    Decision: 16-bit maps stay 16-bit under autocast, which on a GPU would turn them into float32; torch calculates mean
    and standard deviation in float32 all the same. Each following layer would copy float32 maps back to 16 bits, and
    keep its copy.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, features, *size) to the same."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x.movedim(1, x.ndim - 1), self.normalized_shape, weight, bias, self.eps).movedim(
                x.ndim - 1, 1
            )


class Embedding(nn.Module):
    """Adds a learned embedding, the same for all samples."""

    def __init__(self, layer: LayerSpec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.features, *layer.kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, features, *size) to the same."""
        return x + self.weight


class RelativePositionBias(nn.Module):
    """Table of the relative position bias: a learned number per offset and head; see `attention.window_attention`."""

    def __init__(self, layer: LayerSpec) -> None:
        super().__init__()
        self.edges = layer.kernel
        self.weight = nn.Parameter(torch.empty(prod(2 * edge - 1 for edge in layer.kernel), layer.features))


def make_layer(layer: LayerSpec) -> nn.Module:
    """Returns the module of a layer, with weights still to be initialized."""
    return _MAKERS[layer.kind](layer)


@torch.no_grad()
def initialize_weights(module: nn.Module, layer: LayerSpec) -> None:
    """Initializes the weights of a layer from torch's global generator.

    Convolutions follow He's normal rule, with biases of 0; slopes of PReLU are 0.25. Source: He et al. 2015, which most
    of the papers name; Decision: the same for those that name none. Linear layers, relative position biases and
    embeddings are normal with a standard deviation of 0.02, truncated at twice that, and biases 0, as the transformers
    have it. The two linear layers of deformable attention have weights of 0, so all voxels begin with the same sampling
    offsets, see `_initial_offsets`, and equal attention weights. Source: Zhu et al. 2021, Deformable DETR.
    """
    if layer.kind in ("conv", "transposed_conv"):
        nn.init.kaiming_normal_(cast(Tensor, module.weight))
        if module.bias is not None:
            nn.init.zeros_(cast(Tensor, module.bias))
    elif layer.kind == "linear":
        nn.init.trunc_normal_(cast(Tensor, module.weight), std=INITIAL_STD, a=-2 * INITIAL_STD, b=2 * INITIAL_STD)
        if layer.bias:
            nn.init.zeros_(cast(Tensor, module.bias))
    elif layer.kind in ("offsets", "point_weights"):
        nn.init.zeros_(cast(Tensor, module.weight))
        cast(Tensor, module.bias).copy_(
            _initial_offsets(layer) if layer.kind == "offsets" else torch.zeros(layer.features)
        )
    elif layer.kind in ("embedding", "relative_position_bias"):
        nn.init.trunc_normal_(cast(Tensor, module.weight), std=INITIAL_STD, a=-2 * INITIAL_STD, b=2 * INITIAL_STD)
    elif layer.kind == "instance_norm":
        nn.init.ones_(cast(Tensor, module.weight))
        nn.init.zeros_(cast(Tensor, module.bias))
    else:
        cast(Callable[[], None], module.reset_parameters)()


def _initial_offsets(layer: LayerSpec) -> Tensor:
    """Returns initial sampling offsets: one direction per head, its points at 1 voxel, 2 voxels, ... from the voxel.

    Source: Deformable DETR, whose directions are spaced evenly on a circle, and scaled so that the larger component is
    1. Decision: where there are two heads for each axis, as in CoTr, they point both ways along it.
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
    offsets = directions[:, None, None, :] * steps[None, None, :, None]
    return offsets.expand(-1, maps, -1, -1).flatten()


def _padding(layer: LayerSpec) -> tuple[int, ...]:
    return tuple(layer.dilation * (edge - 1) // 2 if layer.padded else 0 for edge in layer.kernel)


def _make_conv(layer: LayerSpec) -> nn.Module:
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


def _make_transposed(layer: LayerSpec) -> nn.Module:
    if layer.bias:
        return Upsampling(layer.in_features, layer.features, layer.stride)
    conv = nn.ConvTranspose2d if layer.dimensions == 2 else nn.ConvTranspose3d
    return conv(layer.in_features, layer.features, layer.kernel, layer.stride, bias=False)  # type: ignore[arg-type]


def _make_batch_norm(layer: LayerSpec) -> nn.Module:
    norm = nn.BatchNorm2d if layer.dimensions == 2 else nn.BatchNorm3d
    return norm(layer.features, affine=layer.bias)


_MAKERS: dict[Kind, Callable[[LayerSpec], nn.Module]] = {
    "conv": _make_conv,
    "transposed_conv": _make_transposed,
    "linear": lambda layer: Linear(layer.in_features, layer.features, bias=layer.bias),
    "batch_norm": _make_batch_norm,
    "instance_norm": lambda layer: InstanceNorm(layer.features),
    "group_norm": lambda layer: GroupNorm(layer.groups, layer.features),
    "layer_norm": lambda layer: LayerNorm(layer.features),
    "prelu": lambda layer: nn.PReLU(layer.features),
    "offsets": lambda layer: Linear(layer.in_features, layer.features),
    "point_weights": lambda layer: Linear(layer.in_features, layer.features),
    "embedding": Embedding,
    "relative_position_bias": RelativePositionBias,
}
