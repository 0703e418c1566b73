"""Networks with fresh weights as a plan names them: the default U-Net, one of the literature, of MONAI or a package."""

from functools import partial

import torch
from torch import nn

from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.models.checkpoint import Checkpoint
from autoseg.models.monai_networks import build_monai, check_settings
from autoseg.networks.convolutions import replace_convolutions
from autoseg.networks.default_unet import UNet, build_network
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai_names import is_monai
from autoseg.networks.torch_network import build_torch_network
from autoseg.planning.plan import Configuration
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.plugins import NetworkBuilder, check_no_name_conflict, find_network
from autoseg.runtime.device import prefers_channels_last


def make_network(configuration: Configuration, seed: int, error: type[AutosegError] = UsageError) -> nn.Module:
    """Builds the network of a configuration, in training mode, on the CPU; the same seed gives the same weights.

    Args:
        configuration: Configuration of the plan.
        seed: Seed of the weights. The state of torch's own generator, from which other packages draw, is kept.
        error: Type of the error: `ModelError` for a trained model.

    Raises:
        AutosegError: There is no such network here, or what is there is no network.
    """
    plugin = configuration.network
    if plugin is None:
        return build_network(configuration.architecture, torch.Generator().manual_seed(seed))
    build = None if is_monai(plugin.name) else find_builder(plugin.name, error)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: object = (
            build_monai(configuration, error)
            if build is None
            else build(configuration.architecture, plugin.read_only_settings)
        )
    if not isinstance(network, nn.Module):
        raise error(f"the network {plugin.name!r} is a {type(network).__name__}", "let it build a torch.nn.Module")
    replace_convolutions(network)
    return network.train()


def place_network(network: nn.Module, device: torch.device, *, exact: bool = False) -> nn.Module:
    """Moves a network to a device, with its weights in the order of the memory that is fast there.

    Args:
        network: The network.
        device: The device.
        exact: Whether it calculates in float32, for which no order is known to be faster.
    """
    network = network.to(device)
    if isinstance(network, UNet) and not exact and prefers_channels_last(device):
        network.put_channels_last()
    return network


def check_network(plugin: Plugin, error: type[AutosegError] = UsageError) -> None:
    """Makes sure that a network that a plan names can be found, without building it.

    Args:
        plugin: Name and settings of the network.
        error: Type of the error: `ModelError` for a trained model.

    Raises:
        AutosegError: There is no such network here, or two of them, or MONAI knows none of its settings.
    """
    if is_monai(plugin.name):
        check_settings(plugin, error)
    else:
        find_builder(plugin.name, error)


def find_builder(name: str, error: type[AutosegError] = UsageError) -> NetworkBuilder:
    """Returns the function that builds the network of a name: one of the literature, or of an installed package.

    Args:
        name: Name of the network in the plan.
        error: Type of the error: `ModelError` for a trained model.

    Raises:
        AutosegError: There is no such network here, or two of them.
    """
    spec = NETWORKS.get(name)
    if spec is None:
        return find_network(name, error)
    check_no_name_conflict(name, error)
    return partial(build_torch_network, spec)


def restore_network(checkpoint: Checkpoint) -> nn.Module:
    """Builds the network of a checkpoint with its weights, on the CPU.

    Raises:
        ModelError: The weights do not fit the plan; or the network is not built in, and no installed package offers it.
    """
    plugin = checkpoint.configuration.network
    network = make_network(checkpoint.configuration, seed=0, error=ModelError)
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        if plugin is not None and checkpoint.configuration.is_foreign:
            text = f"the weights of fold {checkpoint.fold} do not fit the network {plugin.name!r} that is installed"
            raise ModelError(text, "install the version of its package that the fold was trained with") from error
        text = f"the weights of fold {checkpoint.fold} do not fit its plan"
        raise ModelError(text, "train that fold again") from error
    return network
