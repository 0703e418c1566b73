"""The operations that networks of the literature are written with, in two implementations: on shapes and in torch.

A network of the literature is a function that leads an image through named layers, by the methods of an `Ops`. It is
written once and runs on two implementations. `shape_ops.ShapeOps` knows shapes alone: it records the layers, and counts
weights, multiply-adds and what training keeps, which is all that planning needs. `torch_ops.TorchOps` has the layers as
torch modules and calculates with tensors. So the network that is planned is the network that is trained.

A value is a batch of feature maps (n, features, *size). The tokens of a transformer are the voxels of such a map; only
where the tokens of several maps are joined into one sequence (`flatten_maps`), the size has a single axis.

Decision: planning counts on shapes rather than on torch's meta device. Both agree: for U-Net, Attention U-Net, V-Net,
ConResNet, CoTr, nnFormer, Swin-Unet and TransUNet the weights and the sizes of the outputs are equal, and what autograd
keeps differs by less than 2 percent, apart from copies of standardized weights, which are counted with the weights, and
from attention scores, which the meta device keeps and fused attention does not. But a forward pass on the meta device
takes 10 to 220 ms, against about 1 ms on shapes, and a plan needs up to 109 of them for a dataset of CT scans: 3 to 12
seconds instead of 30 to 60 ms, after a second to import torch, which planning does without. `ShapeOps` and `LayerSpec`
have about 350 lines; without them the 130 layers of the 13 networks would have to be declared apart from the forward
passes that use them, and a counter of saved tensors would be needed. Torch's autocast, which some layers switch off,
does not know the meta device either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Value = TypeVar("Value")

Edges = int | tuple[int, ...]
"""Voxels along each axis: one number for all axes, or one for each."""

ABSENCE_PENALTY = 30.0
"""The amount by which the logit of a structure that is absent is lowered.

Decision: odds fall by a factor of 10 to the 13; in a mean of logits, such as that of overlapping tiles, the other tiles
can still outvote it.
"""


def per_axis(edges: Edges, dimensions: int) -> tuple[int, ...]:
    """Returns one value per axis.

    >>> per_axis(2, 3)
    (2, 2, 2)

    Raises:
        ValueError: The number of values is not the number of axes.
    """
    values = (edges,) * dimensions if isinstance(edges, int) else tuple(edges)
    if len(values) != dimensions:
        raise ValueError(f"{values} has {len(values)} values, the image has {dimensions} axes")
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Windows of voxels that attend to each other and to nothing else.

    Along an axis that is no longer than the window there is one window. Windows that reach beyond the map are padded,
    and padding is masked.
    Source: Liu et al. 2021, "Swin transformer", sections 3.2 and 4.

    Attributes:
        edges: Voxels of a window along each axis.
        shifted: Whether windows are shifted by half an edge; voxels from opposite borders of the map stay masked from
            each other.
        bias: Name of the layer with the relative position bias: a learned number for each offset between two voxels of
            a window and each head, which is added to their attention score.
    """

    edges: Edges
    shifted: bool = False
    bias: str | None = None


