"""The architecture of the network as a plan describes it; equal values always build equal networks."""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Axes = tuple[PositiveInt, PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt]


class Section(BaseModel):
    """A section of the plan: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(Section):
    """One resolution level of the U-shaped network.

    Attributes:
        features: Number of channels of its feature maps.
        kernel: Kernel size of its convolutions in voxels along each axis.
        stride: Factor by which the encoder downsamples each axis; all ones in the first stage.
        convolutions: Number of convolutions in each of its blocks.
        blocks: Number of blocks in the encoder; the decoder has a single one.
        decoder_convolutions: Number of convolutions in the block of the decoder; left out, as many as in a block of the
            encoder. The coarsest stage has no decoder.
    """

    features: PositiveInt
    kernel: Axes
    stride: Axes
    convolutions: PositiveInt
    blocks: PositiveInt = 1
    decoder_convolutions: PositiveInt | None = None


class Architecture(Section):
    """The complete description of the network; equal values always build equal networks.

    Attributes:
        residual: "stage" adds the input of each block to the output of its convolutions, in encoder and decoder, as the
            stages of V-Net do; "block" is the residual-encoder U-Net: an encoder of ResNet blocks (type D) after a
            first convolution, and a decoder of plain convolutions; "none" is the plain U-Net.
        in_channels: Number of input channels: those of the image, and in a cascade one more for each structure of the
            low-resolution segmentation.
        out_channels: Number of outputs: classes with the background, or regions, which may overlap.
        stages: The stages from full to coarsest resolution.
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
        """Number of image axes, 2 or 3."""
        return len(self.stages[0].kernel)

    @property
    def divisor(self) -> tuple[int, ...]:
        """Product of the strides along each axis, by which a patch must be divisible."""
        product = [1] * self.dimensions
        for stage in self.stages:
            product = [total * step for total, step in zip(product, stage.stride, strict=True)]
        return tuple(product)


def count_weights(architecture: Architecture) -> int:
    """Counts the trainable weights of the network: convolutions with biases, and scale and shift of the norms.

    There is one segmentation head per decoder stage, or only the finest without deep supervision.

    >>> fine = Stage(features=32, kernel=(3, 3), stride=(1, 1), convolutions=2)
    >>> coarse = Stage(features=64, kernel=(3, 3), stride=(2, 2), convolutions=2)
    >>> count_weights(Architecture(residual="none", in_channels=1, out_channels=2, stages=(fine, coarse)))
    101506
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
    with_heads = stages[:-1] if architecture.deep_supervision else stages[:1]
    return total + architecture.out_channels * sum([stage.features + 1 for stage in with_heads])


def _convolution_weights(stage: Stage, channels: int, convolutions: int) -> int:
    """Counts kernel, bias, scale and shift of a stage's convolutions; the first has `channels` input channels."""
    inputs = channels + (convolutions - 1) * stage.features
    return (inputs * prod(stage.kernel) + 3 * convolutions) * stage.features


def count_multiply_adds(architecture: Architecture, patch_size: Sequence[int]) -> int:
    """Counts the multiply-adds of a forward pass of one patch: those of convolutions, upsampling and heads.

    Norms, activations and sums are not counted. In training, the backward pass takes twice as many again.

    >>> fine = Stage(features=32, kernel=(3, 3), stride=(1, 1), convolutions=2)
    >>> coarse = Stage(features=64, kernel=(3, 3), stride=(2, 2), convolutions=2)
    >>> architecture = Architecture(residual="none", in_channels=1, out_channels=2, stages=(fine, coarse))
    >>> count_multiply_adds(architecture, (64, 64))
    217448448

    Args:
        architecture: The architecture of the network.
        patch_size: Voxels along each axis, divisible by `Architecture.divisor`.
    """
    stages = architecture.stages
    has_blocks = architecture.residual == "block"
    width, voxels, total = architecture.in_channels, prod(patch_size), 0
    if has_blocks:
        total += voxels * _convolution_inputs(stages[0], width, 1)
        width = stages[0].features
    finer: Stage | None = None
    for number, stage in enumerate(stages):
        finer_voxels, voxels = voxels, voxels // prod(stage.stride)
        total += voxels * _convolution_inputs(stage, width, stage.blocks * stage.convolutions)
        if has_blocks and stage.features != width:
            total += voxels * width * stage.features  # the convolution of a shortcut
        if finer is not None:
            decoder = finer.decoder_convolutions or finer.convolutions
            total += finer_voxels * stage.features * finer.features  # the upsampling
            total += finer_voxels * _convolution_inputs(finer, 2 * finer.features, decoder)
        if number < (len(stages) - 1 if architecture.deep_supervision else 1):
            total += voxels * stage.features * architecture.out_channels  # a head
        finer, width = stage, stage.features
    return total


def _convolution_inputs(stage: Stage, channels: int, convolutions: int) -> int:
    """Returns the multiply-adds per voxel of a stage's convolutions; the first has `channels` input channels."""
    return (channels + (convolutions - 1) * stage.features) * stage.features * prod(stage.kernel)
