"""Networks of MONAI, built from the names and plain values of a plan, with outputs as training and prediction expect.

MONAI is imported here alone, and only when a plan names one of its networks. A plan or model of a stranger can run
nothing but the constructor of a class that `monai.networks.nets` itself defines and offers, and that predicts logits of
images; a plan holds numbers, texts, lists and tables of these, never code. Arguments that would load weights from
somewhere else are left out and refused.
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
from autoseg.networks.monai import INSTALL, complete, describe
from autoseg.networks.monai_names import PREFIX
from autoseg.networks.monai_table import TABLE
from autoseg.planning.plan import Configuration
from autoseg.planning.plugin_settings import Plugin

CHANNELS = ("in_channels", "out_channels")
"""Arguments that the constructor of each network that predicts logits of images has."""
PATCH_SIZES = ("img_size", "input_image_size", "image_size", "input_size")
"""Names of arguments that are the size of the patch."""
FILLED_IN = (*CHANNELS, "spatial_dims", *PATCH_SIZES)
FETCHING = ("pretrained", "progress", "weights", "filename", "path_or_repo_id")
"""How the names of arguments begin that load weights, from a file or a server."""


class Monai(nn.Module):
    """A network of MONAI, with outputs as training and prediction expect them.

    Args:
        network: Built by MONAI.
        predicts_last: Whether the last one of several outputs is the best; then their order is reversed.
    """

    def __init__(self, network: nn.Module, *, predicts_last: bool = False) -> None:
        super().__init__()
        self.network = network
        self.predicts_last = predicts_last

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Maps an image (n, in_channels, *size) to logits (n, out_channels, *size), in training to a list of these.

        Further outputs follow in the list, at any resolution. MONAI returns several outputs as a list, also nested, or
        stacked: (n, outputs, out_channels, *size). Anything else among them is passed on, to be refused by others.
        """
        outputs = list(_unfold(self.network(image), image.ndim))
        outputs = outputs[::-1] if self.predicts_last else outputs
        return outputs if self.training else outputs[0]


def find_class(name: str, error: type[AutosegError] = UsageError) -> type[nn.Module]:
    """Returns the class of a network.

    Args:
        name: Name in a plan, such as "monai:SwinUNETR".
        error: Type of the error: `ModelError` for a trained model.

    Raises:
        AutosegError: MONAI is not installed, it has no such network, or the network predicts no logits of images.
    """
    nets, short = _import(name, error), name.removeprefix(PREFIX)
    network_class = _list_networks(nets).get(short)
    if network_class is None:
        names = list(_list_networks(nets))
        near = difflib.get_close_matches(short, [*names, *TABLE], n=1, cutoff=0.5) or [next(iter(TABLE))]
        raise error(f"MONAI has no network {short!r} here", f"did you mean {PREFIX}{near[0]}?")
    missing = [argument for argument in CHANNELS if argument not in _arguments(network_class)]
    if missing:
        what = f"{name} makes no logits of images: it does not ask for {' and '.join(missing)}"
        raise error(what, f"choose another network, such as {PREFIX}{next(iter(TABLE))}")
    return network_class


def list_settings(name: str) -> dict[str, JsonValue]:
    """Returns all settings of a network that a plan may hold, with their default values.

    Raises:
        UsageError: See `find_class`.
    """
    settings: dict[str, JsonValue] = {}
    for key, argument in _arguments(find_class(name)).items():
        if not _is_reserved(key) and argument.default is not argument.empty:
            value = _as_json(argument.default)
            if value is not NotImplemented:
                settings[key] = value
    return {**settings, **describe(name).settings}


def check_settings(plugin: Plugin, error: type[AutosegError] = UsageError) -> type[nn.Module]:
    """Makes sure that a network has the settings of a plan, without building it.

    Returns:
        The class of the network.

    Raises:
        AutosegError: See `find_class`; or a setting is unknown, missing, or not for a plan to choose.
    """
    network_class = find_class(plugin.name, error)
    arguments, settings = _arguments(network_class), complete(plugin.name, plugin.settings)
    allowed = [key for key in arguments if not _is_reserved(key)]
    for key in settings:
        if key in FILLED_IN:
            raise error(f"settings.{key} of {plugin.name} follows from the plan", "leave it out")
        if _is_fetching(key):
            raise error(
                f"settings.{key} of {plugin.name} would load weights", "leave it out, and begin with --init MODEL"
            )
        if key not in allowed:
            raise error(f"{plugin.name} has no settings.{key}", f"choose from {', '.join(allowed)}")
    for key in allowed:
        if arguments[key].default is inspect.Parameter.empty and key not in settings:
            raise error(f"{plugin.name} needs settings.{key}", "add it to plan.json")
    return network_class


