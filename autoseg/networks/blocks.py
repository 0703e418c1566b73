"""The building blocks of the networks, in 2D and 3D, each of them fast on a CPU as well.

On a CPU, and on a GPU with tensor cores, feature maps are stored with the channels last: convolutions then read and
write them without reordering.
Two layers of torch undo that order or are slow in it, and are replaced, here and in `instance_norm`; the replacements
hold the same parameters under the same names.
"""

from collections.abc import Iterator
from functools import reduce
from itertools import chain
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.architecture import Stage
from autoseg.networks.convolutions import Conv2d, Conv3d
from autoseg.networks.instance_norm import InstanceNorm
from autoseg.networks.joined_input import convolve_both
from autoseg.networks.tracing import is_traced


class ConvBlock(nn.Module):
    """Convolution with bias, instance norm, leaky ReLU.

    Args:
        in_features: Channels of the input.
        features: Channels of the output.
        kernel: Kernel size along each axis, odd; the border is padded so that a stride of 1 keeps the size.
        stride: Stride along each axis.
    """

    def __init__(self, in_features: int, features: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        convolution = Conv2d if len(kernel) == 2 else Conv3d
        padding = tuple(size // 2 for size in kernel)
        self.conv: Conv2d | Conv3d = convolution(in_features, features, kernel, stride, padding)  # type: ignore[arg-type]
        self.norm = InstanceNorm(features)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, skip: Tensor | None = None) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size / stride).

        Args:
            x: Input.
            shortcut: A map of the shape of the output that is added before the activation.
            skip: The last channels of the input, if `x` holds the first ones alone.
        """
        x = self.conv(x) if skip is None else convolve_both(self.conv, x, skip)
        return self.norm.activate(x, shortcut)


class ConvStage(nn.Module):
    """The convolutions of one resolution level, plain or with shortcuts.

    Source: V-Net (Milletari et al. 2016, section 2): the stage learns a residual, and the sum is activated. Decision:
    the output of the first convolution serves as the stage input that is added, since it has the stage's size and
    number of features; the paper repeats the channels of the input instead.

    Args:
        in_features: Channels of the input.
        stage: Features, kernel, convolutions and blocks of the stage; its stride is that of the first convolution.
        residual: Whether to add the input of each block to the output of its last convolution, before the activation.
            The input of the first block has another shape, so it adds the output of its first convolution instead,
            or nothing if it has no other.
    """

    def __init__(self, in_features: int, stage: Stage, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.convolutions = stage.convolutions
        self.blocks = nn.ModuleList([ConvBlock(in_features, stage.features, stage.kernel, stage.stride)])
        for _ in range(stage.blocks * stage.convolutions - 1):
            self.blocks.append(ConvBlock(stage.features, stage.features, stage.kernel, (1,) * len(stage.kernel)))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size / stride); for `skip` see `ConvBlock`."""
        first, *others = self.blocks
        x = shortcut = first(x, skip=skip)
        for number, block in enumerate(others, start=2):
            ends_block = number % self.convolutions == 0
            x = block(x, shortcut if self.residual and ends_block else None)
            if ends_block:
                shortcut = x
        return x


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut around them.

    Source: the basic block of ResNet-D (He et al. 2019, "Bag of tricks for image classification"), as the encoder of
    the reference method's residual U-Net has it (nnU-Net v2.8.1).

    Args:
        in_features: Channels of the input.
        features: Channels of the output.
        kernel: Kernel size of both convolutions along each axis.
        stride: Stride of the first convolution and of the shortcut along each axis.
    """

    def __init__(self, in_features: int, features: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.first = ConvBlock(in_features, features, kernel, stride)
        self.second = ConvBlock(features, features, kernel, (1,) * len(kernel))
        self.shortcut = Shortcut(in_features, features, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size / stride)."""
        return cast(Tensor, self.second(self.first(x), self.shortcut(x)))


