"""TransUNet: a ResNet, a vision transformer on its coarsest map, and a decoder with the maps of the ResNet as skips.

Source: Chen et al. 2021, "TransUNet: transformers make strong encoders for medical image segmentation"; for its parts
Dosovitskiy et al. 2021, "An image is worth 16x16 words" (R50 + ViT-B/16), He et al. 2016 and Kolesnikov et al. 2020,
"Big transfer", of whose ResNets the norms and convolutions are.

    image 224 x 224, grey repeated three times                                               logits
      | 7x7 convolution, 64, stride 2                     enlarge -> 2 conv 16 -> 3x3 convolution
    112^2   64 --------------------------------- concat -> 2 conv 64
      v largest of 3x3, stride 2                   ^ enlarge
    56^2    3 bottlenecks, 256 -------- concat -> 2 conv 128           enlarge  linear, twice as fine, the middles of
      v                                   ^ enlarge                             the outer voxels stay in place
    28^2    4 bottlenecks, 512 - concat -> 2 conv 256                  conv     3x3, batch norm, relu
      v                            ^ enlarge
    14^2    9 bottlenecks, 1024  conv 512                              bottleneck   1x1, norm, relu
      | 1x1 convolution, 768        ^                                               3x3, norm, relu (strides)
      + place, learned              |                                               1x1, norm
      v                             |                                               + x, relu
    196 tokens of 768 -> 12 x [ attention, feed forward ] -> norm

    attention      x <- x + dropout(mix(attention of all tokens, 12 heads of 64 features, of norm(x)))
    feed forward   x <- x + dropout(narrow(dropout(gelu(wide(norm(x)))))), 768 -> 3072 -> 768

In the ResNet convolutions have no bias and standardized weights, and norms are group norms of 32 groups (fewer, where
32 does not divide the features); a bottleneck that changes size or features has a 1x1 convolution with a norm in its
shortcut. For patches of 224 x 224 pixels and nine classes it has 105,277,081 weights: 11,894,848 in the ResNet,
85,993,728 in the transformer with its patch and position embeddings, 7,387,200 in the decoder, 1,305 in the head.

The learned position embeddings fix the patch size. Planning chooses patches as large as the paper's or, where the
images or the memory are smaller, smaller ones; larger images are segmented patch by patch. The paper resized whole
slices to 224 x 224 pixels instead, and began with weights pretrained on ImageNet.

Decision: dropout comes after the position embeddings and after each linear layer except those of queries, keys and
values, as in the vision transformer. Decision: images of two or more channels are taken as they are; only grey images
are repeated. Decision: the epsilon of all norms is that of all networks here, not 1e-6 as in the first norm of the
ResNet.
"""

from math import gcd
from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.literature.swin import count_heads
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec, adam

Value = TypeVar("Value")

COLOURS = 3
"""Number of channels to which a grey image is repeated."""
GROUPS = 32
"""Number of groups of the norms of the ResNet."""
EXPANSION = 4
"""Output features of a bottleneck as a multiple of its inner ones; hidden features of the feed-forward layers as a
multiple of their input."""
TOKEN_WIDTH = 12
"""Features of a token, as a multiple of those of the first convolution."""
HEAD_FEATURES = 64
"""Number of features per attention head."""
DROPOUT = 0.1
"""Dropout rate of the transformer."""
REDUCTION = 16
"""Pixels of the image along each axis per token."""

Edge = Annotated[int, Field(ge=REDUCTION, multiple_of=REDUCTION)]


