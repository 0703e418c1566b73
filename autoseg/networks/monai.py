"""What MONAI's documentation says of its networks: all that a plan needs before MONAI itself is asked.

    --network monai:SwinUNETR       any network of `monai.networks.nets` that makes logits of images
    pip install autoseg[monai]

A plan names the class, and holds what it is constructed with, as plain values. The numbers of channels and of axes, and
the size of the patch where a class wants it, follow from the plan and are filled in by `network.monai`, which builds
the network. A table says of the best-known ones at how many resolutions they look at a patch, because patches must be
divisible by that, and what they roughly take; of all others it is assumed that they halve a patch five times. A trial
on noise when a fold begins says in one line if that is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from autoseg.networks.architecture import Architecture, Axes, Stage
from autoseg.networks.monai_table import TABLE, UNKNOWN, Described, Settings
from autoseg.networks.ops import spread
from autoseg.networks.patch_sizes import Patches

PREFIX = "monai:"
NAME_PATTERN = rf"{PREFIX}[A-Z][A-Za-z0-9]*"
INSTALL = "pip install autoseg[monai]"


def is_monai(name: str) -> bool:
    """Whether a plan means a network of MONAI by a name."""
    return name.startswith(PREFIX)


def describe(name: str) -> Described:
    """What is known of a network, or assumed."""
    return TABLE.get(name.removeprefix(PREFIX), UNKNOWN)


def complete(name: str, given: Settings) -> dict[str, JsonValue]:
    """The settings, with those filled in that the resolutions depend on."""
    return {**describe(name).settings, **given}


@dataclass(frozen=True, slots=True)
class MonaiSpec:
    """A network of MONAI, as planning asks about those of the literature; see `spec.NetworkSpec`.

    Attributes:
        name: Such as "monai:SwinUNETR".
    """

    name: str

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name.removeprefix(PREFIX)} of MONAI"

    def complete(self, given: Settings) -> dict[str, JsonValue]:
        """See `complete`."""
        return complete(self.name, given)

    def read(self, given: Settings) -> Settings:
        """The settings as they are."""
        return given

    def training(self, settings: Settings) -> dict[str, JsonValue]:  # noqa: ARG002 - see Page
        """What it is trained with, where that is not what the preset says."""
        return dict(describe(self.name).training)

    def fixed_patch(self, settings: Settings) -> None:
        """None: those that take one size only are built for that of the plan."""

    def fit_to(self, given: Settings, patch_size: Sequence[int]) -> dict[str, JsonValue]:  # noqa: ARG002 - see Page
        """The settings as they are."""
        return dict(given)

    def outline(self, given: Settings, dimensions: int, *, in_channels: int, out_channels: int) -> Architecture:
        """See `outline`."""
        return outline(self.name, given, dimensions, in_channels=in_channels, out_channels=out_channels)

    def patches(self, given: Settings, dimensions: int) -> Patches:
        """All that can be halved as it halves them."""
        return Patches.divisible_by(self.smallest_patch(given, dimensions))

    def smallest_patch(self, given: Settings, dimensions: int) -> tuple[int, ...]:
        """One voxel at the coarsest resolution."""
        return self.outline(given, dimensions, in_channels=1, out_channels=1).divisor


def outline(name: str, given: Settings, dimensions: int, *, in_channels: int, out_channels: int) -> Architecture:
    """The network as a plan tells it: channels, resolutions and features; the rest is MONAI's.

    Raises:
        ValueError: The settings of its resolutions are impossible; the text names them.
    """
    known, settings = describe(name), complete(name, given)
    try:
        features = known.features(settings, dimensions)
        strides = known.strides(settings, dimensions) if known.strides else (2,) * (len(features) - 1)
        reductions = [spread(stride, dimensions) for stride in (1, *strides)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings of {name}: {error}") from error
    if len(features) != len(reductions):
        which = ", ".join(known.settings)
        raise ValueError(
            f"settings of {name}: {len(features)} resolutions have features, {len(reductions)} a size (by {which})"
        )
    return Architecture(
        residual="none",
        in_channels=in_channels,
        out_channels=out_channels,
        stages=tuple(
            Stage(features=wide, kernel=_axes((3,) * dimensions), stride=_axes(stride), convolutions=2)
            for wide, stride in zip(features, reductions, strict=True)
        ),
        deep_supervision=False,
    )


def explain(name: str, changes: str) -> str:
    """Says which network it is, how it is trained, and what is not known of it."""
    rough = f"{describe(name).kept:g} times" if name.removeprefix(PREFIX) in TABLE else "once"
    return (
        f'Network {name}: {name.removeprefix(PREFIX)} of MONAI, with what stands below "network", and trained like any '
        f"other{changes}. What it takes is a guess: {rough} what a plain U-Net of as many features keeps; if memory "
        "runs out, training takes fewer patches at a time."
    )


def _axes(edges: tuple[int, ...]) -> Axes:
    return cast(Axes, edges)
