"""CoTr: a convolutional encoder whose two coarsest maps go through a transformer with deformable attention.

Source: Xie, Zhang, Shen, Xia 2021, "CoTr: efficiently bridging CNN and transformer for 3D medical image segmentation",
and for the transformer Zhu et al. 2021, "Deformable DETR".

    image 48 x 192 x 192                                                                                logits
      | 7x7x7 convolution, 64, stride (1, 2, 2)
    48 x 96 x 96   ------- 64 ------------------------------- + -> ResBlock -> head -> enlarge (1, 2, 2) --^
      v 3 blocks, the first strides                           ^ up, 64   '---> head 1
    24 x 48 x 48   ------- 192 ------------------ + -> ResBlock -> head 2
      v 3 blocks                                  ^ up, 192
    12 x 24 x 24   384 --.             .- 384 --- + -> ResBlock -> head 3
      v 2 blocks         | transformer |          ^ up, 384
    6 x 12 x 12    384 --'             '- 384 ----'

    block       x -> 3x3x3, norm -> + -> leaky ReLU          ResBlock     x -> 3x3x3, norm, leaky ReLU, twice -> +
                '--> 1x1x1, norm ---'                                     '--------------------------------------'
                (the 1x1x1 convolution only where the size or the features change)

The transformer sees the voxels of both maps as one sequence: 6912 + 864 tokens of 384 features. Each of its 6 layers is

    x <- norm(x + dropout(attention))        positional encodings and one learned vector per map are added to x for the
    x <- norm(x + dropout(feed forward))     sampling offsets and attention weights, not for the values themselves

    attention       6 heads of 64 features. Each samples 4 points in both maps, at offsets that a linear layer of the
                    token gives, and averages them with weights that another one gives, after a softmax over the 8. A
                    linear layer before makes the values, another one after combines the heads.
    feed forward    384 -> 1536, GELU, dropout, 1536 -> 384

So the cost grows linearly with the number of tokens, not quadratically, and maps of fine resolution are affordable.

For one channel and 14 classes the network has 41,872,504 weights: 20,500,800 in the encoder, 9,316,992 in the
transformer (with its two vectors), 12,044,800 in the decoder and 9,912 in the heads; for two classes 41,864,008.
Convolutions except the heads have no bias; norms are instance norms that scale and shift.

Decision: the head comes before the upsampling to full resolution. A 1x1x1 convolution and linear interpolation, whose
weights sum to 1, commute; so the logits are the same, and the map of 64 features at full resolution, by far the
largest, is never made.
Decision: there are always 6 heads, of `features` each, since the initial offsets point both ways along each of the
three axes.
Decision: the paper's training weighs the outputs by 1, 1/2, 1/4 and 1/8; here, as for all networks, each counts half as
much as the next finer one and the coarsest, head 3, does not count (`training.losses`): 4/7, 2/7, 1/7 and 0.
"""

from collections.abc import Sequence
from typing import TypeVar

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

STRIDES = ((1, 2, 2), 2, 2, 2)
"""Stride of each resolution after the first."""
BLOCKS = (3, 3, 2)
"""Number of encoder blocks at each resolution after the first convolution."""
HEADS = 6
"""Number of attention heads: two for each axis."""
POINTS = 4
"""Number of sampling points per head and map."""
EXPANSION = 4
"""Hidden features of the feed-forward layers, as a multiple of their input."""
DROPOUT = 0.1
"""Dropout rate of the transformer."""


class CoTrSettings(Section):
    """The settings of CoTr in a plan.

    Attributes:
        features: Number of features of the first convolution; three times as many at the next resolution, six times at
            the coarsest two, which the transformer sees.
        layers: Number of transformer layers.
        deep_supervision: Whether the coarser resolutions of the decoder have heads, and are trained too.
    """

    features: PositiveInt = 64
    layers: PositiveInt = 6
    deep_supervision: bool = True

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Number of features of the encoder at each resolution, from half the resolution on."""
        return self.features, 3 * self.features, 6 * self.features, 6 * self.features

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution; the finest has the logits only."""
        return (self.features, *self.widths)


