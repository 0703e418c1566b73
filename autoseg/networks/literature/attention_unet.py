"""Attention U-Net: gates that let through of each skip what the coarser level looks at.

Source: Oktay et al. 2018, "Attention U-Net: learning where to look for the pancreas", sections 2 and 3, and the network
that its authors trained on CT (single gates, deep supervision).

With a patch of 64 x 64 x 64 voxels:

    image 64^3                                                       16 classes' logits -----+
      | 2 conv 16 ----------------------------------- 16 -> concat -> 2 conv 16 -> 1x1x1 ----+
      v pool                                                   ^ enlarge                     |
    32^3   2 conv 32 ---- gate <---------------.----- 32 -> concat -> 2 conv 32 -> 1x1x1 ----+ enlarge, concat,
      v pool                                   |               ^ enlarge                     | 1x1x1 -> logits 64^3
    16^3   2 conv 64 ---- gate <-------.-------|----- 64 -> concat -> 2 conv 64 -> 1x1x1 ----+
      v pool                           |       '----- x, level 2                             |
    8^3    2 conv 128 --- gate <----.  '--- x, level 3        ^ enlarge                      |
      v pool                        |  ------------- 128 -> concat -> 2 conv 128 -> 1x1x1 ---'
    4^3    2 conv 256 -> 1x1x1 -----'                         ^ enlarge
              '-----------------------------------------------'

A gate weighs a skip x by what a coarser map g sees (equations 1 and 2 of the paper):

    theta  2x2x2 convolution of x with stride 2, without bias          f = relu(theta(x) + phi(g)), half the resolution
    phi    1x1x1 convolution of g                                       a = sigmoid(psi(f)), one feature, 0 to 1
    psi    1x1x1 convolution of f                                       gated = relu(norm(combine(norm(output(a * x)))))

There is none at full resolution. The logits of all levels are brought to full resolution, put side by side and mixed
by one convolution, so there is a single output; its loss reaches all levels. 6,214,151 weights for one channel and
four classes; 5,888,004 without gates.
"""

from typing import TypeVar

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

DEPTH = 5
"""Resolutions."""


class AttentionUNetSettings(Section):
    """What a plan may say about Attention U-Net.

    Attributes:
        features: At full resolution; they double at each resolution.
        attention: Whether skips are gated; without gates it is the U-Net that the paper compares with.
    """

    features: PositiveInt = 16
    attention: bool = True

    @property
    def levels(self) -> tuple[int, ...]:
        """Features at each resolution."""
        return tuple(self.features * 2**level for level in range(DEPTH))


def draw(net: Ops[Value], image: Value, classes: int, settings: AttentionUNetSettings) -> list[Value]:
    """Draws Attention U-Net; see `Draw`."""
    *levels, deepest = settings.levels
    x, skips = image, []
    for level, features in enumerate(levels):
        x = _two(net, x, features, f"encoder{level}")
        skips.append(x)
        x = net.pool(x, 2)
    x = _two(net, x, deepest, f"encoder{len(levels)}")
    looks = _normalized(net, x, deepest, "signal") if settings.attention else x
    logits = []
    for level in reversed(range(len(levels))):
        skip = skips[level]
        if settings.attention and level > 0:
            skip = gate(net, skip, looks, f"gate{level}")
        x = _two(net, net.concat([skip, net.enlarge(x, 2)]), levels[level], f"decoder{level}")
        looks = x
        head = net.conv(x, classes, 1, f"heads.{level}")
        logits.append(head if level == 0 else net.enlarge(head, 2**level))
    return [net.conv(net.concat(logits[::-1]), classes, 1, "mix")]


def gate(net: Ops[Value], x: Value, looks: Value, name: str) -> Value:
    """Weighs the skip x by what the coarser map sees, as at the top of the module."""
    features = net.features(x)
    theta = net.conv(x, features, 2, f"{name}.theta", stride=2, bias=False)
    phi = net.resize(net.conv(looks, features, 1, f"{name}.phi"), theta)
    weight = net.sigmoid(net.conv(net.relu(net.add(theta, phi)), 1, 1, f"{name}.psi"))
    y = net.multiply(x, net.resize(weight, x))
    y = net.batch_norm(net.conv(y, features, 1, f"{name}.output.conv"), f"{name}.output.norm")
    return _normalized(net, y, features, f"{name}.combine")


def _two(net: Ops[Value], x: Value, features: int, name: str) -> Value:
    for number in (0, 1):
        x = _normalized(net, x, features, f"{name}.{number}", kernel=3)
    return x


def _normalized(net: Ops[Value], x: Value, features: int, name: str, kernel: int = 1) -> Value:
    return net.relu(net.batch_norm(net.conv(x, features, kernel, f"{name}.conv"), f"{name}.norm"))


ATTENTION_UNET = NetworkSpec(
    title="Attention U-Net",
    summary="skips are weighed by gates that look at the coarser level",
    source="Oktay et al. 2018, MIDL, arXiv 1804.03999",
    licence="official code: MIT, not used here",
    dimensions=(3,),
    settings=AttentionUNetSettings,
    levels=lambda settings: settings.levels,
    draw=draw,
    recipe="Adam at 1e-4 and Dice alone",
)
