"""What a network is drawn on: a canvas with one operation per kind of layer.

A network of the literature is a function that draws: it takes a canvas and an image, and leads the image through named
layers. It is drawn on two canvases. The `sketch` knows shapes alone: it notes the layers, and counts weights, work and
what training must keep, which is all that planning needs. `network.painting` has the layers in torch and draws on
tensors. So what is planned is what is trained, and a network is written down once.

A value is a batch of feature maps (n, features, *size). What transformers call tokens are the voxels of such a map;
only where those of several maps stand in one line (`flatten_maps`), the size has a single axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Value = TypeVar("Value")

Edges = int | tuple[int, ...]
"""The same along each axis, or one after the other."""

VETO = 30.0
"""What a logit is lowered by to say no.

Decision: odds fall by a factor of 10 to the 13; in a mean of logits, such as that of tiles that overlap, the other
tiles can still outvote it.
"""


def spread(edges: Edges, dimensions: int) -> tuple[int, ...]:
    """One value per axis.

    Raises:
        ValueError: There are as many as there are other axes.
    """
    found = (edges,) * dimensions if isinstance(edges, int) else tuple(edges)
    if len(found) != dimensions:
        raise ValueError(f"{found} has {len(found)} values, the image has {dimensions} axes")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Blocks of voxels that see each other and nothing else.

    Along an axis that is no longer than an edge there is one block. Blocks that stick out of the map see nothing there.
    Source: Liu et al. 2021, "Swin transformer", sections 3.2 and 4.

    Attributes:
        edges: Of a block.
        shifted: Whether blocks begin half an edge later; what is cut off at one border stays apart from the other.
        bias: Name of the layer that holds a learned number for each offset of two voxels of a block and each head,
            which is added to how well they meet.
    """

    edges: Edges
    shifted: bool = False
    bias: str | None = None


