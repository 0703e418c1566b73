"""High-resolution network: a way up in parallel branches, one per resolution, that tell each other what they see.

An own design; no paper describes it. It takes the exchange among resolutions from HRNet (Wang, Sun, Cheng et al. 2019,
"Deep high-resolution representation learning for visual recognition", sections 3.1 and 3.2), which is an encoder for
photographs, and makes it the way up of a U-Net, so that fine detail need not pass through a single thread of maps.

         way down       plain way up   rounds: a block, then an exchange       fusion
    1    2 conv 32 ---- 2 conv 32 ---- block - + relu --- block - + relu --- 1x1 --- concat -> 1x1 -> 1x1 -> logits
          v              ^                    X                  X                   ^
    1/2  2 conv 64 ---- 2 conv 64 ---- block - + relu --- block - + relu --- 1x1, up |
          v              ^                    X                  X                   |
    1/4  2 conv 128 --- 2 conv 128 --- block - + relu --- block - + relu --- 1x1, up '
          v              ^
    1/8  2 conv 256 --- 2 conv 256
          v              ^ up, halves the features
    1/16 2 conv 512 ----'

All branches share the way down, and the way up as far as it goes: each begins with the map that a plain way up has at
its resolution. A block is that of a ResNet: two convolutions of 3x3 around which the input is added. In an exchange (X)
every branch becomes the rectified sum of all: of itself as it is, of finer ones after one strided convolution of 3x3
for each halving, of coarser ones after a convolution of 1x1 and enlargement. In the end all branches are brought to as
many features as the finest has and to full resolution, laid side by side, mixed by a convolution of 1x1, and the last
convolution makes logits of them. Each convolution but the last is followed by instance normalization and ReLU.

With 32 features, three branches and two rounds, for one channel and two outputs, it has 8,861,384 weights in 2D and
25,778,440 in 3D. With "branches": 1 there is nothing to exchange or to fuse, and the plain way up is left: 7,765,442
and 22,581,250 weights; what the branches are worth is the difference of the two.

Decision: instance normalization, since batches of volumes are small; HRNet has that of batches. Decision: linear
enlargement, HRNet's is that of the nearest voxel, which leaves edges of blocks. Decision: the branches begin with a
plain way up rather than with the maps of the way down, so that a single branch is the plain decoder and nothing else.
Decision: each branch has a head of its own for deep supervision, at its own resolution; as with the usual network, the
coarsest of them does not count in the loss.
"""

from typing import Annotated, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

DEPTH = 5
"""Resolutions of the way down."""


class HighResolutionSettings(Section):
    """What a plan may say about the high-resolution network.

    Attributes:
        features: At full resolution; they double at each resolution.
        branches: Resolutions that the way up keeps side by side, from the full one on; 1 is the plain way up.
        rounds: Blocks, with an exchange after each.
        deep_supervision: Whether each of several branches has a head of its own in training.
    """

    features: PositiveInt = 32
    branches: Annotated[int, Field(ge=1, le=DEPTH - 1)] = 3
    rounds: PositiveInt = 2
    deep_supervision: bool = True

    @property
    def supervises(self) -> bool:
        """Whether training has further outputs: a single branch has none but its own."""
        return self.deep_supervision and self.branches > 1

    @property
    def levels(self) -> tuple[int, ...]:
        """Features at each resolution."""
        return tuple(self.features * 2**level for level in range(DEPTH))


def draw(net: Ops[Value], image: Value, classes: int, settings: HighResolutionSettings) -> list[Value]:
    """Draws the high-resolution network; see `Draw`."""
    branches = _begin(net, image, settings)
    if len(branches) == 1:
        return [net.conv(branches[0], classes, 1, "head")]
    for number in range(settings.rounds):
        branches = [_block(net, x, f"round{number}.block{branch}") for branch, x in enumerate(branches)]
        branches = _exchange(net, branches, f"round{number}")
    logits = net.conv(_fuse(net, branches), classes, 1, "head")
    if not (net.training and settings.supervises):
        return [logits]
    return [logits, *(net.conv(x, classes, 1, f"heads.{branch}") for branch, x in enumerate(branches))]


