"""High-resolution network: a decoder of parallel branches, one per resolution, that exchange their feature maps.

This is our own design; no paper describes it. It takes the exchange among resolutions from HRNet (Wang, Sun, Cheng et
al. 2019, "Deep high-resolution representation learning for visual recognition", sections 3.1 and 3.2), which is an
encoder for photographs, and makes it the decoder of a U-Net, so that fine detail need not pass through a single
sequence of maps.

         encoder        plain decoder  rounds: a block, then an exchange       fusion
    1    2 conv 32 ---- 2 conv 32 ---- block - + relu --- block - + relu --- 1x1 --- concat -> 1x1 -> 1x1 -> logits
          v              ^                    X                  X                   ^
    1/2  2 conv 64 ---- 2 conv 64 ---- block - + relu --- block - + relu --- 1x1, up |
          v              ^                    X                  X                   |
    1/4  2 conv 128 --- 2 conv 128 --- block - + relu --- block - + relu --- 1x1, up '
          v              ^
    1/8  2 conv 256 --- 2 conv 256
          v              ^ up, halves the features
    1/16 2 conv 512 ----'

All branches share the encoder and a plain decoder: each begins with the map that the plain decoder has at its
resolution. A block is that of a ResNet: two convolutions of 3x3 and a shortcut around them. In an exchange (X) every
branch becomes the ReLU of the sum of all branches: of itself unchanged, of finer ones after one strided convolution of
3x3 for each halving, of coarser ones after a convolution of 1x1 and upsampling. In the end all branches are brought to
the number of features of the finest and to full resolution, concatenated and combined by a convolution of 1x1, and the
last convolution makes the logits. Each convolution but the last is followed by instance normalization and ReLU.

With 32 features, three branches and two rounds, for one channel and two outputs, it has 8,861,384 weights in 2D and
25,778,440 in 3D. With "branches": 1 there is nothing to exchange or to fuse, and the plain decoder is left: 7,765,442
and 22,581,250 weights; comparing the two shows what the branches contribute.

Decision: instance normalization, since batches of volumes are small; HRNet has batch normalization. Decision: linear
upsampling; HRNet's is nearest-neighbour, which leaves block artefacts. Decision: the branches begin with a plain
decoder rather than with the maps of the encoder, so that a single branch is exactly the plain decoder. Decision: each
branch has a head of its own for deep supervision, at its own resolution; as with the usual network, the coarsest of
them does not count in the loss.
"""

from typing import Annotated, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

DEPTH = 5
"""Number of resolutions of the encoder."""


