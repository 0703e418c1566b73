"""The operations on shapes: which layers a network has and what a patch costs, without any numbers in it."""

# ruff: noqa: D102 - `ops.Ops` documents each operation

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.layer_spec import Kind, LayerSpec
from autoseg.networks.ops import Edges, Window, per_axis
from autoseg.networks.patch_sizes import check_axes


@dataclass(slots=True)
class ShapeOps:
    """The operations on shapes, for one patch; see `ops.Ops` for each of them.

    What autograd keeps until the backward pass is counted as torch does it, each map once: a convolution, a linear
    layer, a norm, a PReLU, a GELU and a multiplication keep their inputs, a ReLU and a sigmoid their outputs; pooling
    keeps its input and the indices of the maxima; dropout keeps its mask; attention keeps queries, keys and values, and
    the attention weights; sums, copies and interpolation keep nothing.

    Attributes:
        dimensions: Number of axes of the image, 2 or 3.
        training: See `Ops`.
        layers: The layers by name, in the order in which they are used.
        multiply_adds: Multiply-adds of all convolutions, linear layers and attention in the forward pass.
        saved: Feature maps that autograd keeps for the backward pass.
        pooling_indices: Number of indices that pooling keeps, 64-bit integers.
        largest_conv_elements: Elements of input and output of the largest convolution.
    """

    dimensions: int
    training: bool = True
    layers: dict[str, LayerSpec] = field(default_factory=dict)
    multiply_adds: int = 0
    saved: set[FeatureMap] = field(default_factory=set)
    pooling_indices: int = 0
    largest_conv_elements: int = 0

    @property
    def weights(self) -> int:
        """Number of trainable weights of all layers."""
        return sum(layer.weights for layer in self.layers.values())

    @property
    def saved_elements(self) -> int:
        """Number of elements of all feature maps that autograd keeps."""
        return sum(x.elements for x in self.saved)

    # --- Layers with weights ------------------------------------------------------------------------------------------

    def conv(  # noqa: PLR0913 - see `Ops`
        self,
        x: FeatureMap,
        features: int,
        kernel: Edges,
        name: str,
        *,
        stride: Edges = 1,
        bias: bool = True,
        dilation: int = 1,
        padded: bool = True,
        standardized: bool = False,
    ) -> FeatureMap:
        kernels, strides = per_axis(kernel, self.dimensions), per_axis(stride, self.dimensions)
        self._record_layer(
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
        extents = [dilation * (edge - 1) for edge in kernels]
        size = tuple(
            (length + (2 * (extent // 2) if padded else 0) - extent - 1) // step + 1
            for length, extent, step in zip(x.size, extents, strides, strict=True)
        )
        check_axes([length < 1 for length in size], f"a map of {x.size} voxels is too small for the layer {name!r}")
        y = FeatureMap(features, size)
        self.multiply_adds += y.elements * x.channels * prod(kernels)
        return self._save_input(x, y)

    def transposed_conv(
        self, x: FeatureMap, features: int, stride: Edges, name: str, *, bias: bool = True
    ) -> FeatureMap:
        strides = per_axis(stride, self.dimensions)
        self._record_layer(name, "transposed_conv", x, features, kernel=strides, stride=strides, bias=bias)
        y = FeatureMap(features, tuple(length * step for length, step in zip(x.size, strides, strict=True)))
        self.multiply_adds += y.elements * x.channels
        return self._save_input(x, y)

    def linear(self, x: FeatureMap, features: int, name: str, *, bias: bool = True) -> FeatureMap:
        self._record_layer(name, "linear", x, features, bias=bias)
        y = FeatureMap(features, x.size)
        self.multiply_adds += y.elements * x.channels
        return self._save_input(x, y)

    def batch_norm(self, x: FeatureMap, name: str, *, affine: bool = True) -> FeatureMap:
        return self._normalize(x, "batch_norm", name, bias=affine)

    def instance_norm(self, x: FeatureMap, name: str) -> FeatureMap:
        return self._normalize(x, "instance_norm", name)

    def group_norm(self, x: FeatureMap, groups: int, name: str) -> FeatureMap:
        return self._normalize(x, "group_norm", name, groups=groups)

    def layer_norm(self, x: FeatureMap, name: str) -> FeatureMap:
        return self._normalize(x, "layer_norm", name)

    def prelu(self, x: FeatureMap, name: str) -> FeatureMap:
        return self._normalize(x, "prelu", name)

    def add_embedding(self, x: FeatureMap, name: str) -> FeatureMap:
        self._record_layer(name, "embedding", x, x.channels, kernel=(1,) * len(x.size))
        return x.copy()

    def add_position_embedding(self, x: FeatureMap, name: str) -> FeatureMap:
        self._record_layer(name, "embedding", x, x.channels, kernel=x.size)
        return x.copy()

    # --- Attention ----------------------------------------------------------------------------------------------------

    def attention(
        self, query: FeatureMap, key: FeatureMap, value: FeatureMap, heads: int, window: Window | None = None
    ) -> FeatureMap:
        self._check_same_size((query, key, value))
        edges = query.size if window is None else per_axis(window.edges, len(query.size))
        window_size = tuple(map(min, edges, query.size))
        padded_size = tuple(ceil(n / edge) * edge for n, edge in zip(query.size, window_size, strict=True))
        tokens = prod(padded_size)
        scores = FeatureMap(heads, (tokens, prod(window_size)))
        self.multiply_adds += 2 * (query.channels // heads) * scores.elements
        self.saved |= {FeatureMap(x.channels, (tokens,)) for x in (query, key, value)}
        has_bias = window is not None and window.bias is not None
        if window is not None and window.bias is not None:
            per_head = FeatureMap(heads, query.size)
            self._record_layer(window.bias, "relative_position_bias", per_head, heads, kernel=edges)
        is_masked = window is not None and window.shifted and window_size != query.size
        if is_masked or padded_size != query.size or has_bias:
            self.saved.add(scores)  # without mask and bias, torch recomputes the scores in the backward pass
        return value.copy()

    def deformable_attention(
        self, tokens: FeatureMap, values: Sequence[FeatureMap], heads: int, points: int, name: str
    ) -> FeatureMap:
        samples, head_features = heads * len(values) * points, values[0].channels // heads
        properties = {"dimensions": self.dimensions, "groups": heads, "points": points}
        self._record_layer(f"{name}.offsets", "offsets", tokens, samples * self.dimensions, **properties)
        self._record_layer(f"{name}.weights", "point_weights", tokens, samples)
        offsets, weights = FeatureMap(samples * self.dimensions, tokens.size), FeatureMap(samples, tokens.size)
        sampled = FeatureMap(samples * head_features, tokens.size)
        self.multiply_adds += (offsets.elements + weights.elements) * tokens.channels
        self.multiply_adds += sampled.elements * (2**self.dimensions + 1)
        self.saved |= {tokens, *values, offsets, weights, sampled}
        return FeatureMap(values[0].channels, tokens.size)

    def positional_encoding(self, like: FeatureMap) -> FeatureMap:
        return like.copy()

    def flatten_maps(self, maps: Sequence[FeatureMap]) -> FeatureMap:
        return FeatureMap(maps[0].channels, (sum(x.voxels for x in maps),))

    def unflatten_maps(self, tokens: FeatureMap, like: Sequence[FeatureMap]) -> list[FeatureMap]:
        return [FeatureMap(tokens.channels, x.size) for x in like]

    # --- Without weights ----------------------------------------------------------------------------------------------

    def relu(self, x: FeatureMap) -> FeatureMap:
        return self._save(x.copy())

    def leaky_relu(self, x: FeatureMap) -> FeatureMap:
        return self._save(x.copy())

    def gelu(self, x: FeatureMap) -> FeatureMap:
        self.saved.add(x)
        return x.copy()

    def sigmoid(self, x: FeatureMap) -> FeatureMap:
        return self._save(x.copy())

    def dropout(self, x: FeatureMap, rate: float, *, whole_maps: bool = False) -> FeatureMap:
        if rate == 0:
            return x
        if not whole_maps:
            self.saved.add(x.copy())  # the mask, scaled
        return x.copy()

    def drop_path(self, x: FeatureMap, rate: float) -> FeatureMap:
        return x.copy() if rate > 0 else x

    def max_pool(self, x: FeatureMap, factor: int, *, kernel: int | None = None) -> FeatureMap:  # noqa: ARG002
        self._check_divisible(x, factor)
        y = FeatureMap(x.channels, tuple(length // factor for length in x.size))
        self.saved.add(x)
        self.pooling_indices += y.elements
        return y

    def global_max_pool(self, x: FeatureMap) -> FeatureMap:
        self.saved.add(x)
        return self._save(FeatureMap(x.channels, (1,) * len(x.size)))

    def resize(self, x: FeatureMap, like: FeatureMap, *, align_corners: bool = False) -> FeatureMap:  # noqa: ARG002
        return FeatureMap(x.channels, like.size)

    def upsample(self, x: FeatureMap, factor: Edges, *, align_corners: bool = False) -> FeatureMap:  # noqa: ARG002
        factors = per_axis(factor, self.dimensions)
        return FeatureMap(x.channels, tuple(length * times for length, times in zip(x.size, factors, strict=True)))

    def center_crop(self, x: FeatureMap, like: FeatureMap) -> FeatureMap:
        surplus = [outer - inner for inner, outer in zip(like.size, x.size, strict=True)]
        check_axes([n < 0 or n % 2 == 1 for n in surplus], f"{x.size} voxels have no middle of {like.size}")
        return FeatureMap(x.channels, like.size)

    def space_to_depth(self, x: FeatureMap, factor: int) -> FeatureMap:
        self._check_divisible(x, factor)
        return FeatureMap(x.channels * factor ** len(x.size), tuple(length // factor for length in x.size))

    def depth_to_space(self, x: FeatureMap, factor: int) -> FeatureMap:
        return FeatureMap(x.channels // factor ** len(x.size), tuple(length * factor for length in x.size))

    def slice_difference(self, x: FeatureMap) -> FeatureMap:
        self.saved.add(FeatureMap(x.channels, x.size))  # the signs
        return x.copy()

    def concat(self, values: Sequence[FeatureMap]) -> FeatureMap:
        self._check_same_size(values)
        return FeatureMap(sum(x.channels for x in values), values[0].size)

    def add(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        self._check_same_size((x, y))
        return x.copy()

    def multiply(self, x: FeatureMap, weight: FeatureMap) -> FeatureMap:
        if weight.voxels > 1:
            self._check_same_size((x, weight))
        self.saved |= {x, weight}
        return x.copy()

    def mask_absent(self, x: FeatureMap, present: FeatureMap, absent: FeatureMap) -> FeatureMap:
        self._check_same_size((present, absent))
        return x.copy()

    def mean(self, values: Sequence[FeatureMap]) -> FeatureMap:
        self._check_same_size(values)
        return values[0].copy()

    def repeat_features(self, x: FeatureMap, features: int) -> FeatureMap:
        return x if x.channels == features else FeatureMap(features, x.size)

    def features(self, x: FeatureMap) -> int:
        return x.channels

    def size(self, x: FeatureMap) -> tuple[int, ...]:
        return x.size

    def _save(self, x: FeatureMap) -> FeatureMap:
        self.saved.add(x)
        return x

    def _save_input(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        """Notes the input of a convolution or linear layer as kept, and returns its output."""
        self.saved.add(x)
        self.largest_conv_elements = max(self.largest_conv_elements, x.elements + y.elements)
        return y

    def _normalize(self, x: FeatureMap, kind: Kind, name: str, **properties: Any) -> FeatureMap:
        self._record_layer(name, kind, x, x.channels, **properties)
        self.saved.add(x)
        return x.copy()

    def _record_layer(self, name: str, kind: Kind, x: FeatureMap, features: int, **properties: Any) -> None:
        if name in self.layers:
            raise ValueError(f"two layers are named {name!r}")
        properties.setdefault("dimensions", len(x.size))
        self.layers[name] = LayerSpec(kind=kind, in_features=x.channels, features=features, **properties)

    def _check_same_size(self, values: Sequence[FeatureMap]) -> None:
        sizes = [x.size for x in values]
        differ = [len(set(axis)) > 1 for axis in zip(*sizes, strict=True)]
        check_axes(differ, f"maps of sizes {sizes} do not lie on one grid")

    def _check_divisible(self, x: FeatureMap, factor: int) -> None:
        check_axes([length % factor > 0 for length in x.size], f"a map of {x.size} voxels has no blocks of {factor}")