def _begin(net: Ops[Value], image: Value, settings: HighResolutionSettings) -> list[Value]:
    """The way down and the plain way up: what the branches begin with, the finest first."""
    x = image
    skips: list[Value] = []
    branches: list[Value] = []
    for level, features in enumerate(settings.levels):
        x = _two(net, net.pool(x, 2) if level else x, features, f"encoder{level}")
        skips.append(x)
    skips.pop()
    while skips:
        level = len(skips) - 1
        features = settings.levels[level]
        x = net.transposed(x, features, 2, f"up{level}")
        x = _two(net, net.concat([skips.pop(), x]), features, f"decoder{level}")
        if level < settings.branches:
            branches.insert(0, x)
    return branches


def _exchange(net: Ops[Value], branches: list[Value], name: str) -> list[Value]:
    """Each branch as the rectified sum of all, brought to its resolution and features."""
    mixed = []
    for target, own in enumerate(branches):
        total = own
        for source, x in enumerate(branches):
            if source != target:
                total = net.add(total, _bring(net, x, own, target - source, f"{name}.from{source}to{target}"))
        mixed.append(net.relu(total))
    return mixed


def _bring(net: Ops[Value], x: Value, like: Value, halvings: int, name: str) -> Value:
    """A branch on the grid of another one, which is so many halvings coarser, or finer if they are below 0."""
    if halvings < 0:
        x = net.instance_norm(net.conv(x, net.features(like), 1, f"{name}.conv"), f"{name}.norm")
        return net.enlarge(x, 2**-halvings)
    for step in range(halvings):
        last = step == halvings - 1
        x = net.conv(x, net.features(like if last else x), 3, f"{name}.{step}.conv", stride=2)
        x = net.instance_norm(x, f"{name}.{step}.norm")
        x = x if last else net.relu(x)
    return x


def _fuse(net: Ops[Value], branches: list[Value]) -> Value:
    """All branches at full resolution, side by side, mixed to the features of the finest."""
    features, parts = net.features(branches[0]), []
    for branch, own in enumerate(branches):
        x = net.conv(own, features, 1, f"fusion.branch{branch}.conv")
        x = net.relu(net.instance_norm(x, f"fusion.branch{branch}.norm"))
        parts.append(net.enlarge(x, 2**branch) if branch else x)
    mixed = net.conv(net.concat(parts), features, 1, "fusion.mix.conv")
    return net.relu(net.instance_norm(mixed, "fusion.mix.norm"))


def _two(net: Ops[Value], x: Value, features: int, name: str) -> Value:
    for number in (0, 1):
        x = net.conv(x, features, 3, f"{name}.{number}.conv")
        x = net.relu(net.instance_norm(x, f"{name}.{number}.norm"))
    return x


def _block(net: Ops[Value], x: Value, name: str) -> Value:
    """Two convolutions around which the input is added before the last ReLU."""
    features = net.features(x)
    y = net.relu(net.instance_norm(net.conv(x, features, 3, f"{name}.0.conv"), f"{name}.0.norm"))
    y = net.instance_norm(net.conv(y, features, 3, f"{name}.1.conv"), f"{name}.1.norm")
    return net.relu(net.add(y, x))


HIGH_RESOLUTION = NetworkSpec(
    title="High-resolution network",
    summary='own design: a way up in parallel branches that exchange maps as in HRNet; "branches": 1 is the plain one',
    source="own design, after HRNet (Wang et al. 2019, arXiv 1908.07919)",
    licence="no code of others is used here",
    dimensions=(2, 3),
    settings=HighResolutionSettings,
    levels=lambda settings: settings.levels,
    draw=draw,
    supervises=lambda settings: settings.supervises,
)
