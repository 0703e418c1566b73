"""A tile and a training patch alone, and beside others, with and without the program's own path for single samples.

    python tests/benchmarks/single_tiles.py [--patch 40 56 40] [--rounds 5]

Set ONEDNN_MAX_CPU_ISA=AVX2 where the processor has bfloat16. In float32 torch leaves a single sample of small maps to
its own slow convolution, see `autoseg.networks.convolutions`.
The table gives the milliseconds of processor time of a tile or patch, of all threads together, by the small 3D network
in float32; the variants take turns, and the fastest of the rounds counts.
"""

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from measured_on import print_machine

from autoseg.networks import convolutions
from autoseg.networks.default_unet import UNet, build_network
from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import design_network

STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
KERNELS = ((3, 3, 3),) * len(STRIDES)
PATHS: dict[str, Callable[..., bool]] = {
    "torch's path": lambda *_: False,
    "the program's path": convolutions.is_left_to_torch,
}


def main() -> None:
    """Times each number of samples on each path and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are measured, after one that warms up")
    arguments = parser.parse_args()
    print_machine()
    architecture = design_network(STRIDES, KERNELS, PRESETS["small"], in_channels=1, out_channels=3)
    network = build_network(architecture, torch.Generator().manual_seed(0))
    print("| what | samples | torch's path, ms of a sample | the program's path, ms of a sample |\n|---|---|---|---|")
    for name, run, counts in (("tile", predict, (1, 2, 8)), ("training patch", train, (1, 2))):
        for samples in counts:
            times: dict[str, list[float]] = {path: [] for path in PATHS}
            for _ in range(1 + arguments.rounds):
                for path, is_left_to_torch in PATHS.items():
                    with patch.object(convolutions, "is_left_to_torch", is_left_to_torch):
                        times[path].append(run(network, torch.randn(samples, 1, *arguments.patch)) / samples)
            cells = " | ".join(f"{1000 * min(seconds[1:]):.0f}" for seconds in times.values())
            print(f"| {name} | {samples} | {cells} |", flush=True)


def predict(network: UNet, image: torch.Tensor) -> float:
    """Returns the seconds of processor time of a forward pass without gradients."""
    start = time.process_time()
    with torch.inference_mode():
        network.eval()(image)
    return time.process_time() - start


def train(network: UNet, image: torch.Tensor) -> float:
    """Returns the seconds of processor time of a forward and a backward pass."""
    start = time.process_time()
    loss = sum(logits.square().mean() for logits in network.train()(image))
    loss.backward()
    network.zero_grad()
    return time.process_time() - start


if __name__ == "__main__":
    main()
