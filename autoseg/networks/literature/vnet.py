"""V-Net: a U-shaped network of residual stages, for volumes.

Source: Milletari, Navab, Ahmadi 2016, "V-Net: fully convolutional neural networks for volumetric medical image
segmentation", section 2 and figure 2, and the layer list that its authors published.

With a patch of 128 x 128 x 64 voxels and 16 features (the number of convolutions of each stage in brackets):

    image 128x128x64                                                          logits 128x128x64
      | stage 16 (1) ------------------------ 16 ---------- concat -> stage  32 (1) -> head
      v down, 2x2x2                                             ^ up, 16
    64x64x32   stage 32 (1) ----------------- 32 ---- concat -> stage  64 (1)
      v down                                             ^ up, 32
    32x32x16   stage 64 (2) ----------------- 64 -> concat -> stage 128 (2)
      v down                                           ^ up, 64
    16x16x8    stage 128 (3) --------------- 128 -> concat -> stage 256 (3)
      v down                                           ^ up, 128
    8x8x4      stage 256 (3) --------------------------'

Convolutions of a stage have kernels of 5x5x5. The input of a stage is added to the output of its last convolution, and
the sum is activated. The first stage convolves the image, and adds the image repeated to the same number of features.
In the decoder a stage gets the upsampled map concatenated with the skip. There is no pooling: convolutions of kernel
and stride 2 downsample, transposed ones upsample. All activations are PReLU. The head is a convolution of 5x5x5 and one
of 1x1x1.

The layer list has 1, 1, 2, 3, 3 convolutions in the encoder and 3, 2, 1, 1 in the decoder (61,982,682 weights for one
channel and two classes); figure 2 shows 1, 2, 3, 3, 3 and 3, 3, 2, 1. Decision: the layer list is what was trained. It
is often said that the skips of V-Net are added; they are concatenated, and what is added is the input of each stage.
The best-known form in PyTorch has batch normalization, and 1, 1, 2, 3, 2 and 2, 2, 1, 1 convolutions: the settings
"batch_norm": true, "convolutions": [1, 1, 2, 3, 2], "decoder_convolutions": [2, 2, 1, 1], with 45,602,974 weights. It
also activates the output of the last convolution of all stages but the first before the sum, which takes 960 weights
more; that is not done here.

Training minimizes the paper's Dice loss, with squares in the denominator. Decision: plus cross entropy, as for all
networks here, because with Dice alone it takes long to predict anything but background ("voxelwise": "none" of
training.loss gives the paper's loss); and without normalization by Adam, since the paper's learning rate needs tens of
thousands of steps, and those of the presets make the loss explode. The paper's own training, of 30,000 steps with two
patches each, is `published` below; its weight decay is that of the code that its authors published.
"""

from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec, adam

Value = TypeVar("Value")

KERNEL = 5


class VNetSettings(Section):
    """The settings of V-Net in a plan.

    Attributes:
        features: Number of features of the first stage; it doubles at each coarser resolution.
        convolutions: Number of convolutions of each stage of the encoder, from the finest.
        decoder_convolutions: Number of convolutions of each stage of the decoder, from the coarsest.
        batch_norm: Whether each convolution is followed by batch normalization; the paper has none.
    """

    features: PositiveInt = 16
    convolutions: Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=7)] = (1, 1, 2, 3, 3)
    decoder_convolutions: tuple[PositiveInt, ...] = (3, 2, 1, 1)
    batch_norm: bool = False

    @model_validator(mode="after")
    def _ways_agree(self) -> Self:
        if len(self.decoder_convolutions) != len(self.convolutions) - 1:
            raise ValueError("decoder_convolutions must have one value less than convolutions")
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution."""
        return tuple(self.features * 2**level for level in range(len(self.convolutions)))


def forward(ops: Ops[Value], image: Value, classes: int, settings: VNetSettings) -> list[Value]:
    """Runs the forward pass of V-Net; see `spec.ForwardFunction`."""
    levels = settings.levels
    x = _stage(ops, image, "encoder0", settings.convolutions[0], settings, features=levels[0])
    skips = [x]
    for level, features in enumerate(levels[1:], start=1):
        x = ops.conv(x, features, 2, f"down{level}.conv", stride=2)
        x = _activate(ops, x, f"down{level}", settings)
        x = _stage(ops, x, f"encoder{level}", settings.convolutions[level], settings)
        skips.append(x)
    skips.pop()
    for convolutions in settings.decoder_convolutions:
        level = len(skips) - 1
        x = ops.transposed_conv(x, levels[level], 2, f"up{level}.conv")
        x = _activate(ops, x, f"up{level}", settings)
        x = _stage(ops, ops.concat([x, skips.pop()]), f"decoder{level}", convolutions, settings)
    x = _activate(ops, ops.conv(x, classes, KERNEL, "head.conv"), "head", settings)
    return [ops.conv(x, classes, 1, "head.logits")]


def _stage(
    ops: Ops[Value], x: Value, name: str, convolutions: int, settings: VNetSettings, features: int | None = None
) -> Value:
    """Applies convolutions that keep the size, and adds the input before the last activation."""
    width, y = features or ops.features(x), x
    for number in range(convolutions):
        y = ops.conv(y, width, KERNEL, f"{name}.{number}.conv")
        if settings.batch_norm:
            y = ops.batch_norm(y, f"{name}.{number}.norm")
        if number == convolutions - 1:
            y = ops.add(y, ops.repeat_features(x, width))
        y = ops.prelu(y, f"{name}.{number}.prelu")
    return y


def _activate(ops: Ops[Value], x: Value, name: str, settings: VNetSettings) -> Value:
    if settings.batch_norm:
        x = ops.batch_norm(x, f"{name}.norm")
    return ops.prelu(x, f"{name}.prelu")


VNET = NetworkSpec(
    title="V-Net",
    summary="residual stages of 5x5x5 convolutions, no pooling, PReLU",
    source="Milletari et al. 2016, arXiv 1606.04797",
    licence="official code: GPL-3.0; not used here",
    dimensions=(3,),
    settings=VNetSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    max_channels=lambda settings: settings.features,
    training=lambda settings: {
        "loss": {"overlap": "squared_dice"},
        **({} if settings.batch_norm else adam(3e-4)),
    },
    recipe="Dice alone, SGD with momentum 0.99, a learning rate of 0.0001 and a tenth of it after every 25,000 steps",
    published=lambda _: {
        "epochs": 120,
        "steps_per_epoch": 250,
        "optimizer": "sgd",
        "learning_rate": 0.0001,
        "momentum": 0.99,
        "weight_decay": 0.0005,
        "schedule": "step",
        "step_share": 0.8333,
        "step_factor": 0.1,
        "average_decay": 0.0,
        "loss": {"overlap": "squared_dice", "voxelwise": "none"},
    },
)
