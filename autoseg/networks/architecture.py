"""The network as a plan describes it: the same values always build the same one."""

from math import prod
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Axes = tuple[PositiveInt, PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt]


class Section(BaseModel):
    """A part of the plan: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(Section):
    """One resolution level of the U-shaped network.

    Attributes:
        features: Channels of its feature maps.
        kernel: Size of its convolutions, per axis.
        stride: How much it reduces each axis on the way down; all ones in the first stage.
        convolutions: Of each of its blocks.
        blocks: On the way down; the way up has a single one.
        decoder_convolutions: Of the block on the way up; left out, as many as those on the way down have. The coarsest
            stage has no way up.
    """

    features: PositiveInt
    kernel: Axes
    stride: Axes
    convolutions: PositiveInt
    blocks: PositiveInt = 1
    decoder_convolutions: PositiveInt | None = None


class Architecture(Section):
    """The network, completely: the same values always build the same one.

    Attributes:
        residual: "stage" adds the input of each block to the output of its convolutions, on the way down and up, as the
            stages of V-Net do; "block" is the residual-encoder U-Net: blocks of a ResNet (type D) after a first
            convolution on the way down, plain convolutions on the way up; "none" is the plain U-Net.
        in_channels: Image channels, and one per structure if a former configuration's segmentation is seen too.
        out_channels: Classes, the background included; or regions, which may overlap.
        stages: From full to coarsest resolution.
        deep_supervision: Whether the coarser decoder stages are trained on coarser targets too.
    """

    residual: Literal["stage", "block", "none"]
    in_channels: PositiveInt
    out_channels: PositiveInt
    stages: Annotated[tuple[Stage, ...], Field(min_length=2)]
    deep_supervision: bool = True

    @model_validator(mode="after")
    def _axes_agree(self) -> Self:
        if len({len(axes) for stage in self.stages for axes in (stage.kernel, stage.stride)}) != 1:
            raise ValueError("kernel and stride must have the same number of axes in all stages")
        if any(step != 1 for step in self.stages[0].stride):
            raise ValueError("the stride of the first stage must be 1 along every axis")
        if self.residual == "block" and any(stage.convolutions != 2 for stage in self.stages):
            raise ValueError("the blocks of a residual encoder have 2 convolutions in all stages")
        for number, stage in enumerate(self.stages):
            if any(size % 2 == 0 for size in stage.kernel):
                raise ValueError(f"kernel {stage.kernel} of stage {number} must be odd along every axis")
        return self

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.stages[0].kernel)

    @property
    def divisor(self) -> tuple[int, ...]:
        """What each axis of a patch must be divisible by: the product of the strides."""
        product = [1] * self.dimensions
        for stage in self.stages:
            product = [total * step for total, step in zip(product, stage.stride, strict=True)]
        return tuple(product)


def count_weights(architecture: Architecture) -> int:
    """Trainable numbers of the network: convolutions with biases, and scale and shift of the norms.

    There is one segmentation head per stage on the way up, or only the finest without deep supervision.
    """
    stages = architecture.stages
    has_blocks = architecture.residual == "block"
    width, total = architecture.in_channels, 0
    if has_blocks:
        total += _convolution_weights(stages[0], width, 1)
        width = stages[0].features
    finer: Stage | None = None
    for stage in stages:
        features = stage.features
        total += _convolution_weights(stage, width, stage.blocks * stage.convolutions)
        if has_blocks and features != width:
            total += (width + 2) * features  # a shortcut's convolution has no bias
        if finer is not None:
            total += (features * prod(stage.stride) + 1) * finer.features
            total += _convolution_weights(finer, 2 * finer.features, finer.decoder_convolutions or finer.convolutions)
        finer, width = stage, features
    headed = stages[:-1] if architecture.deep_supervision else stages[:1]
    return total + architecture.out_channels * sum([stage.features + 1 for stage in headed])


def _convolution_weights(stage: Stage, channels: int, convolutions: int) -> int:
    """Kernel, bias, scale and shift of each of a stage's convolutions; the first one gets `channels` channels."""
    inputs = channels + (convolutions - 1) * stage.features
    return (inputs * prod(stage.kernel) + 3 * convolutions) * stage.features
