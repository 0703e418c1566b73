"""The layers of drawn networks that hold weights, as they are written down."""

from dataclasses import dataclass
from math import prod
from typing import Literal

Kind = Literal[
    "conv",
    "transposed",
    "linear",
    "batch_norm",
    "instance_norm",
    "group_norm",
    "layer_norm",
    "prelu",
    "embedding",
    "offset_bias",
    "offsets",
    "shares",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer that holds weights; see `canvas.Ops` for what each kind does.

    Attributes:
        kind: An embedding is what `embed` and `embed_places` add; an offset bias what `attend` adds; the offsets of
            `sample` and its shares, what each place counts, are linear layers.
        dimensions: Axes of the maps that go through it; of offsets, of the image.
        in_features, features: Channels of its input and output; of an offset bias, both are the heads.
        kernel: Edges of a kernel; of the window of an offset bias; of an embedding, 1 or the size of the image.
        stride, dilation: Of a convolution.
        padded, standardized: Of a convolution.
        bias: Whether a convolution or linear layer adds one number per feature; of a batch norm, whether it scales and
            shifts.
        groups: Of a group norm; of offsets, the heads.
        points: Of offsets, of each head in each map.
    """

    kind: Kind
    dimensions: int
    in_features: int
    features: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: int = 1
    padded: bool = True
    standardized: bool = False
    bias: bool = True
    groups: int = 1
    points: int = 1

    @property
    def weights(self) -> int:
        """Trainable numbers."""
        if self.kind in ("conv", "transposed", "linear", "offsets", "shares"):
            return (self.in_features * prod(self.kernel) + int(self.bias)) * self.features
        if self.kind == "embedding":
            return self.features * prod(self.kernel)
        if self.kind == "offset_bias":
            return self.features * prod(2 * edge - 1 for edge in self.kernel)
        if self.kind == "prelu":
            return self.features
        return 2 * self.features if self.bias else 0
