"""3D U-Net, which learns from few annotated slices, in the unpadded form of its paper and in a padded form.

Source: Çiçek, Abdulkadir, Lienkamp, Brox, Ronneberger 2016, "3D U-Net: learning dense volumetric segmentation from
sparse annotation", section 2 and figure 2.

    image                                                                           logits
      | conv 32, conv 64 --------------------------------- concat (64 + 128) -> 2 conv 64 -> 1x1x1
      v largest of 2x2x2                                       ^ up, 128
    1/2   conv 64, conv 128 ----------- concat (128 + 256) -> 2 conv 128
      v                                     ^ up, 256
    1/4     conv 128, conv 256 - concat (256 + 512) -> 2 conv 256
      v                              ^ up, 512 features, as many as come from below
    1/8       conv 256, conv 512 ----'

Features are doubled before each pooling, which avoids a bottleneck there. Each convolution of 3x3x3 is followed by
batch normalization and ReLU. It has 19,069,955 weights for three channels and three classes, the paper's number, which
is met only if the normalization has neither scale nor shift, and the transposed convolutions have no bias; "affine":
true adds both.

Decision: convolutions are padded unless "padded" is false, which gives the network of the paper: no convolution is
padded, and skips are cropped to the size of the decoder's map. The weights are the same. A patch of 132 x 132 x 116
voxels then becomes 44 x 44 x 28; along its first axis:

    level            encoder                      decoder
    0     132 -> 130 -> 128, cut to 48     48 -> 46 -> 44
    1      64 ->  62 ->  60, cut to 28     28 -> 26 -> 24
    2      30 ->  28 ->  26, cut to 18     18 -> 16 -> 14
    3      13 ->  11 ->   9

Its margin is 44 voxels on each side, and it takes edges of 92 + 8 k voxels, of which it predicts 4 + 8 k. The receptive
field of a voxel has 92 to 100 voxels along each axis; what the paper calls its receptive field, 155 x 155 x 180
micrometres, is the 88 voxels that a patch loses. With less "depth" there is less margin: 20 and 8 voxels for 3 and 2
resolutions.

Sparse annotation: voxels that nobody annotated have the number of "ignore" in dataset.json. They do not count in the
loss, and patches are centred on annotated voxels. The paper lowered the weight of the background: "class_weights" of
training.loss.
"""

from typing import Annotated, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

MOST_LEVELS = 7
"""Largest number of resolutions. Decision: a voxel of the coarsest one then spans 64 voxels of the image."""


class UNet3DSettings(Section):
    """The settings of 3D U-Net in a plan.

    Attributes:
        features: Number of features of the first convolution; the second has twice as many, and the number doubles at
            each coarser resolution.
        depth: Number of resolutions.
        padded: Whether convolutions are padded; if not, the logits are smaller than the patch, as in the paper.
        affine: Whether the normalization scales and shifts, and the transposed convolutions have a bias.
    """

    features: PositiveInt = 32
    depth: Annotated[int, Field(ge=2, le=MOST_LEVELS)] = 4
    padded: bool = True
    affine: bool = False

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution, after its second convolution."""
        return tuple(self.features * 2 ** (level + 1) for level in range(self.depth))


def forward(ops: Ops[Value], image: Value, classes: int, settings: UNet3DSettings) -> list[Value]:
    """Runs the forward pass of 3D U-Net; see `spec.ForwardFunction`."""
    x, skips = image, []
    for level, features in enumerate(settings.levels):
        x = _conv_norm_relu(ops, ops.max_pool(x, 2) if level else x, features // 2, f"encoder{level}.0", settings)
        x = _conv_norm_relu(ops, x, features, f"encoder{level}.1", settings)
        skips.append(x)
    skips.pop()
    while skips:
        level = len(skips) - 1
        x = ops.transposed_conv(x, ops.features(x), 2, f"up{level}", bias=settings.affine)
        x = ops.concat([ops.center_crop(skips.pop(), x), x])
        for number in (0, 1):
            x = _conv_norm_relu(ops, x, settings.levels[level], f"decoder{level}.{number}", settings)
    return [ops.conv(x, classes, 1, "head")]


def _conv_norm_relu(ops: Ops[Value], x: Value, features: int, name: str, settings: UNet3DSettings) -> Value:
    x = ops.conv(x, features, 3, f"{name}.conv", padded=settings.padded)
    return ops.relu(ops.batch_norm(x, f"{name}.norm", affine=settings.affine))


UNET_3D = NetworkSpec(
    title="3D U-Net",
    summary="the original, padded or not: features double before pooling, batch normalization",
    source="Çiçek et al. 2016, MICCAI, arXiv 1606.06650",
    licence="official code not used here",
    dimensions=(3,),
    settings=UNet3DSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    recipe='weighted cross entropy alone: "overlap": "none" and "class_weights" of training.loss',
)
