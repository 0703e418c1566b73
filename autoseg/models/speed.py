"""A probe of about a second: how many multiply-adds a device calculates per second, forward and backward."""

import time
from collections.abc import Callable
from functools import lru_cache

import torch

from autoseg.networks.architecture import Architecture, count_multiply_adds
from autoseg.networks.default_unet import UNet, build_network
from autoseg.planning.cpu_preset import TWO_AVX2_CORES
from autoseg.planning.machine_speed import TRAINING_PASSES, MachineSpeed, describe_roughly
from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import choose_topology, design_network
from autoseg.runtime.device import autocast, exactly, precision, wait_for
from autoseg.runtime.machine import identify_machine

PATCH = (40, 56, 40)
"""Size in voxels of the patches of the probe: those of a hippocampus in `small`."""

BATCH = 2
"""Patches of a step of the preset `small`."""

ENOUGH_SECONDS = 0.6
"""Time after which no further pass is begun, in training and in prediction."""


@lru_cache(maxsize=8)
def measure_speed(device: torch.device, *, exact: bool = False) -> MachineSpeed:
    """Measures the speed of a device with the network of the preset `small`, in the precision that is used there.

    The fastest of several passes counts, because other programs can only slow one down. Each process measures a device
    once. It takes one or two seconds, or two passes in training and in prediction where these take longer.

    Args:
        device: The device.
        exact: Whether to calculate in float32 even where training takes a lower precision.
    """
    network, images, work = _make_probe(device)

    def train() -> None:
        with exactly(device) if exact else autocast(device):
            outputs = network.train()(images)
        sum(logits.float().square().mean() for logits in outputs).backward()
        network.zero_grad()

    return MachineSpeed(
        machine=identify_machine(),
        device=device.type,
        precision=name_precision(device, exact=exact),
        training=TRAINING_PASSES * work / time_fastest(train, device, enough_seconds=ENOUGH_SECONDS),
        prediction=measure_prediction_speed.__wrapped__(device, exact=exact),
    )


@lru_cache(maxsize=8)
def measure_prediction_speed(device: torch.device, *, exact: bool = False) -> float:
    """Measures the multiply-adds per second of predictions alone, which takes half of the time; see `measure_speed`."""
    network, images, work = _make_probe(device)

    @torch.inference_mode()
    def predict() -> None:
        with exactly(device) if exact else autocast(device):
            network.eval()(images)

    return work / time_fastest(predict, device, enough_seconds=ENOUGH_SECONDS)


def name_precision(device: torch.device, *, exact: bool) -> str:
    """Returns the number format in which networks calculate on a device, such as "bfloat16"."""
    return "float32" if exact else str(precision(device)).removeprefix("torch.")


def _make_probe(device: torch.device) -> tuple[UNet, torch.Tensor, int]:
    """Returns a network of the preset `small`, a batch, and the multiply-adds of its forward pass."""
    generator = torch.Generator().manual_seed(0)
    network = build_network(design_probe(), generator).to(device)
    images = torch.randn((BATCH, 1, *PATCH), generator=generator).to(device)  # zeros would make tiny, slow gradients
    return network, images, BATCH * count_multiply_adds(network.architecture, PATCH)


def measure_potential(device: torch.device) -> MachineSpeed:
    """Measures the speed that a device reaches when nothing else runs on it, as far as that can be told.

    Threads that share their cores with another program wait for each other, and all of them together may be slower
    than one alone. So a CPU that seems slow is measured with a single thread as well, and the faster speed counts. Use
    it for plans, which are to hold for longer than the present load.

    Args:
        device: The device.
    """
    speed, threads = measure_speed(device), torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or speed.training >= TWO_AVX2_CORES:
        return speed
    torch.set_num_threads(1)
    try:
        alone = measure_speed.__wrapped__(device)
    finally:
        torch.set_num_threads(threads)
    return max(speed, alone, key=lambda measured: measured.training)


def design_probe() -> Architecture:
    """Returns the network that the preset `small` has for the patches of the probe."""
    topology = choose_topology((1.0, 1.0, 1.0), tuple(map(float, PATCH)))
    return design_network(topology.strides, topology.kernels, PRESETS["small"], in_channels=1, out_channels=3)


def describe_use(speed: MachineSpeed) -> str:
    """Returns how long a training step of the preset `small` takes at a speed, and a fold of hippocampi, in words."""
    settings = PRESETS["small"].training
    step_seconds = speed.step_seconds(count_multiply_adds(design_probe(), PATCH), BATCH)
    fold = describe_roughly(step_seconds * settings.epochs * settings.steps_per_epoch)
    step = f"preset small: about {describe_roughly(step_seconds)} per training step"
    return f"{step}, a fold of hippocampus in about {fold}; {speed.describe()}"


def time_fastest(run: Callable[[], None], device: torch.device, *, enough_seconds: float) -> float:
    """Returns the seconds of the fastest of several calls, without the first.

    Args:
        run: Work on the device.
        device: The device, which is waited for.
        enough_seconds: Time after which no further call begins.
    """

    def time_pass() -> float:
        wait_for(device)
        started = time.perf_counter()
        run()
        wait_for(device)
        return time.perf_counter() - started

    time_pass()  # the first pass chooses algorithms
    end = time.perf_counter() + enough_seconds
    fastest = time_pass()
    while time.perf_counter() < end:
        fastest = min(fastest, time_pass())
    return fastest
