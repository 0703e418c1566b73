"""The multiply-adds per second of the small network's training, with all its features and with half of them.

    python tests/benchmarks/narrow_networks.py [--patch 40 56 40] [--rounds 5]

Set ONEDNN_MAX_CPU_ISA=AVX2 and ATEN_CPU_CAPABILITY=avx2 to hold a processor to AVX2. Times forward pass, backward pass
and optimizer in float32 at each size of patches that grow, with the batches that they have; the widths take turns, and
the median of the rounds counts. Prints a table in Markdown.
"""

import argparse
import statistics
import time

import torch
from measured_on import print_machine
from single_tiles import KERNELS, STRIDES

from autoseg.networks.architecture import Architecture, count_multiply_adds
from autoseg.networks.default_unet import build_network
from autoseg.networks.patch_sizes import PatchSizes
from autoseg.planning.machine_speed import TRAINING_PASSES
from autoseg.planning.patch_growth import PatchStage, grow_patches
from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import design_network

BATCH = 2


def main() -> None:
    """Times both widths and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are measured, after one that warms up")
    arguments = parser.parse_args()
    print_machine()
    whole = design_network(STRIDES, KERNELS, PRESETS["small"], in_channels=1, out_channels=3)
    patches = PatchSizes.divisible_by((8, 8, 8))
    last = PatchStage(patch_size=tuple(arguments.patch), batch_size=BATCH)
    stages = [*grow_patches(arguments.patch, BATCH, patches), last]
    seconds: dict[str, list[float]] = {"all features": [], "half the features": []}
    works = {}
    for _ in range(1 + arguments.rounds):
        for name, architecture in (("all features", whole), ("half the features", halve(whole))):
            seconds[name].append(time_steps(architecture, stages))
            works[name] = sum(
                TRAINING_PASSES * stage.batch_size * count_multiply_adds(architecture, stage.patch_size)
                for stage in stages
            )
    print(
        "| network | mean step, ms | 10^9 multiply-adds of it | 10^9 multiply-adds per second |\n|---|---:|---:|---:|"
    )
    for name, measured in seconds.items():
        middle = statistics.median(measured[1:])
        print(
            f"| {name} | {1000 * middle / len(stages):.0f} | {works[name] / len(stages) / 1e9:.2f} "
            f"| {works[name] / middle / 1e9:.0f} |"
        )


def halve(architecture: Architecture) -> Architecture:
    """Returns the network with half the features."""
    stages = tuple(stage.model_copy(update={"features": stage.features // 2}) for stage in architecture.stages)
    return architecture.model_copy(update={"stages": stages})


def time_steps(architecture: Architecture, stages: list[PatchStage]) -> float:
    """Returns the seconds of a training step at each stage, after one that warms up, in sum."""
    network = build_network(architecture, torch.Generator().manual_seed(0)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)
    total = 0.0
    for stage in stages:
        images = torch.randn(stage.batch_size, 1, *stage.patch_size)
        for is_warm in (False, True):
            start = time.perf_counter()
            optimizer.zero_grad()
            sum(logits.square().mean() for logits in network(images)).backward()
            optimizer.step()
            total += is_warm * (time.perf_counter() - start)
    return total


if __name__ == "__main__":
    main()