def forward(ops: Ops[Value], image: Value, classes: int, settings: CoTrSettings) -> list[Value]:
    """Runs the forward pass of CoTr; see `spec.ForwardFunction`."""
    *skips, fine, coarse = _encode(ops, image, settings)
    fine, coarse = _transformer(ops, [fine, coarse], settings.layers)
    x = coarse
    maps: list[Value] = []
    for level, skip in reversed(list(enumerate([*skips, fine]))):
        x = ops.add(ops.transposed_conv(x, ops.features(skip), 2, f"decoder{level}.up", bias=False), skip)
        x = _residual_block(ops, x, f"decoder{level}")
        maps.insert(0, x)
    logits = ops.upsample(ops.conv(maps[0], classes, 1, "head"), STRIDES[0])
    if not (ops.training and settings.deep_supervision):
        return [logits]
    return [logits, *(ops.conv(x, classes, 1, f"heads.{number}") for number, x in enumerate(maps, start=1))]


def _encode(ops: Ops[Value], image: Value, settings: CoTrSettings) -> list[Value]:
    """Returns the maps of the encoder, from the finest to the coarsest."""
    first, *others = settings.widths
    x = ops.conv(image, first, 7, "encoder.stem.conv", stride=STRIDES[0], bias=False)
    maps = [ops.leaky_relu(ops.instance_norm(x, "encoder.stem.norm"))]
    for stage, (features, blocks) in enumerate(zip(others, BLOCKS, strict=True)):
        x = maps[-1]
        for number in range(blocks):
            x = _block(ops, x, features, f"encoder.stage{stage}.{number}", stride=2 if number == 0 else 1)
        maps.append(x)
    return maps


def _block(ops: Ops[Value], x: Value, features: int, name: str, *, stride: int) -> Value:
    y = ops.conv(x, features, 3, f"{name}.conv", stride=stride, bias=False)
    y = ops.instance_norm(y, f"{name}.norm")
    if stride > 1 or ops.features(x) != features:
        x = ops.conv(x, features, 1, f"{name}.shortcut.conv", stride=stride, bias=False)
        x = ops.instance_norm(x, f"{name}.shortcut.norm")
    return ops.leaky_relu(ops.add(y, x))


def _residual_block(ops: Ops[Value], x: Value, name: str) -> Value:
    y = x
    for number in (0, 1):
        y = ops.conv(y, ops.features(x), 3, f"{name}.{number}.conv", bias=False)
        y = ops.leaky_relu(ops.instance_norm(y, f"{name}.{number}.norm"))
    return ops.add(y, x)


def _transformer(ops: Ops[Value], maps: Sequence[Value], layers: int) -> list[Value]:
    """Returns the maps after the transformer, of the same sizes and features."""
    x = ops.flatten_maps(maps)
    positions = ops.flatten_maps(
        [ops.add_embedding(ops.positional_encoding(y), f"transformer.map{number}") for number, y in enumerate(maps)]
    )
    for layer in range(layers):
        x = _transformer_layer(ops, x, positions, maps, f"transformer.{layer}")
    return ops.unflatten_maps(x, maps)


def _transformer_layer(ops: Ops[Value], x: Value, positions: Value, maps: Sequence[Value], name: str) -> Value:
    features = ops.features(x)
    values = ops.unflatten_maps(ops.linear(x, features, f"{name}.values"), maps)
    y = ops.deformable_attention(ops.add(x, positions), values, HEADS, POINTS, f"{name}.sampling")
    y = ops.dropout(ops.linear(y, features, f"{name}.mixed"), DROPOUT)
    x = ops.layer_norm(ops.add(x, y), f"{name}.norm0")
    y = ops.dropout(ops.gelu(ops.linear(x, EXPANSION * features, f"{name}.wide")), DROPOUT)
    y = ops.dropout(ops.linear(y, features, f"{name}.narrow"), DROPOUT)
    return ops.layer_norm(ops.add(x, y), f"{name}.norm1")


COTR = NetworkSpec(
    title="CoTr",
    summary="a residual encoder, a transformer with deformable attention on its two coarsest maps, and added skips",
    source="Xie et al. 2021, MICCAI, arXiv 2103.03024",
    licence="official code: GPL-3.0; not used here",
    dimensions=(3,),
    settings=CoTrSettings,
    levels=lambda settings: settings.levels,
    strides=lambda _: STRIDES,
    forward=forward,
    supervises=lambda settings: settings.deep_supervision,
    recipe="SGD at 0.01 with momentum 0.99 and all outputs counted, each half as much as the next finer one",
)