class Ops(Protocol[Value]):
    """The operations that networks are written with.

    Attributes:
        training: Whether the outputs that only training has are needed.
    """

    @property
    def training(self) -> bool:
        """See the class."""

    # --- Layers with weights ------------------------------------------------------------------------------------------

    def conv(  # noqa: PLR0913 - a convolution has so many properties
        self,
        x: Value,
        features: int,
        kernel: Edges,
        name: str,
        *,
        stride: Edges = 1,
        bias: bool = True,
        dilation: int = 1,
        padded: bool = True,
        standardized: bool = False,
    ) -> Value:
        """Applies a convolution.

        Args:
            x: Input.
            features: Number of output features.
            kernel: Edges of the kernel in voxels.
            name: Name of the layer.
            stride: Stride along each axis.
            bias: Whether the convolution has a bias.
            dilation: Dilation of the kernel.
            padded: Whether the border is padded with zeros so that a stride of 1 keeps the size.
            standardized: Whether the weights of each output feature are standardized to mean 0 and standard deviation 1
                whenever they are used.
        """

    def transposed_conv(self, x: Value, features: int, stride: Edges, name: str, *, bias: bool = True) -> Value:
        """Applies a transposed convolution whose kernel equals its stride: each voxel becomes a block of voxels."""

    def linear(self, x: Value, features: int, name: str, *, bias: bool = True) -> Value:
        """Applies a linear layer to the features of every voxel."""

    def batch_norm(self, x: Value, name: str, *, affine: bool = True) -> Value:
        """Applies batch normalization; if affine, with a learned scale and shift per feature."""

    def instance_norm(self, x: Value, name: str) -> Value:
        """Normalizes each feature of each sample to mean 0 and variance 1, then scales and shifts it."""

    def group_norm(self, x: Value, groups: int, name: str) -> Value:
        """Normalizes groups of consecutive features of each sample, then scales and shifts each feature."""

    def layer_norm(self, x: Value, name: str) -> Value:
        """Normalizes the features of each voxel, then scales and shifts each feature."""

    def prelu(self, x: Value, name: str) -> Value:
        """Applies a PReLU with a learned negative slope per feature."""

    def add_embedding(self, x: Value, name: str) -> Value:
        """Adds a learned vector to the features of every voxel."""

    def add_position_embedding(self, x: Value, name: str) -> Value:
        """Adds a learned vector for each voxel position, which fixes the size of the image."""

    # --- Attention ----------------------------------------------------------------------------------------------------

    def attention(self, query: Value, key: Value, value: Value, heads: int, window: Window | None = None) -> Value:
        """Applies multi-head scaled dot-product attention.

        Source: Vaswani et al. 2017, "Attention is all you need".

        Args:
            query: Queries, of the same size and as many features as `key` and `value`.
            key: Keys.
            value: Values.
            heads: Number of heads, which divides the features.
            window: Windows inside which voxels attend to each other; left out, all voxels attend to all.
        """

    def deformable_attention(self, tokens: Value, values: Sequence[Value], heads: int, points: int, name: str) -> Value:
        """Applies multi-scale deformable attention: a weighted mean of values at positions that each token chooses.

        Source: Zhu et al. 2021, "Deformable DETR", section 4.1. Two linear layers of a token, "offsets" and "weights",
        give for each head, map and point the sampling offset from the position of the token, in voxels of that map with
        the last axis first, and the attention weight before a softmax over all maps and points. Values between voxels
        are interpolated linearly; beyond the border they are 0.

        Args:
            tokens: The voxels of all maps as one sequence.
            values: Feature maps of several resolutions, all with the same number of features.
            heads: Number of heads, each with sampling points of its own.
            points: Number of sampling points per head and map.
            name: Prefix of the names of the two layers.

        Returns:
            A sequence of the same tokens with the features of the values.
        """

    def positional_encoding(self, like: Value) -> Value:
        """Returns sines and cosines of the position of each voxel, to be added to a value of the same shape.

        The features are divided evenly among the axes.
        """

    def flatten_maps(self, maps: Sequence[Value]) -> Value:
        """Joins the voxels of several maps into one sequence (n, features, voxels of all maps)."""

    def unflatten_maps(self, tokens: Value, like: Sequence[Value]) -> list[Value]:
        """Undoes `flatten_maps`: splits a sequence into maps of the sizes of those in `like`."""

    # --- Without weights ----------------------------------------------------------------------------------------------

    def relu(self, x: Value) -> Value:
        """Applies a ReLU, which may change its input in place."""

    def leaky_relu(self, x: Value) -> Value:
        """Applies a leaky ReLU with a negative slope of 0.01, which may change its input in place."""

    def gelu(self, x: Value) -> Value:
        """Applies a GELU."""

    def sigmoid(self, x: Value) -> Value:
        """Applies a sigmoid."""

    def dropout(self, x: Value, rate: float, *, whole_maps: bool = False) -> Value:
        """In training sets a fraction of the elements, or of whole feature maps, to 0, and scales the others up."""

    def drop_path(self, x: Value, rate: float) -> Value:
        """In training sets a fraction of the samples to 0 and scales the others up (stochastic depth)."""

    def max_pool(self, x: Value, factor: int, *, kernel: int | None = None) -> Value:
        """Applies max pooling of stride `factor`; the kernel equals the stride unless an odd one is given."""

    def global_max_pool(self, x: Value) -> Value:
        """Returns the maximum of each feature over all voxels, as a map of one voxel."""

    def resize(self, x: Value, like: Value, *, align_corners: bool = False) -> Value:
        """Resamples linearly to the size of another value.

        The outer corners of the outer voxels stay in place, or with `align_corners` their centres.
        """

    def upsample(self, x: Value, factor: Edges, *, align_corners: bool = False) -> Value:
        """Upsamples linearly by a factor per axis; see `resize`."""

    def center_crop(self, x: Value, like: Value) -> Value:
        """Crops the centre to the size of another value."""

    def space_to_depth(self, x: Value, factor: int) -> Value:
        """Turns each block of voxels into one voxel, which has the features of all voxels of the block."""

    def depth_to_space(self, x: Value, factor: int) -> Value:
        """Undoes `space_to_depth`: turns each voxel into a block of voxels."""

    def slice_difference(self, x: Value) -> Value:
        """Returns the absolute difference of each slice from the one before along the first axis; 0 in the first."""

    def concat(self, values: Sequence[Value]) -> Value:
        """Concatenates values along the features."""

    def add(self, x: Value, y: Value) -> Value:
        """Adds two values of the same shape."""

    def multiply(self, x: Value, weight: Value) -> Value:
        """Multiplies by a weight map of as many features or one, and as many voxels or one."""

    def mask_absent(self, x: Value, present: Value, absent: Value) -> Value:
        """Lowers the logits of a structure by `ABSENCE_PENALTY` where `absent` exceeds `present`.

        Its probability is then 0, by a sigmoid or a softmax; if all structures are absent, the softmax is unchanged. No
        gradient flows from here into `present` or `absent`.

        Args:
            x: Logits.
            present: Scores for presence, of as many features, and as many voxels or one.
            absent: Scores for absence, of the same shape.
        """

    def mean(self, values: Sequence[Value]) -> Value:
        """Returns the mean of values of the same shape."""

    def repeat_features(self, x: Value, features: int) -> Value:
        """Repeats the features in turn up to a number; returns the value itself if it has that number already."""

    def features(self, x: Value) -> int:
        """Returns the number of features of a value."""

    def size(self, x: Value) -> tuple[int, ...]:
        """Returns the number of voxels of a value along each axis."""
