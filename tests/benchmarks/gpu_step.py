"""A training step beside its convolutions alone, one after the other: the multiply-adds per second of both.

    python tests/benchmarks/gpu_step.py [--device cpu --patch 32 32 32] [--batch 2] [--preset small]

Times one step of the network that nnU-Net plans for 128 x 128 x 128 voxels, batch 2, or of another preset, and the
forward and backward passes of its convolutions alone in the same precision. Prints a table in Markdown;
gpu_training.py measures the same for its own table.
"""

import argparse
import time
from types import SimpleNamespace
from typing import NamedTuple

import torch
from measured_on import print_machine
from single_batch_run import make_single_batch_run
from torch import nn

from autoseg.dataloading.batch import Batch
from autoseg.imaging.targets import Targets
from autoseg.networks.architecture import Architecture, Axes
from autoseg.networks.blocks import Upsampling
from autoseg.networks.default_unet import UNet, build_network
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.presets import PRESETS
from autoseg.planning.settings import TrainingSettings
from autoseg.planning.topology import design_network
from autoseg.runtime.device import autocast, needs_scaling, precision, resolve_device
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step
from autoseg.training.losses import Loss
from autoseg.training.state import start_training

STAGES = 6
WARM_UP, STEPS = 5, 20
AIMS = "aim: 70 % on a GPU, 85 % on a CPU"


class Timed(NamedTuple):
    """Seconds of a step and of its convolutions alone, and the multiply-adds of both."""

    step: float
    alone: float
    products: int

    @property
    def share(self) -> float:
        """Multiply-adds per second of the step, divided by those of its convolutions alone."""
        return self.alone / self.step


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128), metavar=("Z", "Y", "X"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--preset", choices=("plain", "small"), default="plain")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    print_machine(device)
    timed = compare_step(device, tuple(arguments.patch), arguments.batch, arguments.preset)
    print("| quantity | ms | 10^12 multiply-adds per second |\n|---|---|---|")
    for name, seconds in (("step", timed.step), ("its convolutions alone", timed.alone)):
        print(f"| {name} | {1000 * seconds:.1f} | {timed.products / seconds / 1e12:.2f} |")
    print(f"\nThe step does **{timed.share:.0%}** of the multiply-adds per second of its convolutions ({AIMS}).")


def compare_step(device: torch.device, patch: Axes, batch_size: int, preset: str = "plain") -> Timed:
    """Times a step and its convolutions alone."""
    stages = min(STAGES, (min(patch) // 4).bit_length())  # at least four voxels are left along each axis
    strides = ((1, 1, 1), *((2, 2, 2),) * (stages - 1))
    architecture = design_network(strides, ((3, 3, 3),) * stages, PRESETS[preset], in_channels=1, out_channels=3)
    convolutions = find_convolutions(architecture, patch)
    return Timed(
        step=time_step(architecture, device, patch, batch_size),
        alone=sum(time_convolution(convolution, device, batch_size) for convolution in convolutions),
        # forward, and backward to the weights and to the maps
        products=3 * batch_size * sum(convolution.products for convolution in convolutions),
    )


def find_convolutions(architecture: Architecture, patch: Axes) -> list[SimpleNamespace]:
    """Returns each convolution of the network, with the shape of its input and its multiply-adds for one patch."""
    convolutions = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights = module.weight.numel()
        voxels = (inputs[0] if isinstance(module, Upsampling) else output).shape[2:].numel()
        convolutions.append(SimpleNamespace(module=module, shape=tuple(inputs[0].shape[1:]), products=weights * voxels))

    with torch.device("meta"):
        network = UNet(architecture)
        kinds = nn.Conv2d | nn.Conv3d | Upsampling
        watched = [module for module in network.modules() if isinstance(module, kinds)]
        hooks = [module.register_forward_hook(note) for module in watched]
        network(torch.empty(1, architecture.in_channels, *patch))
    for hook in hooks:
        hook.remove()
    return convolutions


def time_step(architecture: Architecture, device: torch.device, patch: Axes, batch_size: int) -> float:
    """Returns the seconds of a training step, the median of several."""
    settings = TrainingSettings(epochs=1000)
    network = build_network(architecture, torch.Generator().manual_seed(0))
    state = start_training(network, settings, device, scaled=needs_scaling(device))
    loss = Loss(targets=Targets.of_labels({"a": 1, "b": 2}), settings=LossSettings(), batch_dice=False)
    run = make_single_batch_run(
        architecture, loss, patch=patch, batch_size=batch_size, device=device, settings=settings
    )
    images = torch.randn(batch_size, architecture.in_channels, *patch, device=device)
    batch = Batch(images=images, labels=torch.randint(0, 3, (batch_size, *patch), device=device))
    return clock(lambda: train_step(state, batch, run, SILENT), device)


def time_convolution(convolution: SimpleNamespace, device: torch.device, batch_size: int) -> float:
    """Returns the seconds of the forward and backward pass of a convolution, the median of several.

    Its feature maps have the precision of the device, as those that the layers of a network pass on; the weights are
    rounded to it in each call, as in each step.
    """
    module = convolution.module.to_empty(device=device)
    for weights in module.parameters():
        nn.init.normal_(weights, std=0.01)
    order = torch.channels_last if len(convolution.shape) == 3 else torch.channels_last_3d
    module = module.to(memory_format=order)  # the order in which the network has its maps
    maps = torch.randn(batch_size, *convolution.shape, device=device, dtype=precision(device))
    maps = maps.to(memory_format=order).requires_grad_(convolution.shape[0] > 1)

    def forward_and_backward() -> None:
        with autocast(device):
            out = module(maps)
        out.backward(torch.ones_like(out))

    return clock(forward_and_backward, device)


def clock(work, device: torch.device) -> float:
    """Returns the seconds until the device has done all work of a call, the median of several calls."""
    seconds = []
    warm_up, steps = (WARM_UP, STEPS) if device.type == "cuda" else (2, 7)
    for _ in range(warm_up + steps):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds[warm_up:])[steps // 2]


if __name__ == "__main__":
    main()