class Ops(Protocol[Value]):
    """The operations that networks are drawn with.

    Attributes:
        training: Whether outputs are wanted that only training has.
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
        """Convolution.

        Args:
            x: Input.
            features: Of the result.
            kernel: Of an edge.
            name: Of the layer.
            stride: Distance of the places where it is taken.
            bias: Whether each feature gets a number of its own.
            dilation: Distance of the voxels that it looks at.
            padded: Whether the border is padded with zeros so that a stride of 1 keeps the size.
            standardized: Whether the weights of each feature are brought to mean 0 and deviation 1 when it is used.
        """

    def transposed(self, x: Value, features: int, stride: Edges, name: str, *, bias: bool = True) -> Value:
        """Transposed convolution whose kernel is its stride: each voxel becomes a block of voxels."""

    def linear(self, x: Value, features: int, name: str, *, bias: bool = True) -> Value:
        """The same linear map of the features of every voxel."""

    def batch_norm(self, x: Value, name: str, *, affine: bool = True) -> Value:
        """Batch normalization; if affine, each feature is scaled and shifted as is learned."""

    def instance_norm(self, x: Value, name: str) -> Value:
        """Brings each feature of each sample to mean 0 and variance 1; then as `batch_norm`."""

    def group_norm(self, x: Value, groups: int, name: str) -> Value:
        """The same for groups of features that lie beside each other."""

    def layer_norm(self, x: Value, name: str) -> Value:
        """The same for all features of each voxel."""

    def prelu(self, x: Value, name: str) -> Value:
        """Rectifier that learns the slope of the negative side of each feature."""

    def embed(self, x: Value, name: str) -> Value:
        """Adds a learned number to each feature."""

    def embed_places(self, x: Value, name: str) -> Value:
        """Adds a learned number to each feature of each voxel, which fixes the size of the image."""

    # --- Attention ----------------------------------------------------------------------------------------------------

    def attend(self, query: Value, key: Value, value: Value, heads: int, window: Window | None = None) -> Value:
        """Each voxel gets a mean of values, weighed by how well its query meets their keys.

        Source: Vaswani et al. 2017, "Attention is all you need".

        Args:
            query: Of the same size as `key` and `value`, and as many features.
            key: See above.
            value: See above.
            heads: Groups of features that attend for themselves.
            window: Inside which voxels see each other; left out, all see all.
        """

    def sample(self, line: Value, values: Sequence[Value], heads: int, points: int, name: str) -> Value:
        """Deformable attention: each voxel gets a weighted mean of values at places that it chooses itself.

        Source: Zhu et al. 2021, "Deformable DETR", section 4.1. Two linear maps of a voxel, the layers "offsets" and
        "weights", say for each head, map and point how far from its own place it is looked at, in voxels of that map,
        the last axis first; and how much that counts, before a softmax over all maps and points. Values between voxels
        are interpolated linearly; beyond the border they are 0.

        Args:
            line: The voxels of all maps, lined up.
            values: Maps of several resolutions, all with the same features.
            heads: Groups of features that look at places of their own.
            points: Of each head, in each map.
            name: Of the layers.

        Returns:
            In the same line, with the features of the values.
        """

    def positional_encoding(self, like: Value) -> Value:
        """Sines and cosines of the place of each voxel, those of a third or half of the features for each axis.

        They are of the shape of another value, to be added to it.
        """

    def flatten_maps(self, maps: Sequence[Value]) -> Value:
        """The voxels of some maps, one after the other: (n, features, all voxels)."""

    def part(self, line: Value, like: Sequence[Value]) -> list[Value]:
        """Undoes `flatten_maps`, for maps of the sizes of some others."""

    # --- Without weights ----------------------------------------------------------------------------------------------

    def relu(self, x: Value) -> Value:
        """Rectifier; it may change its input in place."""

    def leaky_relu(self, x: Value) -> Value:
        """Rectifier with a slope of 0.01 on the negative side; it may change its input in place."""

    def gelu(self, x: Value) -> Value:
        """Smooth rectifier: x times the share of a normal distribution below x."""

    def sigmoid(self, x: Value) -> Value:
        """Logistic function."""

    def dropout(self, x: Value, share: float, *, whole: bool = False) -> Value:
        """In training sets a share of the numbers to 0, or of whole maps of features, and raises the others."""

    def drop_path(self, x: Value, share: float) -> Value:
        """In training sets a share of the samples to 0, and raises the others."""

    def pool(self, x: Value, factor: int, *, kernel: int | None = None) -> Value:
        """The largest of each block of voxels; an odd kernel makes the blocks larger than they are apart."""

    def pool_all(self, x: Value) -> Value:
        """The largest of all voxels, of each feature: a map of one voxel."""

    def resize(self, x: Value, like: Value, *, corners: bool = False) -> Value:
        """Linear interpolation onto the grid of another value; the outer corners of the outer voxels stay in place.

        With `corners` the middles of the outer voxels stay in place instead.
        """

    def enlarge(self, x: Value, factor: Edges, *, corners: bool = False) -> Value:
        """Linear interpolation onto a grid so many times finer; see `resize`."""

    def crop(self, x: Value, like: Value) -> Value:
        """The middle part, of the size of another value."""

    def merge(self, x: Value, factor: int) -> Value:
        """Each block of voxels becomes one voxel, with the features of the first, of the second, and so on."""

    def expand(self, x: Value, factor: int) -> Value:
        """Undoes `merge`: each voxel becomes a block."""

    def slice_change(self, x: Value) -> Value:
        """How much each voxel differs from the one before it along the first axis; 0 in the first slice."""

    def concat(self, parts: Sequence[Value]) -> Value:
        """Side by side, as further features."""

    def add(self, x: Value, y: Value) -> Value:
        """Sum of the same shape."""

    def multiply(self, x: Value, weight: Value) -> Value:
        """Product with a map of as many features, or of one; of as many voxels, or of one."""

    def mask_absent(self, x: Value, present: Value, absent: Value) -> Value:
        """Logits, of which those of a feature are lowered by `VETO` where its `absent` exceeds its `present`.

        So the probability of what is absent is 0, by a sigmoid or a softmax; if all are absent, a softmax tells what it
        did before. No gradient says that anything should be present.

        Args:
            x: Logits.
            present: Of as many features, and as many voxels or one.
            absent: As `present`.
        """

    def mean(self, parts: Sequence[Value]) -> Value:
        """Mean of values of the same shape."""

    def repeat(self, x: Value, features: int) -> Value:
        """The features in turn, until there are so many; the value itself if it has as many."""

    def features(self, x: Value) -> int:
        """How many a value has."""

    def size(self, x: Value) -> tuple[int, ...]:
        """Its voxels per axis."""
