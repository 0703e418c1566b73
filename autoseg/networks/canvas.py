"""What a network is drawn on: a canvas with one operation per kind of layer.

A network of the literature is a function that draws: it takes a canvas and an image, and leads the image through named
layers. It is drawn on two canvases. The `Sketch` knows shapes alone: it notes the layers, and counts weights, work and
what training must keep, which is all that planning needs. `network.drawn` makes those layers in torch and draws on
tensors. So what is planned is what is trained, and a network is written down once.
"""

# ruff: noqa: D102 - what each operation of a sketch does is said of the canvas

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, Protocol, TypeVar

Value = TypeVar("Value")
Kind = Literal["conv", "transposed", "batch_norm", "prelu"]


class Canvas(Protocol[Value]):
    """The operations that networks are drawn with; a value is a batch of feature maps (n, features, *size).

    Attributes:
        training: Whether outputs are wanted that only training has.
    """

    @property
    def training(self) -> bool:
        """See the class."""

    def conv(self, x: Value, features: int, kernel: int, name: str, *, stride: int = 1, bias: bool = True) -> Value:
        """Convolution; the border is padded so that a stride of 1 keeps the size."""

    def transposed(self, x: Value, features: int, stride: int, name: str, *, bias: bool = True) -> Value:
        """Transposed convolution whose kernel is its stride: each voxel becomes a block of voxels."""

    def batch_norm(self, x: Value, name: str, *, affine: bool = True) -> Value:
        """Batch normalization; if affine, each feature is scaled and shifted as is learned."""

    def prelu(self, x: Value, name: str) -> Value:
        """Rectifier that learns the slope of the negative side of each feature."""

    def relu(self, x: Value) -> Value:
        """Rectifier; it may change its input in place."""

    def sigmoid(self, x: Value) -> Value:
        """Logistic function."""

    def pool(self, x: Value, factor: int, *, kernel: int | None = None) -> Value:
        """The largest of each block of voxels; an odd kernel makes the blocks larger than they are apart."""

    def resize(self, x: Value, like: Value) -> Value:
        """Linear interpolation onto the grid of another value."""

    def enlarge(self, x: Value, factor: int) -> Value:
        """Linear interpolation onto a grid so many times finer."""

    def concat(self, parts: Sequence[Value]) -> Value:
        """Side by side, as further features."""

    def add(self, x: Value, y: Value) -> Value:
        """Sum of the same shape."""

    def multiply(self, x: Value, weight: Value) -> Value:
        """Product with a map of as many features, or of one."""

    def mean(self, parts: Sequence[Value]) -> Value:
        """Mean of values of the same shape."""

    def repeat(self, x: Value, features: int) -> Value:
        """The features in turn, until there are so many; the value itself if it has as many."""

    def features(self, x: Value) -> int:
        """How many a value has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer that holds weights.

    Attributes:
        kind: Convolution, transposed convolution, batch norm, or PReLU.
        dimensions: 2 or 3.
        in_features, features: Channels of its input and output.
        kernel, stride: The same along each axis.
        bias: Whether a convolution adds one number per feature; of a batch norm, whether it scales and shifts.
    """

    kind: Kind
    dimensions: int
    in_features: int
    features: int
    kernel: int = 1
    stride: int = 1
    bias: bool = True

    @property
    def weights(self) -> int:
        """Trainable numbers."""
        if self.kind == "prelu":
            return self.features
        if self.kind == "batch_norm":
            return 2 * self.features if self.bias else 0
        return (self.in_features * int(self.kernel**self.dimensions) + int(self.bias)) * self.features


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A feature map whose values nobody knows; each is equal to itself alone.

    Attributes:
        channels: Its features.
        size: Voxels per axis.
    """

    channels: int
    size: tuple[int, ...]

    @property
    def voxels(self) -> int:
        """Of one feature."""
        return prod(self.size)

    @property
    def elements(self) -> int:
        """Of all features."""
        return self.channels * self.voxels


@dataclass(slots=True)
class Sketch:
    """A canvas of shapes, for one patch.

    What autograd keeps until the backward pass is counted as torch does it, each map once: a convolution, a
    multiplication, a batch norm and a PReLU keep their inputs, a ReLU and a sigmoid their outputs; pooling keeps its
    input and where the largest voxels were; sums, copies and interpolation keep nothing.

    Attributes:
        dimensions: 2 or 3.
        training: See `Canvas`.
        layers: By name, in the order in which they were drawn.
        multiply_adds: Of all convolutions, forwards.
        kept: Maps that training keeps.
        places: Voxels of which pooling keeps a place, a 64-bit integer each.
        widest: Elements of input and output of the largest convolution.
    """

    dimensions: int
    training: bool = True
    layers: dict[str, Layer] = field(default_factory=dict)
    multiply_adds: int = 0
    kept: set[Map] = field(default_factory=set)
    places: int = 0
    widest: int = 0

    @property
    def weights(self) -> int:
        """Trainable numbers of all layers."""
        return sum(layer.weights for layer in self.layers.values())

    @property
    def kept_elements(self) -> int:
        """Of all maps that training keeps."""
        return sum(one.elements for one in self.kept)

    def conv(self, x: Map, features: int, kernel: int, name: str, *, stride: int = 1, bias: bool = True) -> Map:
        self._note(name, "conv", x, features, kernel=kernel, stride=stride, bias=bias)
        size = tuple((length + 2 * ((kernel - 1) // 2) - kernel) // stride + 1 for length in x.size)
        y = Map(features, size)
        self.multiply_adds += y.elements * x.channels * kernel**self.dimensions
        return self._convolved(x, y)

    def transposed(self, x: Map, features: int, stride: int, name: str, *, bias: bool = True) -> Map:
        self._note(name, "transposed", x, features, kernel=stride, stride=stride, bias=bias)
        y = Map(features, tuple(length * stride for length in x.size))
        self.multiply_adds += y.elements * x.channels
        return self._convolved(x, y)

    def batch_norm(self, x: Map, name: str, *, affine: bool = True) -> Map:
        self._note(name, "batch_norm", x, x.channels, bias=affine)
        self.kept.add(x)
        return Map(x.channels, x.size)

    def prelu(self, x: Map, name: str) -> Map:
        self._note(name, "prelu", x, x.channels)
        self.kept.add(x)
        return Map(x.channels, x.size)

    def relu(self, x: Map) -> Map:
        return self._kept(Map(x.channels, x.size))

    def sigmoid(self, x: Map) -> Map:
        return self._kept(Map(x.channels, x.size))

    def pool(self, x: Map, factor: int, *, kernel: int | None = None) -> Map:  # noqa: ARG002
        y = Map(x.channels, tuple(length // factor for length in x.size))
        self.kept.add(x)
        self.places += y.elements
        return y

    def resize(self, x: Map, like: Map) -> Map:
        return Map(x.channels, like.size)

    def enlarge(self, x: Map, factor: int) -> Map:
        return Map(x.channels, tuple(length * factor for length in x.size))

    def concat(self, parts: Sequence[Map]) -> Map:
        self._check_alike(parts)
        return Map(sum(part.channels for part in parts), parts[0].size)

    def add(self, x: Map, y: Map) -> Map:
        self._check_alike((x, y))
        return Map(x.channels, x.size)

    def multiply(self, x: Map, weight: Map) -> Map:
        self._check_alike((x, weight))
        self.kept |= {x, weight}
        return Map(x.channels, x.size)

    def mean(self, parts: Sequence[Map]) -> Map:
        self._check_alike(parts)
        return Map(parts[0].channels, parts[0].size)

    def repeat(self, x: Map, features: int) -> Map:
        return x if x.channels == features else Map(features, x.size)

    def features(self, x: Map) -> int:
        return x.channels

    def _kept(self, x: Map) -> Map:
        self.kept.add(x)
        return x

    def _convolved(self, x: Map, y: Map) -> Map:
        self.kept.add(x)
        self.widest = max(self.widest, x.elements + y.elements)
        return y

    def _note(self, name: str, kind: Kind, x: Map, features: int, **given: int) -> None:
        if name in self.layers:
            raise ValueError(f"two layers are named {name!r}")
        self.layers[name] = Layer(
            kind=kind,
            dimensions=self.dimensions,
            in_features=x.channels,
            features=features,
            kernel=given.get("kernel", 1),
            stride=given.get("stride", 1),
            bias=bool(given.get("bias", True)),
        )

    def _check_alike(self, parts: Sequence[Map]) -> None:
        if len({part.size for part in parts}) != 1:
            raise ValueError(f"maps of sizes {[part.size for part in parts]} do not lie on one grid")
