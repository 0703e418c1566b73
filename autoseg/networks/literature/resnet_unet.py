"""U-Nets whose encoder is a ResNet of 18, 34, 50, 101 or 152 layers.

Source: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", figure 5 and table 1.

    image                                                                        logits
      | 7x7 convolution, 64, stride 2                                    up, 32 -> 2 conv 32 -> 1x1
    1/2      64 -------------------------------------------- concat -> 2 conv 64
      v largest of 3x3, stride 2                               ^ up, 64
    1/4      3 blocks of  64 ------------------- concat -> 2 conv  64
      v stride 2 in the first block                ^ up, 64          basic block        bottleneck block, 4 times wider
    1/8      4 blocks of 128 --------- concat -> 2 conv 128            3x3, norm, relu    1x1, norm, relu
      v                                  ^ up, 128                     3x3, norm          3x3, norm, relu
    1/16     6 blocks of 256 - concat -> 2 conv 256                    + x, relu          1x1, norm
      v                          ^ up, 256                                                + x, relu
    1/32     3 blocks of 512 ----'

The numbers of blocks are those of 34 and 50 layers. A block that changes size or features has a 1x1 convolution with
norm in its shortcut. Decision: the 3x3 convolution of a bottleneck strides, as in the weights that are widely shared,
rather than the 1x1 before it. For three channels the encoders have 11,176,512, 21,284,672, 23,508,032, 42,500,160 and
58,143,808 weights: those of the classifiers without their last layer. Decision: the decoder is our own, a plain one
with batch normalization; the paper has none. For volumes all kernels and strides have three axes.
"""

from typing import Literal, TypeVar

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Number of blocks per resolution, by the number of layers. Source: the paper, table 1."""
EXPANSION = 4
"""Output features of a bottleneck, as a multiple of its inner features. Source: the paper."""


class ResNetUNetSettings(Section):
    """The settings of U-Nets on ResNets in a plan.

    Attributes:
        layers: Number of layers of the ResNet; up to 34 it has basic blocks, from 50 on bottlenecks.
        features: Number of features of the first convolution and the first blocks; it doubles at each coarser
            resolution.
    """

    layers: Literal[18, 34, 50, 101, 152] = 34
    features: PositiveInt = 64

    @property
    def expansion(self) -> int:
        """Output features of a block, as a multiple of its inner features."""
        return EXPANSION if self.layers >= 50 else 1

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution; at the finest, which only the decoder has, half of the next one's."""
        widths = (self.features * self.expansion * 2**level for level in range(4))
        return (max(1, self.features // 2), self.features, *widths)


def forward(ops: Ops[Value], image: Value, classes: int, settings: ResNetUNetSettings) -> list[Value]:
    """Runs the forward pass of a ResNet encoder and a plain decoder; see `spec.ForwardFunction`."""
    *skips, x = encode(ops, image, settings)
    while skips:
        level = len(skips) - 1
        skip = skips.pop()
        features = settings.features * 2 ** max(0, level - 1)
        x = ops.transposed_conv(x, features, 2, f"up{level}")
        x = _double_conv(ops, ops.concat([skip, x]), features, f"decoder{level}")
    finest = settings.levels[0]
    x = _double_conv(ops, ops.transposed_conv(x, finest, 2, "up"), finest, "decoder")
    return [ops.conv(x, classes, 1, "head")]


def encode(ops: Ops[Value], image: Value, settings: ResNetUNetSettings) -> list[Value]:
    """Returns the maps of the ResNet, from half the resolution on."""
    x = ops.conv(image, settings.features, 7, "encoder.stem.conv", stride=2, bias=False)
    x = ops.relu(ops.batch_norm(x, "encoder.stem.norm"))
    maps = [x]
    x = ops.max_pool(x, 2, kernel=3)
    for level, blocks in enumerate(BLOCKS[settings.layers]):
        for number in range(blocks):
            stride = 2 if level > 0 and number == 0 else 1
            name = f"encoder.stage{level}.{number}"
            x = block(ops, x, settings.features * 2**level, name, stride=stride, expansion=settings.expansion)
        maps.append(x)
    return maps


def block(ops: Ops[Value], x: Value, features: int, name: str, *, stride: int, expansion: int) -> Value:
    """Applies a basic block, or with an expansion above 1 a bottleneck."""
    out_features = features * expansion
    kernels = (3, 3) if expansion == 1 else (1, 3, 1)
    widths = (features, out_features) if expansion == 1 else (features, features, out_features)
    striding = kernels.index(3)
    y = x
    for number, (kernel, width) in enumerate(zip(kernels, widths, strict=True)):
        step = stride if number == striding else 1
        y = ops.batch_norm(
            ops.conv(y, width, kernel, f"{name}.conv{number}", stride=step, bias=False), f"{name}.norm{number}"
        )
        if number < len(kernels) - 1:
            y = ops.relu(y)
    if stride > 1 or ops.features(x) != out_features:
        x = ops.conv(x, out_features, 1, f"{name}.shortcut.conv", stride=stride, bias=False)
        x = ops.batch_norm(x, f"{name}.shortcut.norm")
    return ops.relu(ops.add(y, x))


def _double_conv(ops: Ops[Value], x: Value, features: int, name: str) -> Value:
    for number in (0, 1):
        x = ops.conv(x, features, 3, f"{name}.{number}.conv", bias=False)
        x = ops.relu(ops.batch_norm(x, f"{name}.{number}.norm"))
    return x


RESNET_UNET = NetworkSpec(
    title="U-Net on a ResNet",
    summary='a ResNet as encoder ("layers": 18 to 152), with a plain decoder of our own',
    source="He et al. 2016, CVPR, arXiv 1512.03385",
    licence="official code not used here",
    dimensions=(2, 3),
    settings=ResNetUNetSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
)
