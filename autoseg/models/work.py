"""The work of any network for a patch: counted by planning where it can, else by torch on shapes alone."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from autoseg.errors import AutosegError
from autoseg.models.build import make_network
from autoseg.planning.machine_speed import count_patch_work
from autoseg.planning.plan import Configuration


def measure_patch_work(configuration: Configuration, patch_size: Sequence[int] | None = None) -> int | None:
    """Returns the multiply-adds of the forward pass of a patch, for networks of MONAI and of packages as well.

    Args:
        configuration: The configuration.
        patch_size: Size of the patch; left out, that of the configuration.

    Returns:
        None if the network cannot be counted: it is not installed, or calculates what depends on values.
    """
    work = count_patch_work(configuration, patch_size)
    if work is not None:
        return work
    return _count_on_shapes(
        configuration.model_dump_json(), tuple(configuration.patch_size if patch_size is None else patch_size)
    )


@lru_cache(maxsize=8)
def _count_on_shapes(configuration_json: str, patch_size: tuple[int, ...]) -> int | None:
    """Runs a network on torch's meta device, which has shapes but no values, and counts."""
    configuration = Configuration.model_validate_json(configuration_json)
    channels = configuration.architecture.in_channels
    try:
        network = make_network(configuration, seed=0).to("meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, channels, *patch_size, device="meta"))
    except (AutosegError, RuntimeError, NotImplementedError, ValueError, TypeError):
        return None
    return int(counter.get_total_flops()) // 2 or None
