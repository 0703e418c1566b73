"""Swin-Unet: a U-Net of Swin transformer blocks, with convolutions only at its start and end, for slices.

Source: Cao et al. 2022, "Swin-Unet: Unet-like pure transformer for medical image segmentation"; its blocks
are those of Liu et al. 2021, the tiny one; see `swin`.

    image 224 x 224, grey repeated three times                          logits 224 x 224
      | 4x4 convolution of stride 4, 96, norm                              ^ 1x1 convolution without bias
      |                                                              224^2   96
      v                                                                    ^ expand by 4, 96
    56^2    96   2 blocks ------------------------- concat, linear 96 -> 2 blocks -> norm
      v merge                                         ^ expand
    28^2   192   2 blocks --------- concat, linear 192 -> 2 blocks
      v merge                         ^ expand
    14^2   384   2 blocks - concat, linear 384 -> 2 blocks
      v merge                 ^ expand
     7^2   768   2 blocks -> norm

    merge     2 x 2 voxels become one of four times the features; norm; linear without bias to twice the features
    expand    linear without bias to twice the features; each voxel becomes 2 x 2 of a quarter of them; norm; the last
              one makes 16 times the features, and 4 x 4 voxels

Windows are 7 x 7 voxels, heads have 32 features. It has 27,168,900 weights for nine classes, 27,168,420 for four and
27,168,132 for one. Any patch whose edges are divisible by 32 is possible: windows are clipped to the map, and maps that
windows do not divide are padded inside the attention, where padding is masked. Patches of 224 x 224 need neither.

Decision: skips leave after the blocks of their resolution. Decision: a block's rate of stochastic depth is the same in
the decoder as at its resolution in the encoder. The paper began with weights pretrained on ImageNet; here they are
initialized at random.
"""

from typing import Annotated, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.literature.swin import SwinStage, count_heads, drop_path_rates, swin_stage
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec, adam

Value = TypeVar("Value")

TOKEN_EDGE = 4
"""Pixels of the image along each axis that become one token. Source: the paper."""


class SwinUnetSettings(Section):
    """The settings of Swin-Unet in a plan.

    Attributes:
        features: Number of features of the first blocks, more than one; it doubles at each coarser resolution.
        head_features: Number of features per attention head, or fewer if the features are fewer.
        window: Edge of the windows in voxels.
        blocks: Number of blocks at each resolution of the encoder, and of the decoder.
        image_channels: Number of channels that the first convolution takes. Images of fewer channels repeat them, so a
            grey image serves as three colours; images of more channels need a larger number here.
        drop_path: Largest rate of stochastic depth: the fraction of samples that skip a residual branch in training.
    """

    features: Annotated[int, Field(ge=2)] = 96
    head_features: PositiveInt = 32
    window: PositiveInt = 7
    blocks: Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=5)] = (2, 2, 2, 2)
    image_channels: PositiveInt = 3
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of features of the blocks at each of their resolutions."""
        return tuple(self.features * 2**level for level in range(len(self.blocks)))


def forward(ops: Ops[Value], image: Value, classes: int, settings: SwinUnetSettings) -> list[Value]:
    """Runs the forward pass of Swin-Unet; see `spec.ForwardFunction`."""
    widths = settings.widths
    x = ops.repeat_features(image, settings.image_channels)
    x = ops.conv(x, widths[0], TOKEN_EDGE, "embedding.conv", stride=TOKEN_EDGE, padded=False)
    x, skips = ops.layer_norm(x, "embedding.norm"), []
    for level in range(len(widths)):
        if level > 0:
            skips.append(x)
            x = ops.layer_norm(ops.space_to_depth(x, 2), f"merge{level}.norm")
            x = ops.linear(x, widths[level], f"merge{level}.linear", bias=False)
        x = _blocks(ops, x, "encoder", level, settings)
    x = ops.layer_norm(x, "encoder.norm")
    for level in reversed(range(len(skips))):
        x = _expand(ops, x, 2, f"expand{level}")
        x = ops.linear(ops.concat([x, skips[level]]), widths[level], f"decoder.fused{level}")
        x = _blocks(ops, x, "decoder", level, settings)
    x = _expand(ops, ops.layer_norm(x, "decoder.norm"), TOKEN_EDGE, "expand")
    return [ops.conv(x, classes, 1, "head", bias=False)]


def _blocks(ops: Ops[Value], x: Value, side: str, level: int, settings: SwinUnetSettings) -> Value:
    stage = SwinStage(
        name=f"{side}.{level}",
        heads=count_heads(settings.features, settings.head_features) * 2**level,
        edges=settings.window,
        drop_path_rates=drop_path_rates(settings.drop_path, settings.blocks)[level],
    )
    return swin_stage(ops, x, stage)


def _expand(ops: Ops[Value], x: Value, factor: int, name: str) -> Value:
    """Upsamples by patch expanding: by 2 to half the features, by 4 to the same number of features."""
    wider = 2 if factor == 2 else factor**2
    x = ops.linear(x, wider * ops.features(x), f"{name}.linear", bias=False)
    return ops.layer_norm(ops.depth_to_space(x, factor), f"{name}.norm")


SWIN_UNET = NetworkSpec(
    title="Swin-Unet",
    summary="a U-Net of Swin transformer blocks, without convolutions inside",
    source="Cao et al. 2022, ECCV workshops, arXiv 2105.05537",
    licence="official code: no licence; not used here",
    dimensions=(2,),
    settings=SwinUnetSettings,
    levels=lambda settings: (settings.features, *settings.widths),
    strides=lambda settings: (TOKEN_EDGE, *[2] * (len(settings.blocks) - 1)),
    forward=forward,
    max_channels=lambda settings: settings.image_channels,
    training=lambda _: adam(3e-4),
    recipe="SGD at 0.05 with momentum 0.9, weight decay 1e-4 and batches of 24, from weights learned on ImageNet",
)