class HighResolutionSettings(Section):
    """The settings of the high-resolution network in a plan.

    Attributes:
        features: Number of features at full resolution; it doubles at each coarser one.
        branches: Number of parallel branches of the decoder, from full resolution on; 1 is the plain decoder.
        rounds: Number of rounds, each of a block per branch and an exchange.
        deep_supervision: Whether each of several branches has a head of its own in training.
    """

    features: PositiveInt = 32
    branches: Annotated[int, Field(ge=1, le=DEPTH - 1)] = 3
    rounds: PositiveInt = 2
    deep_supervision: bool = True

    @property
    def supervises(self) -> bool:
        """Whether training has further outputs; with a single branch there are none."""
        return self.deep_supervision and self.branches > 1

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution."""
        return tuple(self.features * 2**level for level in range(DEPTH))


def forward(ops: Ops[Value], image: Value, classes: int, settings: HighResolutionSettings) -> list[Value]:
    """Runs the forward pass of the high-resolution network; see `spec.ForwardFunction`."""
    branches = _make_branches(ops, image, settings)
    if len(branches) == 1:
        return [ops.conv(branches[0], classes, 1, "head")]
    for number in range(settings.rounds):
        branches = [_block(ops, x, f"round{number}.block{branch}") for branch, x in enumerate(branches)]
        branches = _exchange(ops, branches, f"round{number}")
    logits = ops.conv(_fuse(ops, branches), classes, 1, "head")
    if not (ops.training and settings.supervises):
        return [logits]
    return [logits, *(ops.conv(x, classes, 1, f"heads.{branch}") for branch, x in enumerate(branches))]


def _make_branches(ops: Ops[Value], image: Value, settings: HighResolutionSettings) -> list[Value]:
    """Applies the encoder and the plain decoder; returns the maps that the branches begin with, the finest first."""
    x = image
    skips: list[Value] = []
    branches: list[Value] = []
    for level, features in enumerate(settings.levels):
        x = _double_conv(ops, ops.max_pool(x, 2) if level else x, features, f"encoder{level}")
        skips.append(x)
    skips.pop()
    while skips:
        level = len(skips) - 1
        features = settings.levels[level]
        x = ops.transposed_conv(x, features, 2, f"up{level}")
        x = _double_conv(ops, ops.concat([skips.pop(), x]), features, f"decoder{level}")
        if level < settings.branches:
            branches.insert(0, x)
    return branches


def _exchange(ops: Ops[Value], branches: list[Value], name: str) -> list[Value]:
    """Returns for each branch the ReLU of the sum of all branches, resampled to its resolution and features."""
    sums = []
    for target, branch in enumerate(branches):
        total = branch
        for source, x in enumerate(branches):
            if source != target:
                layers = f"{name}.from{source}to{target}"
                total = ops.add(total, _resample_branch(ops, x, branch, target - source, layers))
        sums.append(ops.relu(total))
    return sums


def _resample_branch(ops: Ops[Value], x: Value, like: Value, halvings: int, name: str) -> Value:
    """Resamples a branch to the grid of another one, coarser by `halvings`, or finer if negative."""
    if halvings < 0:
        x = ops.instance_norm(ops.conv(x, ops.features(like), 1, f"{name}.conv"), f"{name}.norm")
        return ops.upsample(x, 2**-halvings)
    for step in range(halvings):
        last = step == halvings - 1
        x = ops.conv(x, ops.features(like if last else x), 3, f"{name}.{step}.conv", stride=2)
        x = ops.instance_norm(x, f"{name}.{step}.norm")
        x = x if last else ops.relu(x)
    return x


def _fuse(ops: Ops[Value], branches: list[Value]) -> Value:
    """Concatenates all branches at full resolution and combines them to the features of the finest."""
    features, upsampled = ops.features(branches[0]), []
    for number, branch in enumerate(branches):
        x = ops.conv(branch, features, 1, f"fusion.branch{number}.conv")
        x = ops.relu(ops.instance_norm(x, f"fusion.branch{number}.norm"))
        upsampled.append(ops.upsample(x, 2**number) if number else x)
    x = ops.conv(ops.concat(upsampled), features, 1, "fusion.mix.conv")
    return ops.relu(ops.instance_norm(x, "fusion.mix.norm"))


def _double_conv(ops: Ops[Value], x: Value, features: int, name: str) -> Value:
    for number in (0, 1):
        x = ops.conv(x, features, 3, f"{name}.{number}.conv")
        x = ops.relu(ops.instance_norm(x, f"{name}.{number}.norm"))
    return x


def _block(ops: Ops[Value], x: Value, name: str) -> Value:
    """Applies two convolutions with a shortcut around them, which is added before the last ReLU."""
    features = ops.features(x)
    y = ops.relu(ops.instance_norm(ops.conv(x, features, 3, f"{name}.0.conv"), f"{name}.0.norm"))
    y = ops.instance_norm(ops.conv(y, features, 3, f"{name}.1.conv"), f"{name}.1.norm")
    return ops.relu(ops.add(y, x))


HIGH_RESOLUTION = NetworkSpec(
    title="High-resolution network",
    summary='own design: a decoder of parallel branches that exchange maps as in HRNet; "branches": 1 is the plain one',
    source="own design, after HRNet (Wang et al. 2019, arXiv 1908.07919)",
    licence="no code of others is used here",
    dimensions=(2, 3),
    settings=HighResolutionSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    supervises=lambda settings: settings.supervises,
)
