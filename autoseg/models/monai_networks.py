"""Networks of MONAI, built by the names and plain values of a plan, and led to what training and prediction expect.

MONAI is imported here alone, and only when a plan names one of its networks. A plan or model of a stranger can make
nothing run but the construction of a class that `monai.networks.nets` itself defines and offers, which makes logits of
images; from a plan come numbers, texts, lists and tables of these, never code. What would load weights from somewhere
else is left out and refused.
"""

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoseg.errors import AutosegError, UsageError
from autoseg.networks.monai import INSTALL, PREFIX, complete, describe
from autoseg.networks.monai_table import TABLE
from autoseg.planning.plan import Configuration
from autoseg.planning.plugins import Plugin

CHANNELS = ("in_channels", "out_channels")
"""What the constructor of a network that makes logits of images asks for."""
PATCH_SIZES = ("img_size", "input_image_size", "image_size", "input_size")
"""Names by which constructors ask for the size of the patch."""
FILLED_IN = (*CHANNELS, "spatial_dims", *PATCH_SIZES)
FETCHING = ("pretrained", "progress", "weights", "filename", "path_or_repo_id")
"""How the names of arguments begin that load weights, from a file or from afar."""


class Monai(nn.Module):
    """A network of MONAI, whose outputs come as training and prediction expect them.

    Args:
        network: Built by MONAI.
        predicts_last: Whether of several outputs the last one is the best; the others follow it from behind.
    """

    def __init__(self, network: nn.Module, *, predicts_last: bool = False) -> None:
        super().__init__()
        self.network = network
        self.predicts_last = predicts_last

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Maps an image (n, in_channels, *size) to logits (n, out_channels, *size), in training to a list of these.

        Further outputs follow in the list, at any resolution. MONAI gives several outputs as a list, also inside one
        another, or stacked: (n, outputs, out_channels, *size). What else is among them is passed on, to be refused.
        """
        outputs = list(_unfold(self.network(image), image.ndim))
        outputs = outputs[::-1] if self.predicts_last else outputs
        return outputs if self.training else outputs[0]


def find_class(name: str, error: type[AutosegError] = UsageError) -> type[nn.Module]:
    """The class that a plan means.

    Args:
        name: Such as "monai:SwinUNETR".
        error: What is raised: `ModelError` for a model.

    Raises:
        AutosegError: MONAI is not installed, it has no such network, or the network makes no logits of images.
    """
    nets, short = _import(name, error), name.removeprefix(PREFIX)
    found = _list_networks(nets).get(short)
    if found is None:
        there = list(_list_networks(nets))
        near = difflib.get_close_matches(short, [*there, *TABLE], n=1, cutoff=0.5) or [next(iter(TABLE))]
        raise error(f"MONAI has no network {short!r} here", f"did you mean {PREFIX}{near[0]}?")
    missing = [one for one in CHANNELS if one not in _arguments(found)]
    if missing:
        what = f"{name} makes no logits of images: it does not ask for {' and '.join(missing)}"
        raise error(what, f"choose another network, such as {PREFIX}{next(iter(TABLE))}")
    return found


def list_settings(name: str) -> dict[str, JsonValue]:
    """All that a plan may say about a network, with the values that hold if it says nothing.

    Raises:
        UsageError: See `find_class`.
    """
    settings: dict[str, JsonValue] = {}
    for key, argument in _arguments(find_class(name)).items():
        if not _is_ours(key) and argument.default is not argument.empty:
            value = _as_plain(argument.default)
            if value is not NotImplemented:
                settings[key] = value
    return {**settings, **describe(name).settings}


def check_settings(plugin: Plugin, error: type[AutosegError] = UsageError) -> type[nn.Module]:
    """Makes sure that a network can be asked for with the settings of a plan; nothing is built.

    Raises:
        AutosegError: See `find_class`; or a setting is unknown, missing, or none of the plan's.
    """
    found = find_class(plugin.name, error)
    arguments, settings = _arguments(found), complete(plugin.name, plugin.settings)
    choice = [key for key in arguments if not _is_ours(key)]
    for key in settings:
        if key in FILLED_IN:
            raise error(f"settings.{key} of {plugin.name} follows from the plan", "leave it out")
        if _is_fetching(key):
            raise error(
                f"settings.{key} of {plugin.name} would load weights", "leave it out, and begin with --init MODEL"
            )
        if key not in choice:
            raise error(f"{plugin.name} has no settings.{key}", f"choose from {', '.join(choice)}")
    for key in choice:
        if arguments[key].default is inspect.Parameter.empty and key not in settings:
            raise error(f"{plugin.name} needs settings.{key}", "add it to plan.json")
    return found


def build_monai(configuration: Configuration, error: type[AutosegError] = UsageError) -> Monai:
    """Builds the network of MONAI that a configuration names, with fresh weights, on the CPU.

    Weights are drawn from torch's own generator.

    Args:
        configuration: The plan's.
        error: What is raised: `ModelError` for a model.

    Raises:
        AutosegError: See `check_settings`; or MONAI cannot build it with these settings, for what it says.
    """
    plugin = configuration.network
    if plugin is None:
        raise ValueError("the configuration names no network")
    found = check_settings(plugin, error)
    arguments, given = _arguments(found), _fill_in(configuration, found)
    for key, value in complete(plugin.name, plugin.settings).items():
        if arguments[key].default is arguments[key].empty or _as_plain(arguments[key].default) != value:
            given[key] = _as_tuples(value)  # what is as always is left to MONAI, which may warn of old names
    try:
        network = found(**given)
    except Exception as cause:  # whatever a constructor makes of the values of a plan
        what = f"MONAI cannot build {plugin.name} with these settings: {first_line(cause)}"
        raise error(what, "change settings of the network in plan.json") from cause
    return Monai(network, predicts_last=describe(plugin.name).predicts_last)


def count_monai(configuration: Configuration) -> int | None:
    """The trainable numbers of a network of MONAI, without memory for them; None if nobody can say."""
    try:
        with _MetaTensors():
            network = build_monai(configuration)
    except AutosegError:
        return None
    return sum(one.numel() for one in network.parameters())


def first_line(cause: BaseException) -> str:
    """What an error says first."""
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


class _MetaTensors(TorchFunctionMode):
    """Makes tensors of weights without memory, while all else is as it is."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if function in (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn):
            given["device"] = "meta"
        return function(*args, **given)


