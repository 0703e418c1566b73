"""Networks of several sizes, compared in one run on real data: the accuracy and the cost of width and depth.

    python tests/benchmarks/network_sizes.py WORKSPACE [--steps 1500]

WORKSPACE holds the preprocessed hippocampus dataset that `hippocampus.py` leaves behind, by the small preset. Each
network trains fold 0 for the same number of steps on the same patches, its learning rate annealed to the end; the table
gives the Dice of held-out patches and the seconds per step. The last row differs from the first in its seed only, and
shows how far the Dice varies by chance (by about 0.002).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from measured_on import print_machine
from small_schedule import CPU, DATASET, make_run

from autoseg.networks.architecture import Architecture
from autoseg.networks.default_unet import build_network
from autoseg.planning.memory import count_weights
from autoseg.planning.plan import Plan
from autoseg.planning.presets import PRESETS, Limits, Preset
from autoseg.planning.topology import design_network
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_fold
from autoseg.training.state import start_training
from autoseg.workspace import Workspace

SMALL = PRESETS["small"]
NETWORKS: dict[str, tuple[Preset, int]] = {
    "16 to 128 features, 1-2-2-2 convolutions (small)": (SMALL, 0),
    "deeper: 1-2-3-3 convolutions": (replace(SMALL, convolutions=(1, 2, 3)), 0),
    "deeper: 1-2-2-2 in blocks, two from the second stage on": (replace(SMALL, blocks=(1, 2)), 0),
    "wider: 24 to 192 features": (replace(SMALL, base_features=24, volume=Limits(features=192)), 0),
    "narrower: 12 to 96 features": (replace(SMALL, base_features=12, volume=Limits(features=96)), 0),
    "plain: 2-2-2-2 convolutions, no residuals": (replace(SMALL, residual="none", convolutions=(2,)), 0),
    "small again, other seed": (SMALL, 1),
}


def main() -> None:
    """Trains each network in turn and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    print_machine()
    folders = Workspace(root=arguments.workspace).folders(DATASET)
    run = make_run(folders, Plan.load(folders.plan), seconds=1)
    length = {"budget_seconds": None, "epochs": 1, "steps_per_epoch": arguments.steps}
    run = replace(run, settings=run.settings.model_copy(update=length))
    planned = run.training.configuration.architecture
    print("| network | thousand weights | Dice of held-out patches | seconds per step |\n|---|---|---|---|", flush=True)
    for name, (preset, seed) in NETWORKS.items():
        architecture = design_like(planned, preset)
        network = build_network(architecture, torch.Generator().manual_seed(seed))
        state = start_training(network, run.settings, CPU, scaled=False)
        train_fold(state, run, SILENT, lambda _: None)
        dice = state.reports[-1].mean_pseudo_dice
        weights, seconds = count_weights(architecture) / 1000, state.elapsed_seconds / arguments.steps
        print(f"| {name} | {weights:.0f} | {dice:.4f} | {seconds:.3f} |", flush=True)


def design_like(planned: Architecture, preset: Preset) -> Architecture:
    """Returns the network of another preset for the same patches."""
    strides = tuple(stage.stride for stage in planned.stages)
    kernels = tuple(stage.kernel for stage in planned.stages)
    return design_network(strides, kernels, preset, in_channels=planned.in_channels, out_channels=planned.out_channels)


if __name__ == "__main__":
    main()
