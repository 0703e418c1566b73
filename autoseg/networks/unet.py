"""U-Net, the one that all others here are compared with, in its padded form.

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

Convolutions of 3 x 3 with ReLU, without normalization; 31,030,658 weights for one channel and two outputs. Decision:
convolutions are padded, so that the logits have the size of the image; the paper's are not, take 572 x 572 to 388 x 388
pixels, and cut the skips to fit. The weights are the same. With "features": 32 and "batch_norm": true it is the form
that is often used for 117 structures of a CT, 7,769,237 weights.
"""

from typing import TypeVar

from autoseg.architecture import PositiveInt, Section
from autoseg.networks.canvas import Canvas
from autoseg.networks.page import Page

Value = TypeVar("Value")

DEPTH = 5
"""Resolutions."""


class UNetSettings(Section):
    """What a plan may say about U-Net.

    Attributes:
        features: At full resolution; they double at each resolution.
        batch_norm: Whether each convolution is followed by batch normalization; the paper has none.
    """

    features: PositiveInt = 64
    batch_norm: bool = False

    @property
    def levels(self) -> tuple[int, ...]:
        """Features at each resolution."""
        return tuple(self.features * 2**level for level in range(DEPTH))


def draw(net: Canvas[Value], image: Value, classes: int, settings: UNetSettings) -> list[Value]:
    """Draws U-Net; see `Draw`."""
    x, skips = image, []
    for level, features in enumerate(settings.levels):
        x = _two(net, net.pool(x, 2) if level else x, features, f"encoder{level}", settings)
        skips.append(x)
    skips.pop()
    while skips:
        level = len(skips) - 1
        x = net.transposed(x, settings.levels[level], 2, f"up{level}")
        x = _two(net, net.concat([skips.pop(), x]), settings.levels[level], f"decoder{level}", settings)
    return [net.conv(x, classes, 1, "head")]


def _two(net: Canvas[Value], x: Value, features: int, name: str, settings: UNetSettings) -> Value:
    for number in (0, 1):
        x = net.conv(x, features, 3, f"{name}.{number}.conv")
        if settings.batch_norm:
            x = net.batch_norm(x, f"{name}.{number}.norm")
        x = net.relu(x)
    return x


UNET = Page(
    title="U-Net",
    summary="the original, padded: two 3x3 convolutions per level, no normalization",
    source="Ronneberger et al. 2015, MICCAI, arXiv 1505.04597",
    licence="official code not used here",
    dimensions=(2,),
    settings=UNetSettings,
    levels=lambda settings: settings.levels,
    draw=draw,
    training="cross entropy that weighs pixels between touching cells, momentum 0.99, and strong deformations",
)
