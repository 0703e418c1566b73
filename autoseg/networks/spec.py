"""A page of the literature: what is known of a network before anything is built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Protocol, TypeVar, cast

from pydantic import JsonValue, ValidationError

from autoseg.networks.architecture import Architecture, Axes, Section, Stage
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.networks.layer_spec import Layer
from autoseg.networks.ops import Edges, Ops, spread
from autoseg.networks.patch_sizes import Patches, measure_patches
from autoseg.networks.shape_ops import Map, ShapeOps

Value = TypeVar("Value")


class DrawNetwork(Protocol):
    """Leads an image through the layers of a network.

    Args:
        net: The canvas; in training every layer that the network has must be drawn.
        image: Shape (n, in_channels, *patch).
        classes: How many outputs.
        settings: The page's own, complete.

    Returns:
        Logits, those that predict first; in training coarser ones may follow, and then those of `auxiliary_outputs`.
    """

    def __call__(self, net: Ops[Value], image: Value, classes: int, settings: Any, /) -> list[Value]:
        """Draws it."""


def adam(learning_rate: float) -> dict[str, JsonValue]:
    """What `NetworkSpec.training` says of a network that does not bear the rates of the presets.

    Those suit networks that normalize all their features. Without norms, with standardized weights or with much
    attention the loss explodes, or nothing but background is found. Decision: a rate at which such a network learned
    in a short run (tests/benchmarks/RESULTS.md), or that of its paper, whatever the preset.
    """
    return {"optimizer": "adam", "learning_rate": learning_rate}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network of the literature.

    Attributes:
        title: As its authors call it.
        summary: What is its own, in one line.
        source: The paper.
        licence: Of the official code, which nothing here is taken from, and what else binds who uses the network.
        dimensions: Of images that it takes: 2, 3, or both.
        settings: What a plan may say about it, with defaults: the published network.
        levels: Features at each resolution, by the settings.
        strides: By the settings, how much each resolution after the first reduces each axis; left out, it halves all.
        fixed_patch: By the settings, the only patch that it takes, which is the setting "patch", by default that of the
            paper; None if it takes many.
        draw: The network.
        supervises: Whether training has more outputs that stand for the labels, by the settings.
        auxiliary_outputs: By the settings, what the last outputs of training stand for, if not for the labels.
        most_channels: Of the image, by the settings; None if there is no limit.
        training: By the settings, in what the plan's `TrainingSettings` differ from those of the preset.
        recipe: How the paper trained it, in words, where the plan does something else.
    """

    title: str
    summary: str
    source: str
    licence: str
    dimensions: tuple[int, ...]
    settings: type[Section]
    levels: Callable[[Any], tuple[int, ...]]
    draw: DrawNetwork
    strides: Callable[[Any], tuple[Edges, ...]] | None = None
    fixed_patch: Callable[[Any], tuple[int, ...] | None] = lambda _: None
    supervises: Callable[[Any], bool] = lambda _: False
    auxiliary_outputs: Callable[[Any], tuple[AuxiliaryOutput, ...]] = lambda _: ()
    most_channels: Callable[[Any], int | None] = lambda _: None
    training: Callable[[Any], Mapping[str, JsonValue]] = lambda _: {}
    recipe: str = ""

    def complete(self, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The settings with all defaults filled in.

        Raises:
            ValueError: One is unknown or impossible; the text names it.
        """
        settings: dict[str, JsonValue] = self.read(given).model_dump(mode="json")
        return settings

    def read(self, given: Mapping[str, JsonValue]) -> Any:
        """The settings as the page's own type; see `complete`."""
        try:
            return self.settings.model_validate(dict(given))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, ("settings", *first["loc"])))
            known = ", ".join(self.settings.model_fields)
            hint = f" (there are: {known})" if first["type"] == "extra_forbidden" else ""
            raise ValueError(f"{where} of {self.title}: {first['msg']}{hint}") from error

    def describe_dimensions(self) -> str:
        """Such as "2D, 3D"."""
        return ", ".join(f"{dimensions}D" for dimensions in self.dimensions)

    def reductions(self, given: Mapping[str, JsonValue], dimensions: int) -> tuple[tuple[int, ...], ...]:
        """How much each resolution reduces each axis; the first one nothing."""
        settings = self.read(given)
        strides = self.strides(settings) if self.strides else (2,) * (len(self.levels(settings)) - 1)
        return tuple(spread(stride, dimensions) for stride in (1, *strides))

    def divisor(self, given: Mapping[str, JsonValue], dimensions: int) -> tuple[int, ...]:
        """What each axis of a patch must be divisible by."""
        return tuple(map(prod, zip(*self.reductions(given, dimensions), strict=True)))

    def patches(self, given: Mapping[str, JsonValue], dimensions: int) -> Patches:
        """Which patches it takes, and what part of them it predicts."""
        return _measure(self, self.read(given), dimensions)

    def smallest_patch(self, given: Mapping[str, JsonValue], dimensions: int) -> tuple[int, ...]:
        """That the network can be drawn for: the only one that it takes, or one voxel at the coarsest resolution."""
        return self.patches(given, dimensions).smallest

    def fit_to(self, given: Mapping[str, JsonValue], patch: Sequence[int]) -> dict[str, JsonValue]:
        """The settings with which it takes patches of such a size, complete."""
        fixed = self.fixed_patch(self.read(given)) is not None
        return self.complete({**given, "patch": list(patch)} if fixed else given)

    def describe_constraints(self, given: Mapping[str, JsonValue]) -> str:
        """What images and patches it takes."""
        settings = self.read(given)
        limit, patch = self.most_channels(settings), self.fixed_patch(settings)
        channels = "" if limit is None else f", at most {limit} channels"
        only = "" if patch is None else f"one size, planned up to {' x '.join(map(str, patch))}, "
        edges, patches = self.divisor(given, max(self.dimensions)), self.patches(given, max(self.dimensions))
        if patches.has_margin:
            return f"{patches.describe()}{channels}"
        divisors = str(edges[0]) if len(set(edges)) == 1 else ", ".join(map(str, edges))
        return f"{only}edges divisible by {divisors}{channels}"

    def outline(
        self, given: Mapping[str, JsonValue], dimensions: int, *, in_channels: int, out_channels: int
    ) -> Architecture:
        """The network as the plan's `Architecture` tells it: channels, resolutions, features; the rest is the page's.

        Raises:
            ValueError: A setting is unknown or impossible, or the images have too many axes or channels.
        """
        if dimensions not in self.dimensions:
            raise ValueError(f"{self.title} takes images in {self.describe_dimensions()} only")
        settings = self.read(given)
        limit = self.most_channels(settings)
        if limit is not None and in_channels > limit:
            raise ValueError(f"{self.title} takes at most {limit} channels with these settings, not {in_channels}")
        return Architecture(
            residual="none",
            in_channels=in_channels,
            out_channels=out_channels,
            stages=tuple(
                Stage(features=features, kernel=_axes((3,) * dimensions), stride=_axes(stride), convolutions=1)
                for features, stride in zip(self.levels(settings), self.reductions(given, dimensions), strict=True)
            ),
            deep_supervision=self.supervises(settings),
        )

    def count(self, given: Mapping[str, JsonValue], architecture: Architecture, patch_size: Sequence[int]) -> "Count":
        """What the network has and takes for a patch.

        Args:
            given: Settings.
            architecture: Of which the numbers of channels are taken.
            patch_size: Voxels per axis, one of `patches`.

        Raises:
            ValueError: The settings are impossible.
        """
        settings = self.read(given)
        return _count(self, settings, architecture.in_channels, architecture.out_channels, tuple(patch_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a network has and takes for one patch; see `ShapeOps`.

    Attributes:
        layers: By name.
        weights: Trainable numbers.
        multiply_adds: Forwards.
        kept_elements, places: What training keeps.
        widest_elements: Of input and output of the largest convolution.
        outputs: Voxels of each output in training.
    """

    layers: Mapping[str, Layer]
    weights: int
    multiply_adds: int
    kept_elements: int
    places: int
    widest_elements: int
    outputs: tuple[int, ...]

    @property
    def standardized_weights(self) -> int:
        """Those that are standardized when they are used, of which training then keeps copies."""
        return sum(layer.weights for layer in self.layers.values() if layer.standardized)


@lru_cache(maxsize=1024)
def _count(
    spec: NetworkSpec, settings: Section, in_channels: int, out_channels: int, patch_size: tuple[int, ...]
) -> Count:
    sketch = ShapeOps(len(patch_size))
    image = Map(in_channels, patch_size)
    logits = spec.draw(sketch, image, out_channels, settings)
    sketch.kept.discard(image)  # counted apart, because it is there anyway
    return Count(
        layers=sketch.layers,
        weights=sketch.weights,
        multiply_adds=sketch.multiply_adds,
        kept_elements=sketch.kept_elements,
        places=sketch.places,
        widest_elements=sketch.widest,
        outputs=tuple(one.voxels for one in logits),
    )


@lru_cache(maxsize=256)
def _measure(spec: NetworkSpec, settings: Section, dimensions: int) -> Patches:
    given = settings.model_dump(mode="json")
    divisor = spec.divisor(given, dimensions)

    def predict(patch: tuple[int, ...]) -> tuple[int, ...]:
        sketch = ShapeOps(dimensions, training=False)
        return spec.draw(sketch, Map(1, patch), 2, settings)[0].size

    return measure_patches(predict, spec.fixed_patch(settings) or divisor, divisor)


def _axes(edges: tuple[int, ...]) -> Axes:
    return cast(Axes, edges)
