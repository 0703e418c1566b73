"""Networks, losses and transforms that are not built in: names in a plan, functions in installed packages.

A package offers functions in its pyproject.toml, by names of its choice:

    [project.entry-points."autoseg.networks"]
    my_network = "my_package.networks:build"

and alike in the groups "autoseg.losses" and "autoseg.transforms". Scripts and notebooks may call `register_network`,
`register_loss` and `register_transform` instead, which hold for the running process; those that train on several GPUs
are other processes, and find only what is installed.

Plans and models only ever name such a function. Its code comes from what the user has installed, never from a file, so
a stranger's plan or model can run nothing.
"""

import json
import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, cast

from pydantic import Field, JsonValue, field_validator

from autoseg.errors import AutosegError, UsageError
from autoseg.networks import monai
from autoseg.networks.architecture import Architecture, Section
from autoseg.networks.literature.table import NETWORKS

if TYPE_CHECKING:
    import numpy as np
    import torch

    from autoseg.training.ground_truth import GroundTruth

Kind = Literal["network", "loss", "transform"]
GROUPS: dict[Kind, str] = {"network": "autoseg.networks", "loss": "autoseg.losses", "transform": "autoseg.transforms"}
"""Of entry points."""

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
PLAN_PATTERN = rf"{NAME_PATTERN}|^{monai.NAME_PATTERN}$"
"""What a plan may name: also a network of MONAI."""

Settings = Mapping[str, JsonValue]


class BuildNetwork(Protocol):
    """Builds a network with fresh weights, on the CPU, drawing from torch's own generator, which is seeded for it.

    In training mode the network maps an image (n, in_channels, *patch) to a list of logits, finest first: the first
    ones (n, out_channels, *patch), for deep supervision further ones behind them; of several sizes the coarsest is left
    out of the loss, and those of the same size count alike. In evaluation mode it maps it to the first ones alone. It
    is called for patches of the plan's `patch_size`.

    Args:
        architecture: The plan's; `in_channels`, `out_channels`, `dimensions`, and `divisor`, by which patches are
            divisible, must be kept to. The rest describes the built-in network.
        settings: Of the plan, plain JSON values.
    """

    def __call__(self, architecture: Architecture, settings: Settings, /) -> "torch.nn.Module":
        """Builds one."""


class ComputeLoss(Protocol):
    """Judges logits at one resolution; deep supervision weighs the resolutions and adds them up.

    It should be a mean over the patches: where they are shared among GPUs, or taken in micro-batches, it is called for
    some of them, and counts by their number.

    Args:
        logits: Shape (n, outputs, *size), float32. Where nobody looked for a structure, which shows in
            `ground_truth.unknown`, the logit of an exclusive structure is minus infinity, and the background stands for
            it too.
        ground_truth: On the same grid.
        settings: Of the plan, plain JSON values.

    Returns:
        A scalar through which gradients flow.
    """

    def __call__(self, logits: "torch.Tensor", ground_truth: "GroundTruth", settings: Settings, /) -> "torch.Tensor":
        """Calculates it."""


