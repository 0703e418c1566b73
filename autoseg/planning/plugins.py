"""Plugins: networks, losses and transforms that installed packages provide and plans refer to by name.

A package declares its functions in its pyproject.toml, under names of its choice:

    [project.entry-points."autoseg.networks"]
    my_network = "my_package.networks:build"

and in the same way in the groups "autoseg.losses" and "autoseg.transforms". Scripts and notebooks may call
`register_network`, `register_loss` and `register_transform` instead, for the running process alone; the processes of a
training on several GPUs find only what is installed.

Plans and models only contain the name of such a function. Its code comes from installed packages, never from a file, so
a plan or model from someone else cannot run any code.
"""

import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from pydantic import JsonValue

from autoseg.errors import AutosegError, UsageError
from autoseg.networks.architecture import Architecture
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.plugin_settings import NAME_PATTERN

if TYPE_CHECKING:
    import numpy as np
    import torch

Kind = Literal["network", "loss", "transform"]
GROUPS: dict[Kind, str] = {"network": "autoseg.networks", "loss": "autoseg.losses", "transform": "autoseg.transforms"}
"""The groups of entry points."""

Settings = Mapping[str, JsonValue]


class NetworkBuilder(Protocol):
    """Builds a network with freshly initialized weights, on the CPU, by torch's global generator, which is seeded.

    In training mode the network maps an image (n, in_channels, *patch) to a list of logits, finest first: the first
    logits (n, out_channels, *patch), and for deep supervision further logits behind them. If these have several sizes,
    the coarsest is left out of the loss; logits of the same size count equally. In evaluation mode it returns the first
    logits alone. It is called for patches of the plan's `patch_size`.

    Args:
        architecture: The architecture of the plan. The network must comply with `in_channels`, `out_channels`,
            `dimensions`, and `divisor`, by which patches are divisible. The rest describes the default network.
        settings: The settings of the plan, plain JSON values.
    """

    def __call__(self, architecture: Architecture, settings: Settings, /) -> "torch.nn.Module":
        """Builds the network."""


class LossGroundTruth(Protocol):
    """The ground truth of a batch of patches as a loss gets it; `training.ground_truth.GroundTruth` describes it."""

    @property
    def classes(self) -> "torch.Tensor":
        """Class of each voxel, shape (n, *size), int64, if structures exclude each other."""

    @property
    def present(self) -> "torch.Tensor":
        """Mask of each structure, shape (n, structures, *size), bool."""

    @property
    def counted(self) -> "torch.Tensor | None":
        """Mask of the voxels that were labelled, shape (n, 1 or structures, *size), bool; None if all were."""

    @property
    def unknown(self) -> "torch.Tensor | None":
        """Structures that were not annotated in the case of a patch, shape (n, structures), bool; None if all were."""

    @property
    def exclusive(self) -> bool:
        """Whether structures exclude each other."""


class LossFunction(Protocol):
    """Calculates the loss of logits at one resolution; deep supervision sums the resolutions with weights.

    It should be a mean over the patches: where a batch is distributed over GPUs or micro-batches, it is called for each
    part, and weighted by the number of patches.

    Args:
        logits: Shape (n, outputs, *size), float32. Where a structure is not annotated, as `ground_truth.unknown` gives,
            the logit of an exclusive structure is minus infinity, and the background includes it.
        ground_truth: The ground truth on the same grid.
        settings: The settings of the plan, plain JSON values.

    Returns:
        A scalar through which gradients flow.
    """

    def __call__(self, logits: "torch.Tensor", ground_truth: LossGroundTruth, settings: Settings, /) -> "torch.Tensor":
        """Calculates the loss."""