def build_monai(configuration: Configuration, error: type[AutosegError] = UsageError) -> Monai:
    """Builds the network of MONAI that a configuration names, with fresh weights, on the CPU.

    Weights are drawn from torch's own generator.

    Args:
        configuration: Configuration of the plan.
        error: Type of the error: `ModelError` for a trained model.

    Raises:
        AutosegError: See `check_settings`; or MONAI cannot build it with these settings; its message says why.
    """
    plugin = configuration.network
    if plugin is None:
        raise ValueError("the configuration names no network")
    network_class = check_settings(plugin, error)
    parameters, arguments = _arguments(network_class), _fill_in(configuration, network_class)
    for key, value in complete(plugin.name, plugin.settings).items():
        if parameters[key].default is parameters[key].empty or _as_json(parameters[key].default) != value:
            arguments[key] = _as_tuples(value)  # default values are not passed, since MONAI may warn of old names
    try:
        network = network_class(**arguments)
    except Exception as cause:  # a constructor may raise any error for the values of a plan
        what = f"MONAI cannot build {plugin.name} with these settings: {first_line(cause)}"
        raise error(what, "change settings of the network in plan.json") from cause
    return Monai(network, predicts_last=describe(plugin.name).predicts_last)


def count_monai(configuration: Configuration) -> int | None:
    """Counts the weights of a network of MONAI without memory for them; None if it cannot be built."""
    try:
        with _MetaTensors():
            network = build_monai(configuration)
    except AutosegError:
        return None
    return sum(weight.numel() for weight in network.parameters())


def first_line(cause: BaseException) -> str:
    r"""Returns the first line of the message of an error.

    Example:
        >>> first_line(ValueError("no such size\nsee the manual"))
        'no such size'
    """
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


class _MetaTensors(TorchFunctionMode):
    """Creates weights on the meta device, without memory, while everything else is as usual."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if function in (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn):
            options["device"] = "meta"
        return function(*args, **options)


def _import(name: str, error: type[AutosegError]) -> ModuleType:
    try:
        from monai.networks import nets  # noqa: PLC0415 - takes seconds, and need not be installed
    except ModuleNotFoundError as cause:
        raise error(f"the network {name!r} is MONAI's, which is not installed here", INSTALL) from cause
    except Exception as cause:  # another version of it, or of its dependencies, may raise any error
        raise error(f"MONAI cannot be loaded: {first_line(cause)}", f"install it anew: {INSTALL}") from cause
    return cast(ModuleType, nets)


def _list_networks(nets: ModuleType) -> dict[str, type[nn.Module]]:
    """Returns the networks that MONAI offers and defines itself, each by the name of its class."""
    return {
        name: member
        for name, member in vars(nets).items()
        if inspect.isclass(member)
        and issubclass(member, nn.Module)
        and member.__module__.startswith(f"{nets.__name__}.")
        and member.__name__ == name
    }


def _arguments(network_class: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """Returns the named arguments of the constructor of a network."""
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(network_class).parameters
    return {key: parameter for key, parameter in parameters.items() if parameter.kind not in unnamed}


def _fill_in(configuration: Configuration, network_class: type[nn.Module]) -> dict[str, Any]:
    """Returns the arguments of a network that follow from the plan."""
    architecture = configuration.architecture
    values: dict[str, Any] = {
        "in_channels": architecture.in_channels,
        "out_channels": architecture.out_channels,
        "spatial_dims": architecture.dimensions,
        **dict.fromkeys(PATCH_SIZES, configuration.patch_size),
        "pretrained": False,
    }
    return {key: value for key, value in values.items() if key in _arguments(network_class)}


def _is_reserved(key: str) -> bool:
    return key in FILLED_IN or _is_fetching(key)


def _is_fetching(key: str) -> bool:
    return key.startswith(FETCHING)


def _as_json(value: object) -> JsonValue:
    """Returns a default value as a plan holds it; NotImplemented if JSON has no such value."""
    try:
        return cast(JsonValue, json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError):
        return cast(JsonValue, NotImplemented)


def _as_tuples(value: JsonValue) -> Any:
    """Returns a value with tuples in place of lists, as MONAI's own defaults have them."""
    if isinstance(value, list):
        return tuple(_as_tuples(item) for item in value)
    return {key: _as_tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


def _unfold(output: Any, axes: int) -> Iterator[Any]:
    """Yields the outputs of a network, one after the other; see `Monai.forward`."""
    if isinstance(output, list | tuple):
        for item in output:
            yield from _unfold(item, axes)
    elif isinstance(output, Tensor) and output.ndim == axes + 1:
        yield from output.unbind(1)
    else:
        yield output
