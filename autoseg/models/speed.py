"""A probe of about a second: how many multiply-adds a device calculates per second, forward and backward."""

import time
from collections.abc import Callable
from functools import lru_cache

import torch

from autoseg.networks.architecture import count_multiply_adds
from autoseg.networks.default_unet import UNet, build_network
from autoseg.planning.machine_speed import TRAINING_PASSES, MachineSpeed
from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import choose_topology, design_network
from autoseg.runtime.device import autocast, exactly, precision, wait_for
from autoseg.runtime.machine import identify_machine

PATCH = (40, 56, 40)
"""Size in voxels of the patches of the probe: those of a hippocampus in `small`."""

BATCH = 2
"""Patches of a step of the preset `small`."""

LONG_PASS_SECONDS = 1.0
"""A first pass that takes longer counts, although it includes preparations; a shorter one does not."""

ENOUGH_SECONDS = 0.6
"""Time after which no further pass is begun, in training and in prediction."""


@lru_cache(maxsize=8)
def measure_speed(device: torch.device, *, exact: bool = False) -> MachineSpeed:
    """Measures the speed of a device with the network of the preset `small`, in the precision that is used there.

    The fastest of several passes counts, because other programs can only slow one down. Each process measures a device
    once. It takes one or two seconds; on a core that needs longer than a second for a pass, two passes.

    Args:
        device: The device.
        exact: Whether to calculate in float32 even where training takes a lower precision.
    """
    network, images = _make_network(device), torch.zeros(BATCH, 1, *PATCH, device=device)
    work = BATCH * count_multiply_adds(network.architecture, PATCH)

    def train() -> None:
        with exactly(device) if exact else autocast(device):
            outputs = network.train()(images)
        sum(logits.float().mean() for logits in outputs).backward()
        network.zero_grad()

    @torch.inference_mode()
    def predict() -> None:
        with exactly(device) if exact else autocast(device):
            network.eval()(images)

    return MachineSpeed(
        machine=identify_machine(),
        device=device.type,
        precision="float32" if exact else str(precision(device)).removeprefix("torch."),
        training=TRAINING_PASSES * work / _fastest_pass(train, device),
        prediction=work / _fastest_pass(predict, device),
    )


def _make_network(device: torch.device) -> UNet:
    """Returns the network that the preset `small` has for patches of the probe."""
    topology = choose_topology((1.0, 1.0, 1.0), tuple(map(float, PATCH)))
    architecture = design_network(topology.strides, topology.kernels, PRESETS["small"], in_channels=1, out_channels=3)
    return build_network(architecture, torch.Generator().manual_seed(0)).to(device)


def _fastest_pass(run: Callable[[], None], device: torch.device) -> float:
    """Returns the seconds of the fastest of several calls; the first does not count unless it is long."""

    def time_pass() -> float:
        wait_for(device)
        started = time.perf_counter()
        run()
        wait_for(device)
        return time.perf_counter() - started

    first = time_pass()
    if first > LONG_PASS_SECONDS:
        return first
    end = time.perf_counter() + ENOUGH_SECONDS
    fastest = time_pass()
    while time.perf_counter() < end:
        fastest = min(fastest, time_pass())
    return fastest