class PatchTransform(Protocol):
    """Augments a training patch at random, after the built-in changes of intensity and before mirroring.

    It is called in several threads at a time, and may change its arguments in place.

    Args:
        image: Shape (c, *patch), float32, normalized, on the CPU.
        label: Shape (*patch), integers as in the label maps, -1 outside the case.
        random: The only source of randomness, so that a resumed run continues as if it had not been stopped.
        settings: The settings of the plan, plain JSON values.

    Returns:
        Image and label map of the same shapes.
    """

    def __call__(
        self, image: "torch.Tensor", label: "torch.Tensor", random: "np.random.Generator", settings: Settings, /
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Augments one patch."""


_REGISTERED: dict[tuple[Kind, str], Callable[..., Any]] = {}
_LOADED: dict[tuple[Kind, str], Callable[..., Any]] = {}
"""The plugins of installed packages that were loaded already, since the search takes some milliseconds."""


def register_network(name: str, build: NetworkBuilder) -> None:
    """Makes a network available to plans under a name, in this process; see `NetworkBuilder` for its interface.

    >>> def build(architecture, settings):
    ...     from torch import nn
    ...     convolution = nn.Conv2d if architecture.dimensions == 2 else nn.Conv3d
    ...     return convolution(architecture.in_channels, architecture.out_channels, 3, padding=1)
    >>> register_network("one_convolution", build)

    Args:
        name: Name in the plan: lower-case letters, digits and underscores.
        build: Called as ``build(architecture, settings)``. The same function may be registered again, as when a cell
            of a notebook is run twice; the last registration counts.

    Raises:
        UsageError: The name is not valid, or it is the name of another function.
    """
    _register("network", name, build)


def register_loss(name: str, loss: LossFunction) -> None:
    """Makes a loss available to plans under a name, in this process; see `LossFunction`, and `register_network`.

    >>> def brier_of_regions(logits, ground_truth, settings):
    ...     return (logits.sigmoid() - ground_truth.present.float()).square().mean()
    >>> register_loss("brier_of_regions", brier_of_regions)

    Args:
        name: Name in the plan: lower-case letters, digits and underscores.
        loss: Called as ``loss(logits, ground_truth, settings)``.

    Raises:
        UsageError: The name is not valid, or it is the name of another function.
    """
    _register("loss", name, loss)


def register_transform(name: str, transform: PatchTransform) -> None:
    """Makes a transform available to plans under a name, in this process; see `PatchTransform`.

    >>> def invert(image, label, random, settings):
    ...     return -image, label
    >>> register_transform("invert", invert)

    Args:
        name: Name in the plan: lower-case letters, digits and underscores.
        transform: Called as ``transform(image, label, random, settings)``; see also `register_network`.

    Raises:
        UsageError: The name is not valid, or it is the name of another function.
    """
    _register("transform", name, transform)


def find_network(name: str, error: type[AutosegError] = UsageError) -> NetworkBuilder:
    """Returns the network plugin of a name.

    Args:
        name: Name in the plan of a dataset or of a model.
        error: Type of the error that is raised: `ModelError` for a model.

    Raises:
        AutosegError: No plugin of this name is installed or registered, or it cannot be loaded.
    """
    return cast(NetworkBuilder, find_plugin("network", name, error))


def check_no_name_conflict(name: str, error: type[AutosegError] = UsageError) -> None:
    """Checks that no installed package provides a network under the name of a built-in one.

    Raises:
        AutosegError: A package does; the plan would be ambiguous.
    """
    for entry in _find_entries("network", name):
        problem = (
            f"{_package(entry)} offers a network {name!r}, which is the name of the built-in {NETWORKS[name].title}"
        )
        raise error(problem, "let that package choose another name, or uninstall it")


def find_loss(name: str) -> LossFunction:
    """Returns the loss plugin of a name; see `find_network`."""
    return cast(LossFunction, find_plugin("loss", name))


def find_transform(name: str) -> PatchTransform:
    """Returns the transform plugin of a name; see `find_network`."""
    return cast(PatchTransform, find_plugin("transform", name))


def find_plugin(kind: Kind, name: str, error: type[AutosegError] = UsageError) -> Callable[..., Any]:
    """Returns the network, loss or transform plugin of a name; see `find_network`."""
    function = _REGISTERED.get((kind, name)) or _LOADED.get((kind, name))
    if function is None:
        function = _LOADED[kind, name] = _load(kind, name, error)
    return function


def list_available(kind: Kind) -> dict[str, str]:
    """Lists the available plugins by name, with all of their sources: packages with versions, or "this program"."""
    sources = {name: "this program" for registered_kind, name in _REGISTERED if registered_kind == kind}
    for entry in entry_points(group=GROUPS[kind]):
        package = _package(entry)
        sources[entry.name] = f"{sources[entry.name]}, {package}" if entry.name in sources else package
    return dict(sorted(sources.items()))


def _register(kind: Kind, name: str, function: Callable[..., Any]) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"{name!r} is not a valid name for a {kind}", "use lower-case letters, digits and underscores")
    if kind == "network" and name in NETWORKS:
        raise UsageError(f"the network {name!r} is built in: {NETWORKS[name].title}", "choose another name")
    present = _REGISTERED.get((kind, name))
    others = [] if present is None or _qualified_name(present) == _qualified_name(function) else ["this program"]
    others += [_package(entry) for entry in _find_entries(kind, name) if entry.value != _qualified_name(function)]
    if others:
        raise UsageError(f"the {kind} {name!r} is another function of {others[0]} already", "choose another name")
    _REGISTERED[kind, name] = function


def _qualified_name(function: Callable[..., Any]) -> str | int:
    """Returns the module and name of a function as in an entry point; its identity if it has no name."""
    name = getattr(function, "__qualname__", "<nameless>")
    return id(function) if "<" in name else f"{function.__module__}:{name}"


def _load(kind: Kind, name: str, error: type[AutosegError]) -> Callable[..., Any]:
    """Loads the plugin of a name from the installed packages."""
    entries = _find_entries(kind, name)
    if not entries:
        available = ", ".join(list_available(kind)) or "none"
        problem = f"there is no {kind} {name!r} here (available: {available})"
        raise error(problem, f"install the package that provides it as an entry point of {GROUPS[kind]!r}")
    if len({entry.value for entry in entries}) > 1:
        packages = " and ".join(sorted(map(_package, entries)))
        raise error(f"{packages} both offer a {kind} {name!r}", "uninstall one of them")
    try:
        function = entries[0].load()
    except Exception as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        problem = f"the {kind} {name!r} of {_package(entries[0])} cannot be loaded: {reason}"
        raise error(problem, "fix that package, or reinstall it") from cause
    if not callable(function):
        problem = f"the {kind} {name!r} of {_package(entries[0])} is {entries[0].value}, which is not a function"
        raise error(problem, "fix the entry points of that package")
    return cast(Callable[..., Any], function)


def _find_entries(kind: Kind, name: str) -> list[EntryPoint]:
    return list(entry_points(group=GROUPS[kind], name=name))


def _package(entry: EntryPoint) -> str:
    return "a package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
