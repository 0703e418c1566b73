"""The networks of MONAI as a plan describes them, before MONAI itself is imported.

    --network monai:SwinUNETR       any network of `monai.networks.nets` that maps images to logits
    pip install autoseg[monai]

A plan names the class, and holds the arguments of its constructor as plain values. The numbers of channels and of axes,
and the patch size where a class needs it, follow from the plan and are filled in by `models.monai_networks`, which
builds the network. `monai_table` gives the strides of the best-known networks, which must divide a patch, and their
approximate memory; all others are assumed to halve a patch five times. A trial on noise when a fold begins reports in
one line if that is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from autoseg.networks.architecture import Architecture, Axes, Stage
from autoseg.networks.monai_names import PREFIX
from autoseg.networks.monai_table import TABLE, UNKNOWN, MonaiFacts, Settings
from autoseg.networks.ops import per_axis
from autoseg.networks.patch_sizes import PatchSizes

INSTALL = "pip install autoseg[monai]"


def describe(name: str) -> MonaiFacts:
    """Returns the facts about a network from MONAI's documentation, or what is assumed about an unknown one."""
    return TABLE.get(name.removeprefix(PREFIX), UNKNOWN)


def complete(name: str, settings: Settings) -> dict[str, JsonValue]:
    """Returns the settings, with defaults filled in for those that the resolutions depend on."""
    return {**describe(name).settings, **settings}


@dataclass(frozen=True, slots=True)
class MonaiSpec:
    """A network of MONAI with the interface of `spec.NetworkSpec` that planning uses.

    Attributes:
        name: Name in the plan, such as "monai:SwinUNETR".
    """

    name: str

    @property
    def title(self) -> str:
        """Name for messages, such as "SwinUNETR of MONAI"."""
        return f"{self.name.removeprefix(PREFIX)} of MONAI"

    def complete(self, settings: Settings) -> dict[str, JsonValue]:
        """See `complete`."""
        return complete(self.name, settings)

    def parse(self, settings: Settings) -> Settings:
        """Returns the settings unchanged; MONAI itself checks them."""
        return settings

    def training(self, settings: Settings) -> dict[str, JsonValue]:  # noqa: ARG002 - see NetworkSpec
        """Returns the training settings that differ from those of the preset."""
        return dict(describe(self.name).training)

    def fixed_patch(self, settings: Settings) -> None:
        """Returns None: a network that takes one patch size only is built for that of the plan."""

    def adapt_to_patch(self, settings: Settings, patch_size: Sequence[int]) -> dict[str, JsonValue]:  # noqa: ARG002 - see NetworkSpec
        """Returns the settings unchanged."""
        return dict(settings)

    def make_architecture(
        self, settings: Settings, dimensions: int, *, in_channels: int, out_channels: int
    ) -> Architecture:
        """See `make_architecture`."""
        return make_architecture(self.name, settings, dimensions, in_channels=in_channels, out_channels=out_channels)

    def patches(self, settings: Settings, dimensions: int) -> PatchSizes:
        """Returns the patch sizes that its strides divide."""
        return PatchSizes.divisible_by(self.smallest_patch(settings, dimensions))

    def smallest_patch(self, settings: Settings, dimensions: int) -> tuple[int, ...]:
        """Returns the patch size that leaves one voxel at the coarsest resolution."""
        return self.make_architecture(settings, dimensions, in_channels=1, out_channels=1).divisor


def make_architecture(
    name: str, settings: Settings, dimensions: int, *, in_channels: int, out_channels: int
) -> Architecture:
    """Summarizes the network as the plan's `Architecture`: channels, strides and features of each resolution.

    Raises:
        ValueError: The settings of its resolutions are impossible; the message names them.
    """
    facts, settings = describe(name), complete(name, settings)
    try:
        features = facts.features(settings, dimensions)
        strides = facts.strides(settings, dimensions) if facts.strides else (2,) * (len(features) - 1)
        stage_strides = [per_axis(stride, dimensions) for stride in (1, *strides)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings of {name}: {error}") from error
    if len(features) != len(stage_strides):
        names = ", ".join(facts.settings)
        raise ValueError(
            f"settings of {name}: {len(features)} resolutions have features, {len(stage_strides)} a size (by {names})"
        )
    return Architecture(
        residual="none",
        in_channels=in_channels,
        out_channels=out_channels,
        stages=tuple(
            Stage(features=width, kernel=_axes((3,) * dimensions), stride=_axes(stride), convolutions=2)
            for width, stride in zip(features, stage_strides, strict=True)
        ),
        deep_supervision=False,
    )


def explain(name: str, changes: str) -> str:
    """Returns a sentence on which network it is, how it is trained, and how its memory is estimated."""
    multiple = f"{describe(name).saved_factor:g} times" if name.removeprefix(PREFIX) in TABLE else "once"
    return (
        f'Network {name}: {name.removeprefix(PREFIX)} of MONAI, with what stands below "network", and trained like any '
        f"other{changes}. What it takes is a guess: {multiple} what a plain U-Net of as many features keeps; if memory "
        "runs out, training takes fewer patches at a time."
    )


def _axes(edges: tuple[int, ...]) -> Axes:
    return cast(Axes, edges)