class Shortcut(nn.Module):
    """Brings the input of a residual block to the shape of its output; the identity if the shapes are equal.

    It averages neighbouring voxels if there is a stride; then, if the number of features changes, it applies a
    convolution of kernel 1 without bias and an instance norm.

    Args:
        in_features: Channels of the input.
        features: Channels of the output.
        stride: Stride along each axis.
    """

    def __init__(self, in_features: int, features: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.widens = in_features != features
        if self.widens:
            convolution = Conv2d if len(stride) == 2 else Conv3d
            self.conv = convolution(in_features, features, 1, bias=False)
            self.norm = InstanceNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size / stride)."""
        x = average_pool(x, self.stride)
        return cast(Tensor, self.norm(self.conv(x))) if self.widens else x


def average_pool(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Averages blocks of voxels: maps (n, c, *size) to (n, c, *size / stride).

    Decision: it pools one axis after the other. Torch's own pooling of volumes on a CPU turns 16-bit maps into float32,
    keeps such a copy for the backward pass, and undoes the order of the channels; this keeps nothing and is faster
    there.
    """
    for axis, step in enumerate(stride, start=2):
        if step > 1:
            neighbours = x.view(*x.shape[:axis], -1, step, *x.shape[axis + 1 :]).unbind(axis + 1)
            x = reduce(torch.add, neighbours) / step
    return x


def residual_stage(in_features: int, stage: Stage) -> nn.Sequential:
    """Returns the blocks of one level of a residual encoder; the first one has the stride and changes the features."""
    no_stride = (1,) * len(stage.kernel)
    first = ResidualBlock(in_features, stage.features, stage.kernel, stage.stride)
    others = (ResidualBlock(stage.features, stage.features, stage.kernel, no_stride) for _ in range(stage.blocks - 1))
    return nn.Sequential(first, *others)


class Upsampling(nn.Module):
    """Transposed convolution whose kernel equals its stride: every voxel becomes a block of voxels.

    Decision: such blocks do not overlap, so on a CPU they are calculated by one matrix product followed by a
    reordering; the gradient of torch's transposed convolution takes several times as long there. Volumes on an Apple
    GPU too, for which torch has no transposed convolution before version 2.8. Source: pytorch issue 154615.

    Args:
        in_features: Channels of the input.
        features: Channels of the output.
        stride: Upsampling factor of each axis.
    """

    def __init__(self, in_features: int, features: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(in_features, features, *stride))
        self.bias = nn.Parameter(torch.empty(features))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_features, *size) to (n, features, *size * stride)."""
        if not is_traced() and (x.device.type == "cpu" or (x.device.type == "mps" and len(self.stride) == 3)):
            return self._multiply(x)
        if len(self.stride) == 2:
            return F.conv_transpose2d(x, self.weight, self.bias, self.stride)
        return F.conv_transpose3d(x, self.weight, self.bias, self.stride)

    def _multiply(self, x: Tensor) -> Tensor:
        samples, in_features, *size = x.shape
        features = self.weight.shape[1]
        matrix = self.weight.movedim((0, 1), (-1, -2)).reshape(
            -1, in_features
        )  # (block voxels * features, in_features)
        blocks = F.linear(x.movedim(1, -1), matrix, self.bias.repeat(prod(self.stride)))
        blocks = blocks.view(samples, *size, *self.stride, features)
        blocks = blocks.permute(0, *_interleave(len(size)), -1)  # each axis of voxels beside its axis in the block
        grown = [length * step for length, step in zip(size, self.stride, strict=True)]
        return blocks.reshape(samples, *grown, features).movedim(-1, 1)


def _interleave(dimensions: int) -> Iterator[int]:
    """Yields the axes 1, 1 + d, 2, 2 + d, ...: for d = 3 they are 1, 4, 2, 5, 3, 6."""
    return chain.from_iterable((axis, axis + dimensions) for axis in range(1, dimensions + 1))
