"""ConResNet: a decoder that also learns how the segmentation changes from slice to slice, and looks harder there.

Source: Zhang, Xie, Wang, Xia 2020, "Inter-slice context residual learning for 3D medical image segmentation", IEEE TMI
40(2), arXiv 2011.14155.

    image                                                   change = |image[d] - image[d - 1]|, reduced by 4
      | 3x3x3                                                                      |
    1    block  -- 32 ------------------------------------------------.            |
      v stride 2                                                      |            |
    1/2  2 blocks -- 64 -----------------------------.                |            |
      v stride 2                                     |                |            |
    1/4  2 blocks -- 128 ---------.                  |                |            |
      v stride 2                  |                  |                |            |
    1/8  2 blocks, 256            |                  |                |            |
    1/8  2 blocks, dilation 2     |                  |                |            |
    1/8  fused, 128 -- enlarge -- + -> module, 64 -- + -> module, 32 -- + -> module, 32 -> head -> logits
                                       ^  |               ^  |              ^  |
                          change ------'  '--- enlarge ---'  '--- enlarge --'  |
                                          v                  v                 v
                                     changes, x4        changes, x2         changes       (heads; training alone)

    block    x -> norm, ReLU, 3x3x3 -> norm, ReLU, 3x3x3 -> + x
    module   F = 3x3x3(ReLU(norm(x)))                            of the segmentation
             G = 1x1x1(|sigmoid(F)[d] - sigmoid(F)[d - 1]|)      what changes in it; nothing in the first slice
             r <- 3x3x3(ReLU(norm(r))), if the features change   of the changes; at first 3x3x3 of those of the image
             r <- 3x3x3(ReLU(norm(r + G)))
             x <- F * (1 + sigmoid(r))                           so where something changes, F counts up to twice

Norms are group norms of 8 groups, convolutions but for the heads have no bias and standardized weights. A change of
resolution on the way down is norm, ReLU and a convolution that strides; on the way up, linear interpolation that keeps
the middles of the outer voxels in place. The map of 128 features is norm, ReLU, dropout of whole features and a
convolution. For four channels and three outputs it has 19,018,732 weights: 3,456 of the first convolution, 17,590,336
of the encoder's blocks and steps, 885,248 of the fused map, 343,168, 139,584 and 56,448 of the modules, and 492 of the
heads. (The released code has 422,464 more, which nothing uses.)

The heads of the changes tell for each output where what it stands for begins or ends from one slice to the next, which
follows from the labels (`auxiliary_outputs`). Their balanced cross entropies count 1, 1/2 and 1/2, from fine to coarse.

Decision: the heads of the changes are judged by their sigmoid. The released code takes the logarithm of the logits
themselves, after it has cut them to [0.001, 0.999], which has no gradient but in between and means no probability. The
logarithm is taken of a sigmoid as a whole, which needs no cut.
Decision: the change of the image is reduced by the same interpolation that enlarges the maps.
Decision: of labels that exclude each other the background has changes of its own, those of the whole foreground.
"""

from math import gcd
from typing import Annotated, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec, adam

Value = TypeVar("Value")

GROUPS = 8
"""Of each norm."""
BLOCKS = (1, 2, 2, 2)
"""Of the encoder, at each resolution."""
CHANGES = (
    AuxiliaryOutput(target="changes", weight=1.0, balanced=True),
    AuxiliaryOutput(target="changes", weight=0.5, balanced=True),
    AuxiliaryOutput(target="changes", weight=0.5, balanced=True),
)
"""The heads of the changes, from the finest on. Source: the paper's loss."""


class ConResNetSettings(Section):
    """What a plan may say about ConResNet.

    Attributes:
        features: At full resolution; on the way down they double at each resolution.
        dropout: Share of the features of the fused map that a step of training leaves out.
    """

    features: PositiveInt = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @property
    def levels(self) -> tuple[int, ...]:
        """Features at each resolution on the way down."""
        return tuple(self.features * 2**level for level in range(len(BLOCKS)))


