"""The specification of a network of the literature: what is known of it before it is built, without torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Protocol, TypeVar, cast

from pydantic import JsonValue, ValidationError

from autoseg.networks.architecture import Architecture, Axes, Section, Stage
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.layer_spec import LayerSpec
from autoseg.networks.ops import Edges, Ops, per_axis
from autoseg.networks.patch_sizes import PatchSizes, measure_patch_sizes
from autoseg.networks.shape_ops import ShapeOps

Value = TypeVar("Value")


class ForwardFunction(Protocol):
    """The forward pass of a network.

    Args:
        ops: The operations; in training every layer of the network must be used.
        image: Shape (n, in_channels, *patch).
        classes: Number of outputs.
        settings: The parsed settings of the network.

    Returns:
        Logits, first those that predict; in training coarser ones may follow, and then those of `auxiliary_outputs`.
    """

    def __call__(self, ops: Ops[Value], image: Value, classes: int, settings: Any, /) -> list[Value]:
        """Runs the forward pass."""


def adam(learning_rate: float) -> dict[str, JsonValue]:
    """Returns the training settings of a network that is unstable at the learning rates of the presets.

    Those suit networks that normalize all their features. Without norms, with standardized weights or with much
    attention the loss explodes, or nothing but background is found. Decision: a rate at which such a network learned
    in a short run (tests/benchmarks/RESULTS.md), or that of its paper, whatever the preset.

    >>> adam(1e-3)
    {'optimizer': 'adam', 'learning_rate': 0.001}
    """
    return {"optimizer": "adam", "learning_rate": learning_rate}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """The specification of a network of the literature.

    All callables take the parsed settings.

    Attributes:
        title: The name that its authors gave it.
        summary: One line on what distinguishes it.
        source: The paper.
        licence: Licence of the official code, from which nothing is taken, and what else binds who uses the network.
        dimensions: Numbers of image axes that it supports: 2, 3, or both.
        settings: The type of its settings; the defaults give the published network.
        levels: Number of features at each resolution, from the finest.
        strides: Stride along each axis at each resolution after the first; left out, 2 everywhere.
        fixed_patch: The only patch size that it takes, which is its setting "patch", by default that of the paper; None
            if it takes many.
        forward: The forward pass.
        supervises: Whether training has further outputs for deep supervision.
        auxiliary_outputs: The last outputs of training that predict something other than the labels.
        max_channels: The largest number of image channels; None if there is no limit.
        training: The fields of the plan's `TrainingSettings` that differ from those of the preset.
        recipe: How the paper trained it, in words, where training here differs.
        published: The fields of the plan's `TrainingSettings` by which the paper trained it, as far as it states them,
            for those who want to repeat it; empty where nobody wrote them down here.
    """

    title: str
    summary: str
    source: str
    licence: str
    dimensions: tuple[int, ...]
    settings: type[Section]
    levels: Callable[[Any], tuple[int, ...]]
    forward: ForwardFunction
    strides: Callable[[Any], tuple[Edges, ...]] | None = None
    fixed_patch: Callable[[Any], tuple[int, ...] | None] = lambda _: None
    supervises: Callable[[Any], bool] = lambda _: False
    auxiliary_outputs: Callable[[Any], tuple[AuxiliaryOutput, ...]] = lambda _: ()
    max_channels: Callable[[Any], int | None] = lambda _: None
    training: Callable[[Any], Mapping[str, JsonValue]] = lambda _: {}
    recipe: str = ""
    published: Callable[[Any], Mapping[str, JsonValue]] = lambda _: {}

    def complete(self, settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Returns the settings with all defaults filled in.

        Raises:
            ValueError: A setting is unknown or impossible; the message names it.
        """
        complete: dict[str, JsonValue] = self.parse(settings).model_dump(mode="json")
        return complete

    def parse(self, settings: Mapping[str, JsonValue]) -> Any:
        """Returns the settings as the network's own type; raises like `complete`."""
        try:
            return self.settings.model_validate(dict(settings))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, ("settings", *first["loc"])))
            names = ", ".join(self.settings.model_fields)
            hint = f" (there are: {names})" if first["type"] == "extra_forbidden" else ""
            raise ValueError(f"{field} of {self.title}: {first['msg']}{hint}") from error

    def describe_dimensions(self) -> str:
        """Returns the numbers of image axes as text, such as "2D, 3D"."""
        return ", ".join(f"{dimensions}D" for dimensions in self.dimensions)

    def strides_per_level(self, settings: Mapping[str, JsonValue], dimensions: int) -> tuple[tuple[int, ...], ...]:
        """Returns the stride along each axis at each resolution; 1 at the first."""
        parsed = self.parse(settings)
        strides = self.strides(parsed) if self.strides else (2,) * (len(self.levels(parsed)) - 1)
        return tuple(per_axis(stride, dimensions) for stride in (1, *strides))

    def divisor(self, settings: Mapping[str, JsonValue], dimensions: int) -> tuple[int, ...]:
        """Returns the product of the strides along each axis."""
        return tuple(map(prod, zip(*self.strides_per_level(settings, dimensions), strict=True)))

    def patches(self, settings: Mapping[str, JsonValue], dimensions: int) -> PatchSizes:
        """Returns the patch sizes that the network takes, and the margin that it does not predict."""
        return _measure(self, self.parse(settings), dimensions)

    def smallest_patch(self, settings: Mapping[str, JsonValue], dimensions: int) -> tuple[int, ...]:
        """Returns the smallest patch size: the only one, or one voxel at the coarsest resolution."""
        return self.patches(settings, dimensions).smallest

    def adapt_to_patch(self, settings: Mapping[str, JsonValue], patch: Sequence[int]) -> dict[str, JsonValue]:
        """Returns the complete settings for patches of a size; only a network of a fixed patch size changes."""
        fixed = self.fixed_patch(self.parse(settings)) is not None
        return self.complete({**settings, "patch": list(patch)} if fixed else settings)

    def describe_constraints(self, settings: Mapping[str, JsonValue]) -> str:
        """Returns which images and patches the network takes, as text."""
        parsed = self.parse(settings)
        limit, patch = self.max_channels(parsed), self.fixed_patch(parsed)
        channels = "" if limit is None else f", at most {limit} channels"
        only = "" if patch is None else f"one size, planned up to {' x '.join(map(str, patch))}, "
        edges, patches = self.divisor(settings, max(self.dimensions)), self.patches(settings, max(self.dimensions))
        if patches.has_margin:
            return f"{patches.describe()}{channels}"
        divisors = str(edges[0]) if len(set(edges)) == 1 else ", ".join(map(str, edges))
        return f"{only}edges divisible by {divisors}{channels}"

    def make_architecture(
        self, settings: Mapping[str, JsonValue], dimensions: int, *, in_channels: int, out_channels: int
    ) -> Architecture:
        """Summarizes the network as the plan's `Architecture`: channels, strides and features of each resolution.

        Raises:
            ValueError: A setting is unknown or impossible, or the images have too many axes or channels.
        """
        if dimensions not in self.dimensions:
            raise ValueError(f"{self.title} takes images in {self.describe_dimensions()} only")
        parsed = self.parse(settings)
        limit = self.max_channels(parsed)
        if limit is not None and in_channels > limit:
            raise ValueError(f"{self.title} takes at most {limit} channels with these settings, not {in_channels}")
        return Architecture(
            residual="none",
            in_channels=in_channels,
            out_channels=out_channels,
            stages=tuple(
                Stage(features=features, kernel=_axes((3,) * dimensions), stride=_axes(stride), convolutions=1)
                for features, stride in zip(
                    self.levels(parsed), self.strides_per_level(settings, dimensions), strict=True
                )
            ),
            deep_supervision=self.supervises(parsed),
        )

    def count(
        self, settings: Mapping[str, JsonValue], architecture: Architecture, patch_size: Sequence[int]
    ) -> "NetworkCosts":
        """Counts the layers, weights, work and memory of the network for a patch, without torch.

        >>> from autoseg.networks.literature.unet import UNET
        >>> architecture = UNET.make_architecture({}, 2, in_channels=1, out_channels=2)
        >>> UNET.count({}, architecture, (256, 256)).weights
        31030658

        Args:
            settings: The settings of the network.
            architecture: Gives the numbers of input and output channels.
            patch_size: Voxels along each axis, one of `patches`.

        Raises:
            ValueError: The settings are impossible.
        """
        parsed = self.parse(settings)
        return _count(self, parsed, architecture.in_channels, architecture.out_channels, tuple(patch_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCosts:
    """The layers of a network and its costs for one patch; see `ShapeOps`.

    Attributes:
        layers: The layers by name.
        weights: Number of trainable weights.
        multiply_adds: Multiply-adds of the forward pass.
        saved_elements, pooling_indices: Elements of the feature maps, and indices of pooling, that autograd keeps.
        largest_conv_elements: Elements of input and output of the largest convolution.
        outputs: Voxels of each output in training.
    """

    layers: Mapping[str, LayerSpec]
    weights: int
    multiply_adds: int
    saved_elements: int
    pooling_indices: int
    largest_conv_elements: int
    outputs: tuple[int, ...]

    @property
    def standardized_weights(self) -> int:
        """Number of weights that are standardized when they are used, of which training keeps copies."""
        return sum(layer.weights for layer in self.layers.values() if layer.standardized)


@lru_cache(maxsize=1024)
def _count(
    spec: NetworkSpec, settings: Section, in_channels: int, out_channels: int, patch_size: tuple[int, ...]
) -> NetworkCosts:
    ops = ShapeOps(len(patch_size))
    image = FeatureMap(in_channels, patch_size)
    logits = spec.forward(ops, image, out_channels, settings)
    ops.saved.discard(image)  # planning counts the image apart
    return NetworkCosts(
        layers=ops.layers,
        weights=ops.weights,
        multiply_adds=ops.multiply_adds,
        saved_elements=ops.saved_elements,
        pooling_indices=ops.pooling_indices,
        largest_conv_elements=ops.largest_conv_elements,
        outputs=tuple(output.voxels for output in logits),
    )


@lru_cache(maxsize=256)
def _measure(spec: NetworkSpec, settings: Section, dimensions: int) -> PatchSizes:
    divisor = spec.divisor(settings.model_dump(mode="json"), dimensions)

    def size_of_logits(patch: tuple[int, ...]) -> tuple[int, ...]:
        ops = ShapeOps(dimensions, training=False)
        return spec.forward(ops, FeatureMap(1, patch), 2, settings)[0].size

    return measure_patch_sizes(size_of_logits, spec.fixed_patch(settings) or divisor, divisor)


def _axes(edges: tuple[int, ...]) -> Axes:
    return cast(Axes, edges)
