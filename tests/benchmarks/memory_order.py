"""One training step of the small 3D network with the channels last in memory, and without.

    python tests/benchmarks/memory_order.py [--patch 40 56 40] [--steps 15]

Two patches, forward and backward, on the CPU, or on a CUDA GPU if there is one; in the precision of the device and in
float32. The orders take turns, so that other programs disturb all of them alike; the table gives the fastest step of
each, since other programs can only slow one down.
"""

import argparse
import time
from contextlib import nullcontext

import torch
from measured_on import print_machine

from autoseg.networks import default_unet
from autoseg.networks.default_unet import UNet, build_network
from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import design_network
from autoseg.runtime.device import autocast, resolve_device

WARM_UP = 3
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
KERNELS = ((3, 3, 3),) * len(STRIDES)

put_channels_last = default_unet.channels_last


def main() -> None:
    """Times each order in each precision and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    parser.add_argument("--steps", type=int, default=15, help="steps of each kind, beside those that warm up")
    arguments = parser.parse_args()
    device = resolve_device("auto")
    print_machine(device)
    architecture = design_network(STRIDES, KERNELS, PRESETS["small"], in_channels=1, out_channels=3)
    image = torch.randn(2, 1, *arguments.patch, device=device)
    print("| precision | order of maps | order of weights | ms per step |\n|---|---|---|---|")
    for name, context in (("of the device", autocast), ("float32", lambda _: nullcontext())):
        networks: dict[tuple[str, str], tuple[UNet, list[float]]] = {}
        for order in (("voxels last", "voxels last"), ("channels last", "voxels last"), ("channels last",) * 2):
            network = build_network(architecture, torch.Generator().manual_seed(0)).to(device)
            if order[1] == "channels last":
                network.put_channels_last()
            networks[order] = network, []
        for _ in range(WARM_UP + arguments.steps):
            for order, (network, seconds) in networks.items():
                default_unet.channels_last = put_channels_last if order[0] == "channels last" else torch.clone
                with context(device):
                    seconds.append(time_step(network, image))
        for (maps, weights), (_, seconds) in networks.items():
            print(f"| {name} | {maps} | {weights} | {1000 * min(seconds[WARM_UP:]):.1f} |")


def time_step(network: UNet, image: torch.Tensor) -> float:
    """Returns the seconds of one forward and backward pass."""
    start = time.perf_counter()
    loss = sum(logits.float().square().mean() for logits in network(image))
    loss.backward()
    network.zero_grad()
    if image.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
