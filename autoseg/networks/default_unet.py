"""The default network: a U-Net that a plan's `Architecture` describes completely."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.blocks import ConvBlock, ConvStage, ResidualBlock, Upsampling, residual_stage
from autoseg.networks.convolutions import Conv2d, Conv3d
from autoseg.networks.instance_norm import NEGATIVE_SLOPE, InstanceNorm, channels_last, predicts_on_cpu
from autoseg.networks.joined_input import learns_in_float32_on_cpu

MANY_OUTPUTS = 8
"""Fewest outputs of a head that predicts one map after the other; see `segment`."""


class UNet(nn.Module):
    """Encoder, decoder, and a segmentation head at each level of the decoder.

    With four stages of 16, 32, 64 and 128 features, strides of 2, and a patch of 40 x 56 x 40 voxels:

        image (n, c, 40, 56, 40)                                       logits (n, classes, 40, 56, 40)
          |                                                               ^ head, 1 x 1
        encoder 0 (n, 16, 40, 56, 40)  --- skip ------------ concat -> decoder 0 (n, 16, 40, 56, 40)
          | strided convolution                                 ^ upsampling      (32 -> 16, before concat)
          |                                                     |         logits (n, classes, 20, 28, 20)
          v                                                     |         ^ head
        encoder 1 (n, 32, 20, 28, 20)  --- skip --- concat -> decoder 1 (n, 32, 20, 28, 20)
          v                                            ^ upsampling
        encoder 2 (n, 64, 10, 14, 10)  -- ... -->   decoder 2 (n, 64, 10, 14, 10), with a head as well
          v                                            ^ upsampling
        encoder 3 (n, 128, 5, 7, 5)  ------------------'

    `decoder[i]`, `upsampling[i]` and `heads[i]` have the resolution of `encoder[i]`. Each stage is a `ConvStage`;
    only a residual encoder ("block") has stages of `ResidualBlock`s, after a first convolution, the stem.

    Source: the shape is the reference method's plain and residual-encoder U-Nets (nnU-Net v2.8.1); residual stages
    follow V-Net (Milletari et al. 2016). V-Net itself has kernels of 5, PReLU, no normalization and no deep
    supervision.

    Args:
        architecture: The architecture of the plan.

    Attributes:
        recomputes: Whether training keeps only the inputs of the stages, and recomputes the other feature maps in the
            backward pass (activation checkpointing). Source: Chen et al. 2016, sublinear memory cost. The gradients are
            the same.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.recomputes = False
        self._orders_channels = False
        stages = architecture.stages
        residual = architecture.residual == "stage"
        levels = range(len(stages) - 1)
        widths = [architecture.in_channels, *(stage.features for stage in stages)]
        self.stem: nn.Module = nn.Identity()
        if architecture.residual == "block":
            self.stem = ConvBlock(widths[0], stages[0].features, stages[0].kernel, stages[0].stride)
            widths[0] = stages[0].features
        self.encoder = nn.ModuleList(
            residual_stage(width, stage)
            if architecture.residual == "block"
            else ConvStage(width, stage, residual=residual)
            for width, stage in zip(widths, stages, strict=False)
        )
        self.upsampling = nn.ModuleList(
            Upsampling(stages[i + 1].features, stages[i].features, stages[i + 1].stride) for i in levels
        )
        self.decoder = nn.ModuleList(
            ConvStage(2 * stages[i].features, _decoder_stage(stages[i]), residual=residual) for i in levels
        )
        head = Conv2d if architecture.dimensions == 2 else Conv3d
        self.heads = nn.ModuleList(
            head(stages[i].features, architecture.out_channels, 1)
            for i in (levels if architecture.deep_supervision else levels[:1])
        )

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Maps an image to logits.

        Args:
            image: Shape (n, in_channels, *size), each axis divisible by the architecture's `divisor`.

        Returns:
            In evaluation mode the logits (n, out_channels, *size). In training mode a list that starts with these; with
            deep supervision the logits of all coarser decoder stages follow, in the sizes of the stages.

        Raises:
            ValueError: An axis of the image is not divisible.
        """
        self._check_size(image)
        x = channels_last(image) if image.device.type == "cpu" or self._orders_channels else image
        x = self.stem(x)
        skips = []
        for stage in self.encoder:
            x = self._run(stage, x)
            skips.append(x)
        logits = []
        for level in reversed(range(len(self.decoder))):
            x = self._run(partial(self._decode, level), x, skips[level])
            if level == 0 or (self.training and level < len(self.heads)):
                logits.append(segment(cast(Conv2d | Conv3d, self.heads[level]), x))
        return logits[::-1] if self.training else logits[0]

    def put_channels_last(self) -> None:
        """Stores weights, and from then on feature maps, with the channels last, on any device."""
        order = torch.channels_last if self.architecture.dimensions == 2 else torch.channels_last_3d
        self.to(memory_format=order)  # type: ignore[call-overload]
        self._orders_channels = True

    def _decode(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        """Applies a level of the decoder to the map of the coarser level and the skip of this one."""
        return cast(Tensor, self.decoder[level](self.upsampling[level](x), skip))

    def _run(self, stage: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Applies a stage, with activation checkpointing if `recomputes`."""
        if self.recomputes and self.training and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(stage, *inputs, use_reentrant=False))
        return stage(*inputs)

    def _check_size(self, image: Tensor) -> None:
        size, divisor = tuple(image.shape[2:]), self.architecture.divisor
        if len(size) != len(divisor) or any(length % step for length, step in zip(size, divisor, strict=True)):
            remedy = f"pad it or choose a patch_size whose axes are divisible by {divisor}"
            raise ValueError(f"the network cannot halve an image of size {size} evenly; {remedy}")


