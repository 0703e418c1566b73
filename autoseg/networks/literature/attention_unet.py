"""Attention U-Net: attention gates weigh each skip connection by what the coarser level sees.

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

There is no gate at full resolution. The logits of all levels are upsampled to full resolution, concatenated and
combined by one convolution, so there is a single output, whose loss reaches all levels. The network has 6,214,151
weights for one channel and four classes, and 5,888,004 without gates.
"""

from typing import TypeVar

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

DEPTH = 5
"""Number of resolutions."""


class AttentionUNetSettings(Section):
    """The settings of Attention U-Net in a plan.

    Attributes:
        features: Number of features at full resolution; it doubles at each coarser one.
        attention: Whether skip connections are gated; without gates it is the U-Net that the paper compares with.
    """

    features: PositiveInt = 16
    attention: bool = True

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution."""
        return tuple(self.features * 2**level for level in range(DEPTH))


def forward(ops: Ops[Value], image: Value, classes: int, settings: AttentionUNetSettings) -> list[Value]:
    """Runs the forward pass of Attention U-Net; see `spec.ForwardFunction`."""
    *levels, deepest = settings.levels
    x, skips = image, []
    for level, features in enumerate(levels):
        x = _double_conv(ops, x, features, f"encoder{level}")
        skips.append(x)
        x = ops.max_pool(x, 2)
    x = _double_conv(ops, x, deepest, f"encoder{len(levels)}")
    signal = _conv_norm_relu(ops, x, deepest, "signal") if settings.attention else x
    logits = []
    for level in reversed(range(len(levels))):
        skip = skips[level]
        if settings.attention and level > 0:
            skip = gate(ops, skip, signal, f"gate{level}")
        x = _double_conv(ops, ops.concat([skip, ops.upsample(x, 2)]), levels[level], f"decoder{level}")
        signal = x
        head = ops.conv(x, classes, 1, f"heads.{level}")
        logits.append(head if level == 0 else ops.upsample(head, 2**level))
    return [ops.conv(ops.concat(logits[::-1]), classes, 1, "mix")]


def gate(ops: Ops[Value], x: Value, signal: Value, name: str) -> Value:
    """Weighs a skip connection by an attention gate, with a coarser map as gating signal; see the module."""
    features = ops.features(x)
    theta = ops.conv(x, features, 2, f"{name}.theta", stride=2, bias=False)
    phi = ops.resize(ops.conv(signal, features, 1, f"{name}.phi"), theta)
    weight = ops.sigmoid(ops.conv(ops.relu(ops.add(theta, phi)), 1, 1, f"{name}.psi"))
    y = ops.multiply(x, ops.resize(weight, x))
    y = ops.batch_norm(ops.conv(y, features, 1, f"{name}.output.conv"), f"{name}.output.norm")
    return _conv_norm_relu(ops, y, features, f"{name}.combine")


def _double_conv(ops: Ops[Value], x: Value, features: int, name: str) -> Value:
    for number in (0, 1):
        x = _conv_norm_relu(ops, x, features, f"{name}.{number}", kernel=3)
    return x


def _conv_norm_relu(ops: Ops[Value], x: Value, features: int, name: str, kernel: int = 1) -> Value:
    return ops.relu(ops.batch_norm(ops.conv(x, features, kernel, f"{name}.conv"), f"{name}.norm"))


ATTENTION_UNET = NetworkSpec(
    title="Attention U-Net",
    summary="attention gates weigh the skip connections by what the coarser level sees",
    source="Oktay et al. 2018, MIDL, arXiv 1804.03999",
    licence="official code: MIT; not used here",
    dimensions=(3,),
    settings=AttentionUNetSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    recipe="Adam at 1e-4 and Dice alone",
)
