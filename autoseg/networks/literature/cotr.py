"""CoTr: a convolutional encoder whose two coarsest maps go through a transformer that looks at few places.

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

The transformer sees the voxels of both maps in one line: 6912 + 864 tokens of 384 features. Each of its 6 layers is

    x <- norm(x + dropout(attention))        the places' sines and cosines, and one learned vector per map, are added to
    x <- norm(x + dropout(feed forward))     x to find where to look and what counts, not to the values themselves

    attention       6 heads of 64 features; each looks at 4 places in both maps, at a distance from its own place that
                    a linear map of the token gives, and takes their mean with weights that another one gives, after a
                    softmax over the 8. A linear map before makes the values, another one after mixes the heads.
    feed forward    384 -> 1536, GELU, dropout, 1536 -> 384

So the cost grows with the number of tokens, not with its square, and maps of fine resolution can be looked at.

For one channel and 14 classes it has 41,872,504 weights: 20,500,800 of the encoder, 9,316,992 of the transformer (with
its two vectors), 12,044,800 of the way up and 9,912 of the heads; for two classes 41,864,008. Convolutions but for the
heads have no bias; norms are instance norms that scale and shift.

Decision: a head comes before the enlargement to full resolution. A 1x1x1 convolution and linear interpolation, whose
weights add up to 1, may change places; so the logits are the same, and the map of 64 features at full resolution, by
far the largest, is never made.
Decision: there are always 6 heads, of `features` each, since fresh heads look both ways along each of the three axes.
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
"""Of each resolution after the first."""
BLOCKS = (3, 3, 2)
"""Of the encoder, at the resolutions after its first convolution."""
HEADS = 6
"""Of the attention: two for each axis."""
POINTS = 4
"""Places that a head looks at in each map."""
WIDENING = 4
"""Of the feed-forward layers."""
DROPOUT = 0.1
"""Of the transformer."""


class CoTrSettings(Section):
    """What a plan may say about CoTr.

    Attributes:
        features: Of the first convolution; three times as many at the next resolution, six times at the coarsest two,
            which the transformer sees.
        layers: Of the transformer.
        deep_supervision: Whether the coarser resolutions of the way up have heads, and are trained too.
    """

    features: PositiveInt = 64
    layers: PositiveInt = 6
    deep_supervision: bool = True

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Features of the encoder, from half the resolution on."""
        return self.features, 3 * self.features, 6 * self.features, 6 * self.features

    @property
    def levels(self) -> tuple[int, ...]:
        """Features at each resolution; the finest has the logits only."""
        return (self.features, *self.widths)


def draw(net: Ops[Value], image: Value, classes: int, settings: CoTrSettings) -> list[Value]:
    """Draws CoTr; see `Draw`."""
    *skips, fine, coarse = _encode(net, image, settings)
    fine, coarse = _transform(net, [fine, coarse], settings.layers)
    x = coarse
    maps: list[Value] = []
    for level, skip in reversed(list(enumerate([*skips, fine]))):
        x = net.add(net.transposed(x, net.features(skip), 2, f"decoder{level}.up", bias=False), skip)
        x = _refine(net, x, f"decoder{level}")
        maps.insert(0, x)
    logits = net.enlarge(net.conv(maps[0], classes, 1, "head"), STRIDES[0])
    if not (net.training and settings.deep_supervision):
        return [logits]
    return [logits, *(net.conv(x, classes, 1, f"heads.{number}") for number, x in enumerate(maps, start=1))]


def _encode(net: Ops[Value], image: Value, settings: CoTrSettings) -> list[Value]:
    """The maps of the encoder, from the finest to the coarsest."""
    first, *others = settings.widths
    x = net.conv(image, first, 7, "encoder.stem.conv", stride=STRIDES[0], bias=False)
    maps = [net.leaky_relu(net.instance_norm(x, "encoder.stem.norm"))]
    for stage, (features, blocks) in enumerate(zip(others, BLOCKS, strict=True)):
        x = maps[-1]
        for number in range(blocks):
            x = _block(net, x, features, f"encoder.stage{stage}.{number}", stride=2 if number == 0 else 1)
        maps.append(x)
    return maps


def _block(net: Ops[Value], x: Value, features: int, name: str, *, stride: int) -> Value:
    y = net.conv(x, features, 3, f"{name}.conv", stride=stride, bias=False)
    y = net.instance_norm(y, f"{name}.norm")
    if stride > 1 or net.features(x) != features:
        x = net.conv(x, features, 1, f"{name}.shortcut.conv", stride=stride, bias=False)
        x = net.instance_norm(x, f"{name}.shortcut.norm")
    return net.leaky_relu(net.add(y, x))


def _refine(net: Ops[Value], x: Value, name: str) -> Value:
    y = x
    for number in (0, 1):
        y = net.conv(y, net.features(x), 3, f"{name}.{number}.conv", bias=False)
        y = net.leaky_relu(net.instance_norm(y, f"{name}.{number}.norm"))
    return net.add(y, x)


def _transform(net: Ops[Value], maps: Sequence[Value], layers: int) -> list[Value]:
    """The maps after the transformer, of the same sizes and features."""
    x = net.flatten_maps(maps)
    places = net.flatten_maps(
        [net.embed(net.positional_encoding(one), f"transformer.map{number}") for number, one in enumerate(maps)]
    )
    for layer in range(layers):
        x = _layer(net, x, places, maps, f"transformer.{layer}")
    return net.part(x, maps)


def _layer(net: Ops[Value], x: Value, places: Value, maps: Sequence[Value], name: str) -> Value:
    features = net.features(x)
    values = net.part(net.linear(x, features, f"{name}.values"), maps)
    y = net.sample(net.add(x, places), values, HEADS, POINTS, f"{name}.sampling")
    y = net.dropout(net.linear(y, features, f"{name}.mixed"), DROPOUT)
    x = net.layer_norm(net.add(x, y), f"{name}.norm0")
    y = net.dropout(net.gelu(net.linear(x, WIDENING * features, f"{name}.wide")), DROPOUT)
    y = net.dropout(net.linear(y, features, f"{name}.narrow"), DROPOUT)
    return net.layer_norm(net.add(x, y), f"{name}.norm1")


COTR = NetworkSpec(
    title="CoTr",
    summary="a residual encoder, a transformer that looks at few places of its two coarsest maps, and sums as skips",
    source="Xie et al. 2021, MICCAI, arXiv 2103.03024",
    licence="official code: GPL-3.0, not used here",
    dimensions=(3,),
    settings=CoTrSettings,
    levels=lambda settings: settings.levels,
    strides=lambda _: STRIDES,
    draw=draw,
    supervises=lambda settings: settings.deep_supervision,
    recipe="SGD at 0.01 with momentum 0.99 and all outputs counted, each half as much as the next finer one",
)
