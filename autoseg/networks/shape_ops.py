"""The canvas of shapes: what a network has, and what it takes for a patch, without any numbers in it."""

# ruff: noqa: D102 - what each operation does is said of the canvas

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

from autoseg.networks.layer_spec import Kind, Layer
from autoseg.networks.ops import Edges, Window, spread
from autoseg.networks.patch_sizes import refuse_axes


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
class ShapeOps:
    """A canvas of shapes, for one patch.

    What autograd keeps until the backward pass is counted as torch does it, each map once: a convolution, a linear
    layer, a norm, a PReLU, a GELU and a multiplication keep their inputs, a ReLU and a sigmoid their outputs; pooling
    keeps its input and where the largest voxels were; dropout keeps which numbers it left; attention keeps queries,
    keys and values, and how much each voxel counts for each other; sums, copies and interpolation keep nothing.

    Attributes:
        dimensions: 2 or 3.
        training: See `Ops`.
        layers: By name, in the order in which they were drawn.
        multiply_adds: Of all convolutions, linear layers and attention, forwards.
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

    # --- Layers with weights ------------------------------------------------------------------------------------------

    def conv(  # noqa: PLR0913 - see Canvas
        self,
        x: Map,
        features: int,
        kernel: Edges,
        name: str,
        *,
        stride: Edges = 1,
        bias: bool = True,
        dilation: int = 1,
        padded: bool = True,
        standardized: bool = False,
    ) -> Map:
        kernels, strides = spread(kernel, self.dimensions), spread(stride, self.dimensions)
        self._note(
            name,
            "conv",
            x,
            features,
            kernel=kernels,
            stride=strides,
            bias=bias,
            dilation=dilation,
            padded=padded,
            standardized=standardized,
        )
        reach = [dilation * (edge - 1) for edge in kernels]
        size = tuple(
            (length + (2 * (ahead // 2) if padded else 0) - ahead - 1) // step + 1
            for length, ahead, step in zip(x.size, reach, strides, strict=True)
        )
        refuse_axes([length < 1 for length in size], f"a map of {x.size} voxels is too small for the layer {name!r}")
        y = Map(features, size)
        self.multiply_adds += y.elements * x.channels * prod(kernels)
        return self._convolved(x, y)

    def transposed(self, x: Map, features: int, stride: Edges, name: str, *, bias: bool = True) -> Map:
        strides = spread(stride, self.dimensions)
        self._note(name, "transposed", x, features, kernel=strides, stride=strides, bias=bias)
        y = Map(features, tuple(length * step for length, step in zip(x.size, strides, strict=True)))
        self.multiply_adds += y.elements * x.channels
        return self._convolved(x, y)

    def linear(self, x: Map, features: int, name: str, *, bias: bool = True) -> Map:
        self._note(name, "linear", x, features, bias=bias)
        y = Map(features, x.size)
        self.multiply_adds += y.elements * x.channels
        return self._convolved(x, y)

    def batch_norm(self, x: Map, name: str, *, affine: bool = True) -> Map:
        return self._normalized(x, "batch_norm", name, bias=affine)

    def instance_norm(self, x: Map, name: str) -> Map:
        return self._normalized(x, "instance_norm", name)

    def group_norm(self, x: Map, groups: int, name: str) -> Map:
        return self._normalized(x, "group_norm", name, groups=groups)

    def layer_norm(self, x: Map, name: str) -> Map:
        return self._normalized(x, "layer_norm", name)

    def prelu(self, x: Map, name: str) -> Map:
        return self._normalized(x, "prelu", name)

    def embed(self, x: Map, name: str) -> Map:
        self._note(name, "embedding", x, x.channels, kernel=(1,) * len(x.size))
        return _like(x)

    def embed_places(self, x: Map, name: str) -> Map:
        self._note(name, "embedding", x, x.channels, kernel=x.size)
        return _like(x)

    # --- Attention ----------------------------------------------------------------------------------------------------

    def attend(self, query: Map, key: Map, value: Map, heads: int, window: Window | None = None) -> Map:
        self._check_alike((query, key, value))
        edges = query.size if window is None else spread(window.edges, len(query.size))
        windows = [min(edge, length) for edge, length in zip(edges, query.size, strict=True)]
        whole = [ceil(length / edge) * edge for length, edge in zip(query.size, windows, strict=True)]
        padded = prod(whole)
        meetings = Map(heads, (padded, prod(windows)))
        self.multiply_adds += 2 * (query.channels // heads) * meetings.elements
        self.kept |= {Map(one.channels, (padded,)) for one in (query, key, value)}
        if window is not None and window.bias is not None:
            self._note(window.bias, "offset_bias", Map(heads, query.size), heads, kernel=edges)
        barred = window is not None and window.shifted and windows != list(query.size)
        if barred or whole != list(query.size) or (window is not None and window.bias is not None):
            self.kept.add(meetings)  # where nothing is added to them, they are calculated again on the way back
        return _like(value)

    def sample(self, line: Map, values: Sequence[Map], heads: int, points: int, name: str) -> Map:
        looks, width = heads * len(values) * points, values[0].channels // heads
        given = {"dimensions": self.dimensions, "groups": heads, "points": points}
        self._note(f"{name}.offsets", "offsets", line, looks * self.dimensions, **given)
        self._note(f"{name}.weights", "shares", line, looks)
        offsets, weights = Map(looks * self.dimensions, line.size), Map(looks, line.size)
        seen = Map(looks * width, line.size)
        self.multiply_adds += (offsets.elements + weights.elements) * line.channels
        self.multiply_adds += seen.elements * (2**self.dimensions + 1)
        self.kept |= {line, *values, offsets, weights, seen}
        return Map(values[0].channels, line.size)

    def positional_encoding(self, like: Map) -> Map:
        return _like(like)

    def flatten_maps(self, maps: Sequence[Map]) -> Map:
        return Map(maps[0].channels, (sum(one.voxels for one in maps),))

    def part(self, line: Map, like: Sequence[Map]) -> list[Map]:
        return [Map(line.channels, one.size) for one in like]

    # --- Without weights ----------------------------------------------------------------------------------------------

    def relu(self, x: Map) -> Map:
        return self._kept(_like(x))

    def leaky_relu(self, x: Map) -> Map:
        return self._kept(_like(x))

    def gelu(self, x: Map) -> Map:
        self.kept.add(x)
        return _like(x)

    def sigmoid(self, x: Map) -> Map:
        return self._kept(_like(x))

    def dropout(self, x: Map, share: float, *, whole: bool = False) -> Map:
        if share == 0:
            return x
        if not whole:
            self.kept.add(_like(x))  # which numbers stay, and by how much they are raised
        return _like(x)

    def drop_path(self, x: Map, share: float) -> Map:
        return _like(x) if share > 0 else x

    def pool(self, x: Map, factor: int, *, kernel: int | None = None) -> Map:  # noqa: ARG002
        self._check_divisible(x, factor)
        y = Map(x.channels, tuple(length // factor for length in x.size))
        self.kept.add(x)
        self.places += y.elements
        return y

    def pool_all(self, x: Map) -> Map:
        self.kept.add(x)
        return self._kept(Map(x.channels, (1,) * len(x.size)))

    def resize(self, x: Map, like: Map, *, corners: bool = False) -> Map:  # noqa: ARG002
        return Map(x.channels, like.size)

    def enlarge(self, x: Map, factor: Edges, *, corners: bool = False) -> Map:  # noqa: ARG002
        factors = spread(factor, self.dimensions)
        return Map(x.channels, tuple(length * one for length, one in zip(x.size, factors, strict=True)))

    def crop(self, x: Map, like: Map) -> Map:
        left = [outer - inner for inner, outer in zip(like.size, x.size, strict=True)]
        refuse_axes([one < 0 or one % 2 == 1 for one in left], f"{x.size} voxels have no middle of {like.size}")
        return Map(x.channels, like.size)

    def merge(self, x: Map, factor: int) -> Map:
        self._check_divisible(x, factor)
        return Map(x.channels * factor ** len(x.size), tuple(length // factor for length in x.size))

    def expand(self, x: Map, factor: int) -> Map:
        return Map(x.channels // factor ** len(x.size), tuple(length * factor for length in x.size))

    def slice_change(self, x: Map) -> Map:
        self.kept.add(Map(x.channels, x.size))  # the signs
        return _like(x)

    def concat(self, parts: Sequence[Map]) -> Map:
        self._check_alike(parts)
        return Map(sum(part.channels for part in parts), parts[0].size)

    def add(self, x: Map, y: Map) -> Map:
        self._check_alike((x, y))
        return _like(x)

    def multiply(self, x: Map, weight: Map) -> Map:
        if weight.voxels > 1:
            self._check_alike((x, weight))
        self.kept |= {x, weight}
        return _like(x)

    def mask_absent(self, x: Map, present: Map, absent: Map) -> Map:
        self._check_alike((present, absent))
        return _like(x)

    def mean(self, parts: Sequence[Map]) -> Map:
        self._check_alike(parts)
        return _like(parts[0])

    def repeat(self, x: Map, features: int) -> Map:
        return x if x.channels == features else Map(features, x.size)

    def features(self, x: Map) -> int:
        return x.channels

    def size(self, x: Map) -> tuple[int, ...]:
        return x.size

    def _kept(self, x: Map) -> Map:
        self.kept.add(x)
        return x

    def _convolved(self, x: Map, y: Map) -> Map:
        self.kept.add(x)
        self.widest = max(self.widest, x.elements + y.elements)
        return y

    def _normalized(self, x: Map, kind: Kind, name: str, **given: Any) -> Map:
        self._note(name, kind, x, x.channels, **given)
        self.kept.add(x)
        return _like(x)

    def _note(self, name: str, kind: Kind, x: Map, features: int, **given: Any) -> None:
        if name in self.layers:
            raise ValueError(f"two layers are named {name!r}")
        given.setdefault("dimensions", len(x.size))
        self.layers[name] = Layer(kind=kind, in_features=x.channels, features=features, **given)

    def _check_alike(self, parts: Sequence[Map]) -> None:
        sizes = [part.size for part in parts]
        differ = [len(set(axis)) > 1 for axis in zip(*sizes, strict=True)]
        refuse_axes(differ, f"maps of sizes {sizes} do not lie on one grid")

    def _check_divisible(self, x: Map, factor: int) -> None:
        refuse_axes([length % factor > 0 for length in x.size], f"a map of {x.size} voxels has no blocks of {factor}")


def _like(x: Map) -> Map:
    """Another map of the same shape."""
    return Map(x.channels, x.size)