def segment(head: Conv2d | Conv3d, x: Tensor) -> Tensor:
    """Applies a segmentation head, a convolution of kernel 1: maps (n, features, *size) to (n, outputs, *size).

    Decision: in training on a CPU in float32 it is a matrix product over the voxels, which takes half of the time;
    oneDNN makes blocks of eight outputs, and most heads have fewer. In prediction on a CPU, many outputs are a matrix
    product that writes one map after the other, as those need them who add up tiles; to reorder 14 of them took five
    times as long as the convolution.
    """
    if learns_in_float32_on_cpu(x):
        return F.linear(x.movedim(1, -1), head.weight.flatten(1), head.bias).movedim(-1, 1)
    if head.out_channels < MANY_OUTPUTS or head.bias is None or not predicts_on_cpu(x):
        return cast(Tensor, head(x))
    weight, bias = head.weight.flatten(1).to(x.dtype), head.bias[:, None].to(x.dtype)
    logits = x.new_empty(len(x), head.out_channels, prod(x.shape[2:]))
    for sample, maps in zip(x.movedim(1, -1).flatten(1, -2), logits, strict=True):  # equal bits in a batch of any size
        torch.addmm(bias, weight, sample.T, out=maps)
    return logits.view(len(x), -1, *x.shape[2:])


def _decoder_stage(stage: Stage) -> Stage:
    """Returns the stage of the decoder at the same level: one block that keeps the resolution."""
    return Stage(
        features=stage.features,
        kernel=stage.kernel,
        stride=(1, 1) if len(stage.kernel) == 2 else (1, 1, 1),
        convolutions=stage.decoder_convolutions or stage.convolutions,
    )


def build_network(architecture: Architecture, generator: torch.Generator | None = None) -> UNet:
    """Builds a network with freshly initialized weights, in training mode, on the CPU.

    Source: the reference method: weights by He's normal rule for the leaky ReLU, biases 0; the last norm of a residual
    block has the scale 0, so that the block starts as its shortcut.

    Args:
        architecture: The architecture of the plan.
        generator: Random generator for the weights; left out, torch's global generator, which the caller seeds.
    """
    with torch.device("meta"):  # without this, each layer would first draw weights of its own
        network = UNet(architecture)
    network = network.to_empty(device="cpu")
    for module in network.modules():
        _initialize(module, generator)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.second.norm.weight)
    return network


def _initialize(module: nn.Module, generator: torch.Generator | None) -> None:
    if isinstance(module, InstanceNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Conv2d | Conv3d | Upsampling):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
