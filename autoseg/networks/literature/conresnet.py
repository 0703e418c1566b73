"""ConResNet: a decoder that also learns how the segmentation changes from slice to slice, and attends to the changes.

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
    module   F = 3x3x3(ReLU(norm(x)))                            features of the segmentation
             G = 1x1x1(|sigmoid(F)[d] - sigmoid(F)[d - 1]|)      their difference between slices; 0 in the first slice
             r <- 3x3x3(ReLU(norm(r))), if the features change   residual features; at first 3x3x3 of the image's change
             r <- 3x3x3(ReLU(norm(r + G)))
             x <- F * (1 + sigmoid(r))                           so where something changes, F counts up to twice

Norms are group norms of 8 groups; convolutions except the heads have no bias and standardized weights. Downsampling is
norm, ReLU and a strided convolution; upsampling is linear interpolation that keeps the centres of the outer voxels in
place. The map of 128 features is made by norm, ReLU, dropout of whole feature maps and a convolution. For four channels
and three outputs the network has 19,018,732 weights: 3,456 in the first convolution, 17,590,336 in the encoder, 885,248
in the fused map, 343,168, 139,584 and 56,448 in the modules, and 492 in the heads. (The released code has 422,464 more,
which are never used.)

The heads of the changes predict for each output where its structure begins or ends from one slice to the next, which
follows from the labels (`auxiliary_outputs`). Their balanced cross entropies have the weights 1, 1/2 and 1/2, from fine
to coarse.

Decision: the losses of these heads take the sigmoid of the logits. The released code takes the logarithm of the logits
themselves, after clipping them to [0.001, 0.999], which has no gradient outside and is no probability. The logarithm of
a sigmoid is calculated as one function, which needs no clipping.
Decision: the change of the image is downsampled by the same interpolation that upsamples the maps.
Decision: for mutually exclusive labels the background has changes of its own, those of the whole foreground.
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
"""Number of groups of each norm."""
BLOCKS = (1, 2, 2, 2)
"""Number of encoder blocks at each resolution."""
CHANGES = (
    AuxiliaryOutput(target="changes", weight=1.0, balanced=True),
    AuxiliaryOutput(target="changes", weight=0.5, balanced=True),
    AuxiliaryOutput(target="changes", weight=0.5, balanced=True),
)
"""The heads of the changes, from the finest on. Source: the paper's loss."""


class ConResNetSettings(Section):
    """The settings of ConResNet in a plan.

    Attributes:
        features: Number of features at full resolution; in the encoder it doubles at each coarser one.
        dropout: Dropout rate of the feature maps of the fused map.
    """

    features: PositiveInt = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution of the encoder."""
        return tuple(self.features * 2**level for level in range(len(BLOCKS)))


def forward(ops: Ops[Value], image: Value, classes: int, settings: ConResNetSettings) -> list[Value]:
    """Runs the forward pass of ConResNet; see `spec.ForwardFunction`."""
    *skips, x = _encode(ops, image, settings)
    x = ops.dropout(ops.relu(_norm(ops, x, "fused.norm")), settings.dropout, whole_maps=True)
    x = _conv(ops, x, settings.levels[-2], "fused.conv")
    residual, residuals = ops.slice_difference(image), list[Value]()
    for level in reversed(range(len(skips))):
        name, features = f"decoder{level}", settings.levels[max(0, level - 1)]
        x = ops.add(ops.upsample(x, 2, align_corners=True), skips[level])
        if level == len(skips) - 1:
            residual = _conv(ops, ops.resize(residual, x, align_corners=True), features, f"{name}.image")
        else:
            residual = ops.upsample(residual, 2, align_corners=True)
            if ops.features(residual) != features:
                residual = _norm_relu_conv(ops, residual, features, f"{name}.narrowed")
        x, residual = _context_residual(ops, x, residual, features, name)
        residuals.insert(0, residual)
    logits = [ops.conv(x, classes, 1, "heads.labels")]
    if ops.training:
        changes = [ops.conv(y, classes, 1, f"heads.changes{level}") for level, y in enumerate(residuals)]
        logits += [ops.upsample(y, 2**level, align_corners=True) if level else y for level, y in enumerate(changes)]
    return logits


def _encode(ops: Ops[Value], image: Value, settings: ConResNetSettings) -> list[Value]:
    """Returns the map of each resolution; the coarsest has passed the dilated blocks as well."""
    maps: list[Value] = []
    for level, (features, blocks) in enumerate(zip(settings.levels, BLOCKS, strict=True)):
        if maps:
            x = _norm_relu_conv(ops, maps[-1], features, f"encoder{level}.down", stride=2)
        else:
            x = _conv(ops, image, features, "stem.conv")
        for number in range(blocks):
            x = _block(ops, x, f"encoder{level}.{number}")
        maps.append(x)
    for number in range(BLOCKS[-1]):
        maps[-1] = _block(ops, maps[-1], f"dilated.{number}", dilation=2)
    return maps


def _context_residual(ops: Ops[Value], x: Value, residual: Value, features: int, name: str) -> tuple[Value, Value]:
    """Applies the module: refines the features of the segmentation and of its changes by each other."""
    segmentation = _norm_relu_conv(ops, x, features, f"{name}.segmentation")
    change = _conv(ops, ops.slice_difference(ops.sigmoid(segmentation)), features, f"{name}.seen", kernel=1)
    residual = _norm_relu_conv(ops, ops.add(residual, change), features, f"{name}.changes")
    return ops.add(segmentation, ops.multiply(segmentation, ops.sigmoid(residual))), residual


def _block(ops: Ops[Value], x: Value, name: str, *, dilation: int = 1) -> Value:
    y = x
    for number in (0, 1):
        y = _norm_relu_conv(ops, y, ops.features(x), f"{name}.{number}", dilation=dilation)
    return ops.add(x, y)


def _norm_relu_conv(
    ops: Ops[Value], x: Value, features: int, name: str, *, stride: int = 1, dilation: int = 1
) -> Value:
    """Applies norm, ReLU and convolution, in this order."""
    x = ops.relu(_norm(ops, x, f"{name}.norm"))
    return _conv(ops, x, features, f"{name}.conv", stride=stride, dilation=dilation)


def _norm(ops: Ops[Value], x: Value, name: str) -> Value:
    return ops.group_norm(x, gcd(GROUPS, ops.features(x)), name)


def _conv(  # noqa: PLR0913 - a convolution has so many properties
    ops: Ops[Value], x: Value, features: int, name: str, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> Value:
    return ops.conv(x, features, kernel, name, stride=stride, dilation=dilation, bias=False, standardized=True)


CONRESNET = NetworkSpec(
    title="ConResNet",
    summary="also learns how the segmentation changes from slice to slice, and attends to the changes",
    source="Zhang et al. 2020, IEEE TMI 40(2), arXiv 2011.14155",
    licence="official code: GPL-3.0; not used here",
    dimensions=(3,),
    settings=ConResNetSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    auxiliary_outputs=lambda _: CHANGES,
    training=lambda _: adam(1e-3),
    recipe="Adam, a learning rate of 0.0001 and a weight decay of 0.0005",
)