class TransUNetSettings(Section):
    """The settings of TransUNet in a plan.

    Attributes:
        features: Number of features of the first convolution; all other widths are in proportion to it.
        blocks: Number of bottlenecks at each of the three resolutions of the ResNet.
        layers: Number of transformer layers.
        patch: The only patch size that it takes, in pixels; it must equal `patch_size` of the configuration.
    """

    features: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt] = (3, 4, 9)
    layers: PositiveInt = 12
    patch: tuple[Edge, Edge] = (224, 224)

    @model_validator(mode="after")
    def _patch_has_several_tokens(self) -> Self:
        if self.patch == (REDUCTION, REDUCTION):
            raise ValueError(f"patch must be longer than {REDUCTION} along one axis")
        return self

    @property
    def token_features(self) -> int:
        """Number of features of a token."""
        return TOKEN_WIDTH * self.features

    @property
    def heads(self) -> int:
        """Number of attention heads: the most that have `HEAD_FEATURES` or more and divide the token features."""
        return count_heads(self.token_features, HEAD_FEATURES)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution; at the finest those of the decoder."""
        return (self.features // 4, self.features, *(self.features * EXPANSION * 2**level for level in range(3)))


def forward(ops: Ops[Value], image: Value, classes: int, settings: TransUNetSettings) -> list[Value]:
    """Runs the forward pass of TransUNet; see `spec.ForwardFunction`."""
    x = ops.repeat_features(image, COLOURS) if ops.features(image) == 1 else image
    *skips, x = _encode(ops, x, settings)
    x = _transformer(ops, x, settings)
    features = settings.features
    x = _conv_norm_relu(ops, x, 8 * features, "decoder.entry")
    for number, width in enumerate((4 * features, 2 * features, features, features // 4)):
        x = ops.upsample(x, 2, align_corners=True)
        if skips:
            x = ops.concat([x, skips.pop()])
        for convolution in (0, 1):
            x = _conv_norm_relu(ops, x, width, f"decoder.{number}.{convolution}")
    return [ops.conv(x, classes, 3, "head")]


def _encode(ops: Ops[Value], x: Value, settings: TransUNetSettings) -> list[Value]:
    """Returns the maps of the ResNet, from half the resolution on."""
    x = ops.conv(x, settings.features, 7, "resnet.stem.conv", stride=2, bias=False, standardized=True)
    maps = [ops.relu(_group_norm(ops, x, "resnet.stem.norm"))]
    x = ops.max_pool(maps[0], 2, kernel=3)
    for level, blocks in enumerate(settings.blocks):
        for number in range(blocks):
            stride = 2 if level > 0 and number == 0 else 1
            x = _bottleneck(ops, x, settings.features * 2**level, f"resnet.stage{level}.{number}", stride)
        maps.append(x)
    return maps


def _bottleneck(ops: Ops[Value], x: Value, features: int, name: str, stride: int) -> Value:
    y = x
    for number, (width, kernel, step) in enumerate(
        ((features, 1, 1), (features, 3, stride), (EXPANSION * features, 1, 1))
    ):
        y = ops.conv(y, width, kernel, f"{name}.conv{number}", stride=step, bias=False, standardized=True)
        y = _group_norm(ops, y, f"{name}.norm{number}")
        if number < 2:
            y = ops.relu(y)
    if stride > 1 or ops.features(x) != EXPANSION * features:
        x = ops.conv(x, EXPANSION * features, 1, f"{name}.shortcut.conv", stride=stride, bias=False, standardized=True)
        x = _group_norm(ops, x, f"{name}.shortcut.norm")
    return ops.relu(ops.add(y, x))


def _group_norm(ops: Ops[Value], x: Value, name: str) -> Value:
    return ops.group_norm(x, gcd(GROUPS, ops.features(x)), name)


def _transformer(ops: Ops[Value], x: Value, settings: TransUNetSettings) -> Value:
    """Applies the transformer; returns a map with the features of the tokens."""
    x = ops.add_position_embedding(ops.conv(x, settings.token_features, 1, "transformer.tokens"), "transformer.places")
    x = ops.dropout(x, DROPOUT)
    for layer in range(settings.layers):
        name = f"transformer.{layer}"
        x = ops.add(x, _attend(ops, ops.layer_norm(x, f"{name}.norm0"), settings.heads, name))
        x = ops.add(x, _feed_forward(ops, ops.layer_norm(x, f"{name}.norm1"), name))
    return ops.layer_norm(x, "transformer.norm")


def _attend(ops: Ops[Value], x: Value, heads: int, name: str) -> Value:
    features = ops.features(x)
    query, key, value = (ops.linear(x, features, f"{name}.{role}") for role in ("query", "key", "value"))
    return ops.dropout(ops.linear(ops.attention(query, key, value, heads), features, f"{name}.mixed"), DROPOUT)


def _feed_forward(ops: Ops[Value], x: Value, name: str) -> Value:
    y = ops.dropout(ops.gelu(ops.linear(x, EXPANSION * ops.features(x), f"{name}.wide")), DROPOUT)
    return ops.dropout(ops.linear(y, ops.features(x), f"{name}.narrow"), DROPOUT)


def _conv_norm_relu(ops: Ops[Value], x: Value, features: int, name: str) -> Value:
    return ops.relu(ops.batch_norm(ops.conv(x, features, 3, f"{name}.conv", bias=False), f"{name}.norm"))


TRANSUNET = NetworkSpec(
    title="TransUNet",
    summary="a vision transformer between a ResNet encoder and a plain decoder",
    source="Chen et al. 2021, arXiv 2102.04306",
    licence="official code: Apache-2.0; not used here",
    dimensions=(2,),
    settings=TransUNetSettings,
    levels=lambda settings: settings.levels,
    fixed_patch=lambda settings: settings.patch,
    forward=forward,
    training=lambda _: adam(1e-3),
    recipe="SGD at 0.01 with momentum 0.9 and batches of 24, from weights learned on ImageNet",
)