def _import(name: str, error: type[AutosegError]) -> ModuleType:
    try:
        from monai.networks import nets  # noqa: PLC0415 - takes seconds, and need not be installed
    except ModuleNotFoundError as cause:
        raise error(f"the network {name!r} is MONAI's, which is not installed here", INSTALL) from cause
    except Exception as cause:  # whatever another version of it, or of what it needs, makes of this one
        raise error(f"MONAI cannot be loaded: {first_line(cause)}", f"install it anew: {INSTALL}") from cause
    return cast(ModuleType, nets)


def _list_networks(nets: ModuleType) -> dict[str, type[nn.Module]]:
    """The networks that MONAI offers and defines itself, each by the one name that its class has."""
    return {
        name: found
        for name, found in vars(nets).items()
        if inspect.isclass(found)
        and issubclass(found, nn.Module)
        and found.__module__.startswith(f"{nets.__name__}.")
        and found.__name__ == name
    }


def _arguments(found: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """Those of its constructor that have names."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {key: one for key, one in inspect.signature(found).parameters.items() if one.kind not in several}


def _fill_in(configuration: Configuration, found: type[nn.Module]) -> dict[str, Any]:
    """What follows from the plan."""
    architecture = configuration.architecture
    known: dict[str, Any] = {
        "in_channels": architecture.in_channels,
        "out_channels": architecture.out_channels,
        "spatial_dims": architecture.dimensions,
        **dict.fromkeys(PATCH_SIZES, configuration.patch_size),
        "pretrained": False,
    }
    return {key: value for key, value in known.items() if key in _arguments(found)}


def _is_ours(key: str) -> bool:
    return key in FILLED_IN or _is_fetching(key)


def _is_fetching(key: str) -> bool:
    return key.startswith(FETCHING)


def _as_plain(value: object) -> JsonValue:
    """A default as a plan can hold it; NotImplemented if it is none of JSON's."""
    try:
        return cast(JsonValue, json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError):
        return cast(JsonValue, NotImplemented)


def _as_tuples(value: JsonValue) -> Any:
    """Lists as tuples, which MONAI's own defaults are."""
    if isinstance(value, list):
        return tuple(_as_tuples(one) for one in value)
    return {key: _as_tuples(one) for key, one in value.items()} if isinstance(value, dict) else value


def _unfold(output: Any, axes: int) -> Iterator[Any]:
    """The outputs of a network, one after the other."""
    if isinstance(output, list | tuple):
        for one in output:
            yield from _unfold(one, axes)
    elif isinstance(output, Tensor) and output.ndim == axes + 1:
        yield from output.unbind(1)
    else:
        yield output
