"""Networks with fresh weights, as a plan names them: the built-in one, or one that an installed package offers."""

import torch
from torch import nn

from autoseg.errors import AutosegError, UsageError
from autoseg.extensions import find_network
from autoseg.network.unet import build_network
from autoseg.plan import Configuration


def make_network(configuration: Configuration, seed: int, error: type[AutosegError] = UsageError) -> nn.Module:
    """Makes the network of a configuration, in training mode, on the CPU; the same seed gives the same weights.

    Args:
        configuration: The plan's.
        seed: Of the weights; torch's own generator, from which other packages draw, is left as it was.
        error: What is raised: `ModelError` for a model.

    Raises:
        AutosegError: There is no such network here, or what is there is none.
    """
    own = configuration.network
    if own is None:
        return build_network(configuration.architecture, torch.Generator().manual_seed(seed))
    build = find_network(own.name, error)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: object = build(configuration.architecture, own.given)
    if not isinstance(network, nn.Module):
        raise error(f"the network {own.name!r} is a {type(network).__name__}", "let it build a torch.nn.Module")
    return network.train()
