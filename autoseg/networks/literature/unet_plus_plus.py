"""UNet++: nested U-Nets of all depths, with densely connected skips.

Source: Zhou et al. 2018, "UNet++: a nested U-Net architecture for medical image segmentation", and 2019, "UNet++:
redesigning skip connections to exploit multiscale features in image segmentation".

    resolution
    1      X00 ----> X01 ----> X02 ----> X03 ----> X04        each X0j, j > 0, has a head: the output of the U-Net
              v     ^   v     ^   v     ^   v     ^           that is j levels deep
    1/2      X10 ----> X11 ----> X12 ----> X13
                v     ^   v     ^   v     ^               v   largest of 2 x 2, then the column 0 of the next level
    1/4        X20 ----> X21 ----> X22                    ^   transposed convolution of 2 x 2
                  v     ^   v     ^                       ->  each map goes to all that follow in its row
    1/8          X30 ----> X31
                    v     ^
    1/16           X40

    X[i, j] = two convolutions of (X[i, 0], ..., X[i, j-1], up(X[i+1, j-1]))

With 32, 64, 128, 256 and 512 features, one channel and one output it has 9,041,601 weights, the paper's 9.04 million;
with a head for each depth, 9,041,700. Pruning: the output of a smaller depth does not need the nodes to the right of
its diagonal, so prediction may stop there and be faster.

Notice: the authors' repository is licensed for non-commercial use and names a pending patent of Arizona State
University. Nothing here is taken from it; you must check yourself whether the patent applies to you.
"""

from typing import Annotated, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec, adam

Value = TypeVar("Value")

DEPTH = 5
"""Number of resolutions."""


class UNetPlusPlusSettings(Section):
    """The settings of UNet++ in a plan.

    Attributes:
        features: Number of features at full resolution; it doubles at each coarser one.
        batch_norm: Whether each convolution is followed by batch normalization; the paper has none.
        deep_supervision: Whether each depth has a head of its own, and all are trained with equal weight.
        prediction_depth: With deep supervision, the depth whose output predicts: the paper's pruning, from 4, the
            whole network, to 1, the fastest. All depths are trained in any case.
        averaged: With deep supervision, whether the mean of the outputs up to that depth predicts, the paper's
            accurate mode. Decision: the mean of the logits is taken; the paper takes that of the probabilities.
    """

    features: PositiveInt = 32
    batch_norm: bool = False
    deep_supervision: bool = True
    prediction_depth: Annotated[int, Field(ge=1, le=DEPTH - 1)] = DEPTH - 1
    averaged: bool = False

    @property
    def predicting(self) -> int:
        """The depth whose output predicts."""
        return self.prediction_depth if self.deep_supervision else DEPTH - 1

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution."""
        return tuple(self.features * 2**level for level in range(DEPTH))


def forward(ops: Ops[Value], image: Value, classes: int, settings: UNetPlusPlusSettings) -> list[Value]:
    """Runs the forward pass of UNet++, depth by depth; see `spec.ForwardFunction`."""
    rows: list[list[Value]] = [[_node(ops, image, 0, 0, settings)]]
    first, others = settings.predicting, []
    for depth in range(1, DEPTH if ops.training else first + 1):
        rows.append([_node(ops, ops.max_pool(rows[depth - 1][0], 2), depth, 0, settings)])
        for column in range(1, depth + 1):
            level = depth - column
            up = ops.transposed_conv(rows[level + 1][-1], settings.levels[level], 2, f"up{level}{column}")
            rows[level].append(_node(ops, ops.concat([*rows[level], up]), level, column, settings))
        if depth != first and settings.deep_supervision and (ops.training or settings.averaged):
            others.append(ops.conv(rows[0][depth], classes, 1, f"heads.{depth}"))
    logits = ops.conv(rows[0][first], classes, 1, f"heads.{first}")
    if ops.training:
        return [logits, *reversed(others)]
    return [ops.mean([logits, *others]) if others else logits]


def _node(ops: Ops[Value], x: Value, level: int, column: int, settings: UNetPlusPlusSettings) -> Value:
    for number in (0, 1):
        name = f"node{level}{column}.{number}"
        x = ops.conv(x, settings.levels[level], 3, f"{name}.conv")
        if settings.batch_norm:
            x = ops.batch_norm(x, f"{name}.norm")
        x = ops.relu(x)
    return x


UNET_PLUS_PLUS = NetworkSpec(
    title="UNet++",
    summary="nested U-Nets of all depths, which prediction may prune",
    source="Zhou et al. 2018 and 2019, arXiv 1807.10165 and 1912.05074",
    licence="official code: non-commercial, patent pending (Arizona State University); not used here",
    dimensions=(2, 3),
    settings=UNetPlusPlusSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    supervises=lambda settings: settings.deep_supervision,
    training=lambda settings: {} if settings.batch_norm else adam(3e-4),
    recipe="Adam at 3e-4",
)
