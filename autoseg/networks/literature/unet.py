"""U-Net, with which all other networks here are compared, in the unpadded form of its paper and in a padded form.

Source: Ronneberger, Fischer, Brox 2015, "U-Net: convolutional networks for biomedical image segmentation", figure 1.

    image                                                             logits
      | 2 conv  64 ------------------------------------ concat -> 2 conv  64 -> 1x1
      v largest of 2x2                                    ^ up, 2x2
    1/2    2 conv 128 ------------------------- concat -> 2 conv 128
      v                                           ^ up
    1/4      2 conv 256 --------------- concat -> 2 conv 256
      v                                   ^ up
    1/8        2 conv 512 ----- concat -> 2 conv 512
      v                           ^ up, halves the features
    1/16         2 conv 1024 -----'

It has convolutions of 3 x 3 with ReLU and no normalization: 31,030,658 weights for one channel and two outputs. With
"features": 32 and "batch_norm": true it is the form that is often used for the 117 structures of a CT, with 7,769,237
weights; for a dataset of masks it has one output per structure, trained by binary cross entropy. The window of
Hounsfield units that belongs to that form, -200 to 300 mapped to 0 to 1, is written in a plan as "scheme": "ct",
"lower": -200, "upper": 300, "mean": -200, "std": 500. Decision: without normalization it is trained by Adam; at the
presets' learning rates it predicts nothing but background.

The paper's own training is `published` below: cross entropy that weighs pixels between cells, by stochastic gradient
descent with a momentum of 0.99 and one image per step. Decision: a learning rate of 0.0001, which the paper does not
state; V-Net, which has no normalization either, takes it with this momentum.

Decision: convolutions are padded unless "padded" is false, so that the logits have the size of the image, as is usual
today. With "padded": false it is the network of the paper: no convolution is padded, skips are cropped to the size of
the decoder's map, and each pixel of the logits is predicted from pixels of the image alone. The weights are the same. A
patch of 572 x 572 pixels then becomes 388 x 388:

    level            encoder                      decoder
    0     572 -> 570 -> 568, cut to 392   392 -> 390 -> 388
    1     284 -> 282 -> 280, cut to 200   200 -> 198 -> 196
    2     140 -> 138 -> 136, cut to 104   104 -> 102 -> 100
    3      68 ->  66 ->  64, cut to  56    56 ->  54 ->  52
    4      32 ->  30 ->  28

Its margin is 92 pixels on each side, and it takes edges of 188 + 16 k pixels, of which it predicts 4 + 16 k. The
receptive field of a pixel has 188 x 188 to 204 x 204 pixels, depending on its position in the blocks that are pooled.
With less "depth" there is less margin: 44, 20 and 8 pixels for 4, 3 and 2 resolutions. Beyond its border an image is
padded by reflection; see `dataloading.sampling` and `inference.sliding_window`.
"""

from typing import Annotated, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec, adam

Value = TypeVar("Value")

MOST_LEVELS = 8
"""Largest number of resolutions. Decision: a voxel of the coarsest one then spans 128 pixels."""


class UNetSettings(Section):
    """The settings of U-Net in a plan.

    Attributes:
        features: Number of features at full resolution; it doubles at each coarser one.
        depth: Number of resolutions.
        padded: Whether convolutions are padded; if not, the logits are smaller than the patch, as in the paper.
        batch_norm: Whether each convolution is followed by batch normalization; the paper has none.
    """

    features: PositiveInt = 64
    depth: Annotated[int, Field(ge=2, le=MOST_LEVELS)] = 5
    padded: bool = True
    batch_norm: bool = False

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution."""
        return tuple(self.features * 2**level for level in range(self.depth))


def forward(ops: Ops[Value], image: Value, classes: int, settings: UNetSettings) -> list[Value]:
    """Runs the forward pass of U-Net; see `spec.ForwardFunction`."""
    x, skips = image, []
    for level, features in enumerate(settings.levels):
        x = _double_conv(ops, ops.max_pool(x, 2) if level else x, features, f"encoder{level}", settings)
        skips.append(x)
    skips.pop()
    while skips:
        level = len(skips) - 1
        x = ops.transposed_conv(x, settings.levels[level], 2, f"up{level}")
        skip = ops.center_crop(skips.pop(), x)
        x = _double_conv(ops, ops.concat([skip, x]), settings.levels[level], f"decoder{level}", settings)
    return [ops.conv(x, classes, 1, "head")]


def _double_conv(ops: Ops[Value], x: Value, features: int, name: str, settings: UNetSettings) -> Value:
    for number in (0, 1):
        x = ops.conv(x, features, 3, f"{name}.{number}.conv", padded=settings.padded)
        if settings.batch_norm:
            x = ops.batch_norm(x, f"{name}.{number}.norm")
        x = ops.relu(x)
    return x


UNET = NetworkSpec(
    title="U-Net",
    summary="the original, padded or not: two 3x3 convolutions per level, no normalization",
    source="Ronneberger et al. 2015, MICCAI, arXiv 1505.04597",
    licence="official code not used here",
    dimensions=(2,),
    settings=UNetSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    training=lambda settings: {} if settings.batch_norm else adam(3e-4),
    recipe="cross entropy that weighs pixels between touching cells, momentum 0.99, and strong deformations",
    published=lambda _: {
        "optimizer": "sgd",
        "learning_rate": 0.0001,
        "momentum": 0.99,
        "average_decay": 0.0,
        "loss": {"overlap": "none", "border_weight": 10.0, "border_sigma_voxels": 5.0},
    },
)
