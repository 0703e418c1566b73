"""The memory that a network takes for one tile, compared with the free memory of the machine."""

from math import prod

from autoseg.errors import AutosegError
from autoseg.planning.plan import Configuration
from autoseg.planning.prediction_memory import MAPS_AT_ONCE
from autoseg.runtime.arrays import Device, NumpyDevice
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.units import describe_memory


def check_tile_memory(configuration: Configuration, device: Device, *, exact: bool) -> None:
    """Refuses a tile whose feature maps do not fit into memory, for which the system would kill the program.

    Args:
        configuration: Configuration of the network.
        device: Device of the network; only the CPU is checked, since other devices raise an error themselves.
        exact: Whether the network calculates in float32.

    Raises:
        AutosegError: The feature maps are larger than the free memory.
    """
    free = free_memory_bytes() if device.type == "cpu" else None
    widest = configuration.architecture.stages[0].features
    needed = MAPS_AT_ONCE * widest * prod(configuration.patch_size) * _count_bytes(device, exact=exact)
    if free is not None and needed > free:
        tile = "tiles of " + " x ".join(map(str, configuration.patch_size))
        what = f"the network takes about {describe_memory(needed)} for {tile}, and {describe_memory(free)} are free"
        raise AutosegError(what, "close other programs, or take a machine with more memory")


def _count_bytes(device: Device, *, exact: bool) -> int:
    """Returns the number of bytes of a value of a feature map."""
    if exact or isinstance(device, NumpyDevice):
        return 4
    from autoseg.runtime.device import precision  # noqa: PLC0415 - it needs torch

    return precision(device).itemsize