class ChangePatch(Protocol):
    """Changes a training patch by chance, after the built-in changes of intensity and before mirroring.

    It is called in threads, several at a time, and may change what it is given in place.

    Args:
        image: Shape (c, *patch), float32, normalized, on the CPU.
        label: Shape (*patch), integers as in the label maps, -1 outside the case.
        random: The only source of chance, so that a run that was stopped goes on as if it had not been.
        settings: Of the plan, plain JSON values.

    Returns:
        Image and label map of the same shapes.
    """

    def __call__(
        self, image: "torch.Tensor", label: "torch.Tensor", random: "np.random.Generator", settings: Settings, /
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Changes one patch."""


class Plugin(Section):
    """What a plan says about a network of the literature, or about a network or loss that is not built in.

    Attributes:
        name: In `networks.table`, or under which an installed package, or the running program, offers it; a network of
            MONAI as in `networks.monai`.
        settings: What it is given; plain JSON values.
    """

    name: Annotated[str, Field(pattern=PLAN_PATTERN)]
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("settings")
    @classmethod
    def _are_plain(cls, settings: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(settings, allow_nan=False)  # infinities and NaN would come back from a file as something else
        return settings

    @property
    def given(self) -> Settings:
        """The settings, as functions get them: to be read only, since they are a part of the plan."""
        return MappingProxyType(self.settings)


class CustomTransform(Plugin):
    """A random change of training patches that is not built in.

    Attributes:
        probability: Per patch.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0


_REGISTERED: dict[tuple[Kind, str], Callable[..., Any]] = {}
_LOADED: dict[tuple[Kind, str], Callable[..., Any]] = {}
"""Found before among what is installed, since that takes some milliseconds."""


def register_network(name: str, build: BuildNetwork) -> None:
    """Offers a network to plans under a name, in this process; see `BuildNetwork` for what it must keep to.

    Args:
        name: Lower-case letters, digits and underscores.
        build: Called as ``build(architecture, settings)``. The same function may be registered again, as when a cell
            of a notebook is run twice; what it is by then counts.

    Raises:
        UsageError: The name is no such name, or stands for another function.
    """
    _register("network", name, build)


def register_loss(name: str, loss: ComputeLoss) -> None:
    """Offers a loss to plans under a name, in this process; see `ComputeLoss`, and `register_network`.

    Args:
        name: Lower-case letters, digits and underscores.
        loss: Called as ``loss(logits, ground_truth, settings)``.

    Raises:
        UsageError: The name is no such name, or stands for another function.
    """
    _register("loss", name, loss)


def register_transform(name: str, transform: ChangePatch) -> None:
    """Offers a transform to plans under a name, in this process; see `ChangePatch`, and `register_network`.

    Args:
        name: Lower-case letters, digits and underscores.
        transform: Called as ``transform(image, label, random, settings)``.

    Raises:
        UsageError: The name is no such name, or stands for another function.
    """
    _register("transform", name, transform)


def find_network(name: str, error: type[AutosegError] = UsageError) -> BuildNetwork:
    """The network of a name that is not built in.

    Args:
        name: In the plan, or in a model's plan.
        error: What is raised: `ModelError` for a model.

    Raises:
        AutosegError: Nothing of this name is installed or registered, or it cannot be loaded.
    """
    return cast(BuildNetwork, find_any("network", name, error))


def check_built_in(name: str, error: type[AutosegError] = UsageError) -> None:
    """Makes sure that no installed package offers a network by the name of a built-in one.

    Raises:
        AutosegError: One does; nobody could tell which of the two a plan means.
    """
    for entry in _find_entries("network", name):
        what = f"{_package(entry)} offers a network {name!r}, which is the name of the built-in {NETWORKS[name].title}"
        raise error(what, "let that package choose another name, or uninstall it")


def find_loss(name: str) -> ComputeLoss:
    """The loss of a name; see `find_network`."""
    return cast(ComputeLoss, find_any("loss", name))


def find_transform(name: str) -> ChangePatch:
    """The transform of a name; see `find_network`."""
    return cast(ChangePatch, find_any("transform", name))


def find_any(kind: Kind, name: str, error: type[AutosegError] = UsageError) -> Callable[..., Any]:
    """The network, loss or transform of a name; see `find_network`."""
    found = _REGISTERED.get((kind, name)) or _LOADED.get((kind, name))
    if found is None:
        found = _LOADED[kind, name] = _load(kind, name, error)
    return found


def list_offers(kind: Kind) -> dict[str, str]:
    """What there is by name, in order, and where it comes from: a package and its version, or this program.

    Several packages that offer the same name are all told.
    """
    offers = {name: "this program" for kind_of_one, name in _REGISTERED if kind_of_one == kind}
    for entry in entry_points(group=GROUPS[kind]):
        offers[entry.name] = f"{offers[entry.name]}, {_package(entry)}" if entry.name in offers else _package(entry)
    return dict(sorted(offers.items()))


def _register(kind: Kind, name: str, function: Callable[..., Any]) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"{name!r} is no name for a {kind}", "take lower-case letters, digits and underscores")
    if kind == "network" and name in NETWORKS:
        raise UsageError(f"the network {name!r} is built in: {NETWORKS[name].title}", "choose another name")
    present = _REGISTERED.get((kind, name))
    others = [] if present is None or _qualified_name(present) == _qualified_name(function) else ["this program"]
    others += [_package(entry) for entry in _find_entries(kind, name) if entry.value != _qualified_name(function)]
    if others:
        raise UsageError(f"the {kind} {name!r} is another function of {others[0]} already", "choose another name")
    _REGISTERED[kind, name] = function


def _qualified_name(function: Callable[..., Any]) -> str | int:
    """Where a function is defined, as an entry point says it; of a nameless one, which it is."""
    name = getattr(function, "__qualname__", "<nameless>")
    return id(function) if "<" in name else f"{function.__module__}:{name}"


def _load(kind: Kind, name: str, error: type[AutosegError]) -> Callable[..., Any]:
    """Looks for a function among what is installed."""
    entries = _find_entries(kind, name)
    if not entries:
        there = ", ".join(list_offers(kind)) or "none"
        what = f"there is no {kind} {name!r} here (there: {there})"
        raise error(what, f"install the package that offers it as an entry point of {GROUPS[kind]!r}")
    if len({entry.value for entry in entries}) > 1:
        packages = " and ".join(sorted(map(_package, entries)))
        raise error(f"{packages} both offer a {kind} {name!r}", "uninstall one of them")
    try:
        function = entries[0].load()
    except Exception as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        what = f"the {kind} {name!r} of {_package(entries[0])} cannot be loaded: {reason}"
        raise error(what, "mend that package, or install it anew") from cause
    if not callable(function):
        what = f"the {kind} {name!r} of {_package(entries[0])} is {entries[0].value}, which is no function"
        raise error(what, "mend that package's entry points")
    return cast(Callable[..., Any], function)


def _find_entries(kind: Kind, name: str) -> list[EntryPoint]:
    return list(entry_points(group=GROUPS[kind], name=name))


def _package(entry: EntryPoint) -> str:
    return "a package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
