"""The specification of a layer with weights, without torch."""

from dataclasses import dataclass
from math import prod
from typing import Literal

Kind = Literal[
    "conv",
    "transposed_conv",
    "linear",
    "batch_norm",
    "instance_norm",
    "group_norm",
    "layer_norm",
    "prelu",
    "embedding",
    "relative_position_bias",
    "offsets",
    "point_weights",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """The specification of a layer with weights; `ops.Ops` documents what each kind calculates.

    Attributes:
        kind: The kind of layer. An "embedding" is added by `add_embedding` or `add_position_embedding`, a
            "relative_position_bias" by `attention`; "offsets" and "point_weights" are the two linear layers of
            `deformable_attention`.
        dimensions: Number of axes of the feature maps; for offsets, of the image.
        in_features, features: Number of input and output features; for a relative position bias, both are the heads.
        kernel: Edges of the kernel in voxels; for a relative position bias, of the window; for an embedding, 1 or the
            size of the image.
        stride, dilation: Stride and dilation of a convolution.
        padded, standardized: Whether a convolution is padded, and whether its weights are standardized.
        bias: Whether a convolution or linear layer has a bias; for a batch norm, whether it scales and shifts.
        groups: Number of groups of a group norm; for offsets, the number of heads.
        points: For offsets, the number of sampling points per head and map.
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
        """Number of trainable weights."""
        if self.kind in ("conv", "transposed_conv", "linear", "offsets", "point_weights"):
            return (self.in_features * prod(self.kernel) + int(self.bias)) * self.features
        if self.kind == "embedding":
            return self.features * prod(self.kernel)
        if self.kind == "relative_position_bias":
            return self.features * prod(2 * edge - 1 for edge in self.kernel)
        if self.kind == "prelu":
            return self.features
        return 2 * self.features if self.bias else 0