def draw(net: Ops[Value], image: Value, classes: int, settings: ConResNetSettings) -> list[Value]:
    """Draws ConResNet; see `Draw`."""
    *skips, x = _encode(net, image, settings)
    x = net.dropout(net.relu(_norm(net, x, "fused.norm")), settings.dropout, whole=True)
    x = _conv(net, x, settings.levels[-2], "fused.conv")
    changed, changes = net.slice_change(image), list[Value]()
    for level in reversed(range(len(skips))):
        name, features = f"decoder{level}", settings.levels[max(0, level - 1)]
        x = net.add(net.enlarge(x, 2, corners=True), skips[level])
        if level == len(skips) - 1:
            changed = _conv(net, net.resize(changed, x, corners=True), features, f"{name}.image")
        else:
            changed = net.enlarge(changed, 2, corners=True)
            if net.features(changed) != features:
                changed = _normed(net, changed, features, f"{name}.narrowed")
        x, changed = _look_at_changes(net, x, changed, features, name)
        changes.insert(0, changed)
    logits = [net.conv(x, classes, 1, "heads.labels")]
    if net.training:
        told = [net.conv(one, classes, 1, f"heads.changes{level}") for level, one in enumerate(changes)]
        logits += [net.enlarge(one, 2**level, corners=True) if level else one for level, one in enumerate(told)]
    return logits


def _encode(net: Ops[Value], image: Value, settings: ConResNetSettings) -> list[Value]:
    """The maps of each resolution, and the coarsest once more with wider blocks."""
    maps: list[Value] = []
    for level, (features, blocks) in enumerate(zip(settings.levels, BLOCKS, strict=True)):
        if maps:
            x = _normed(net, maps[-1], features, f"encoder{level}.down", stride=2)
        else:
            x = _conv(net, image, features, "stem.conv")
        for number in range(blocks):
            x = _block(net, x, f"encoder{level}.{number}")
        maps.append(x)
    for number in range(BLOCKS[-1]):
        maps[-1] = _block(net, maps[-1], f"dilated.{number}", dilation=2)
    return maps


def _look_at_changes(net: Ops[Value], x: Value, changed: Value, features: int, name: str) -> tuple[Value, Value]:
    """The module: segmentation and changes, each refined by the other."""
    found = _normed(net, x, features, f"{name}.segmentation")
    seen = _conv(net, net.slice_change(net.sigmoid(found)), features, f"{name}.seen", kernel=1)
    changed = _normed(net, net.add(changed, seen), features, f"{name}.changes")
    return net.add(found, net.multiply(found, net.sigmoid(changed))), changed


def _block(net: Ops[Value], x: Value, name: str, *, dilation: int = 1) -> Value:
    y = x
    for number in (0, 1):
        y = _normed(net, y, net.features(x), f"{name}.{number}", dilation=dilation)
    return net.add(x, y)


def _normed(net: Ops[Value], x: Value, features: int, name: str, *, stride: int = 1, dilation: int = 1) -> Value:
    """Norm and ReLU come before the convolution."""
    x = net.relu(_norm(net, x, f"{name}.norm"))
    return _conv(net, x, features, f"{name}.conv", stride=stride, dilation=dilation)


def _norm(net: Ops[Value], x: Value, name: str) -> Value:
    return net.group_norm(x, gcd(GROUPS, net.features(x)), name)


def _conv(  # noqa: PLR0913 - a convolution has so many properties
    net: Ops[Value], x: Value, features: int, name: str, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> Value:
    return net.conv(x, features, kernel, name, stride=stride, dilation=dilation, bias=False, standardized=True)


CONRESNET = NetworkSpec(
    title="ConResNet",
    summary="learns what changes from slice to slice, and looks harder there",
    source="Zhang et al. 2020, IEEE TMI 40(2), arXiv 2011.14155",
    licence="official code: GPL-3.0; not used here",
    dimensions=(3,),
    settings=ConResNetSettings,
    levels=lambda settings: settings.levels,
    draw=draw,
    auxiliary_outputs=lambda _: CHANGES,
    training=lambda _: adam(1e-3),
    recipe="Adam, a learning rate of 0.0001 and a weight decay of 0.0005",
)
