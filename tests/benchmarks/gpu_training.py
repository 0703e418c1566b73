"""Training on a GPU: epochs beside nnU-Net's, waiting for data, and how near a step is to its convolutions.

    python tests/benchmarks/gpu_training.py WORKSPACE --numbers 4 901 [--nnunet PATH/TO/python] [--cores 4]
    python tests/benchmarks/gpu_training.py WORKSPACE --step [--device cpu --patch 32 32 32]

The first form trains the first fold of "3d_fullres" of datasets that are planned with `--rules nnunet` and preprocessed
in the workspace, for some epochs; nnU-Net, if there is one, trains the same with its own benchmark trainer, from its
folders nnunet_preprocessed and nnunet_results in the workspace (see preprocessing.py, which leaves both so). The
fastest epoch of each counts; --cores leaves that many to both. The second form times one step of the network that
nnU-Net plans for 128 x 128 x 128 voxels, batch 2, and the same convolutions alone, back to back, forth and back, in the
same precision. Prints tables in Markdown for RESULTS.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from fingerprint import reference_folders
from torch import nn

from autoseg.architecture import Architecture, Axes
from autoseg.data.loader import Batch
from autoseg.device import autocast, needs_scaling, resolve_device
from autoseg.network.blocks import Upsampling
from autoseg.network.unet import UNet, build_network
from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import design_network
from autoseg.reporting import SILENT
from autoseg.settings import LossSettings, TrainingSettings
from autoseg.targets import Targets
from autoseg.training.loop import train_step
from autoseg.training.losses import Loss
from autoseg.training.ranks import ALONE
from autoseg.training.state import start_training
from autoseg.workspace import Workspace

NAME = "3d_fullres"
EPOCHS = 5  # As many as nnU-Net's benchmark trainer trains
STAGES = 6
WARM_UP, STEPS = 5, 20


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--numbers", type=int, nargs="*", default=(), help="datasets to train")
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--cores", type=int, help="that both programs may use")
    parser.add_argument("--step", action="store_true", help="time a step and its convolutions")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128), metavar=("Z", "Y", "X"))
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    if arguments.numbers:
        compare_epochs(arguments)
    if arguments.step:
        compare_step(resolve_device(arguments.device), tuple(arguments.patch), arguments.batch)


def compare_epochs(arguments: argparse.Namespace) -> None:
    """Trains some epochs with both programs and prints their seconds."""
    workspace = Workspace(root=arguments.workspace.resolve())
    print("| dataset | autoseg, s per epoch | nnU-Net, s | times | waits for data |\n|---|---|---|---|---|")
    for number in arguments.numbers:
        ours, waiting = train_ours(workspace, number, arguments.device)
        theirs = train_theirs(workspace, number, arguments.nnunet) if arguments.nnunet else None
        ratio = "-" if theirs is None else f"**{theirs / ours:.1f}**"
        print(f"| {number} | {ours:.2f} | {'-' if theirs is None else f'{theirs:.2f}'} | {ratio} | {waiting:.1%} |")


def train_ours(workspace: Workspace, number: int, device: str) -> tuple[float, float]:
    """Seconds of the fastest epoch, and the share of it that waited for data."""
    words = [sys.executable, "-m", "autoseg", "train", "-d", number, "-c", NAME, "-f", 0, "--epochs", EPOCHS]
    subprocess.run([*map(str, words), "--restart", "--device", device, "-w", str(workspace.root)], check=True)
    path = workspace.dataset(number).model(NAME).progress(0, "jsonl")
    epochs = [json.loads(line) for line in path.read_text().splitlines()]
    fastest = min(epochs, key=lambda epoch: epoch["seconds"])
    return fastest["seconds"], fastest["waiting_share"]


def train_theirs(workspace: Workspace, number: int, python: Path) -> float:
    """Seconds of the fastest epoch by nnU-Net's own benchmark trainer."""
    environment = {**os.environ, **{name: str(path) for name, path in reference_folders(workspace).items()}}
    trainer = "nnUNetTrainerBenchmark_5epochs"
    command = [str(python.with_name("nnUNetv2_train")), str(number), NAME, "0", "-tr", trainer]
    subprocess.run(command, check=True, env=environment)
    results = reference_folders(workspace)["nnUNet_results"]
    [found] = results.glob(f"Dataset{number:03d}_*/{trainer}__*__{NAME}/fold_0/benchmark_result.json")
    return min(float(one["fastest_epoch"]) for one in json.loads(found.read_text()).values())


def compare_step(device: torch.device, patch: Axes, batch_size: int) -> None:
    """Times a step and its convolutions alone, and prints the multiply-adds per second of both."""
    stages = min(STAGES, (min(patch) // 4).bit_length())  # at least four voxels are left along each axis
    strides = ((1, 1, 1), *((2, 2, 2),) * (stages - 1))
    architecture = design_network(strides, ((3, 3, 3),) * stages, PRESETS["plain"], in_channels=1, out_channels=3)
    convolutions = find_convolutions(architecture, patch)
    products = 3 * batch_size * sum(one.products for one in convolutions)  # forth, and back to weights and maps
    step = time_step(architecture, device, patch, batch_size)
    alone = sum(time_convolution(one, device, batch_size) for one in convolutions)
    print("| what | ms | 10^12 multiply-adds per second |\n|---|---|---|")
    for name, seconds in (("step", step), ("its convolutions alone", alone)):
        print(f"| {name} | {1000 * seconds:.1f} | {products / seconds / 1e12:.2f} |")
    print(f"\nThe step does **{alone / step:.0%}** of the multiply-adds per second of its convolutions (aim: 70 %).")


def find_convolutions(architecture: Architecture, patch: Axes) -> list[SimpleNamespace]:
    """Each convolution of the network, with the shape of what it gets and its multiply-adds for one patch."""
    found = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights = module.weight.numel()
        voxels = (inputs[0] if isinstance(module, Upsampling) else output).shape[2:].numel()
        found.append(SimpleNamespace(module=module, shape=tuple(inputs[0].shape[1:]), products=weights * voxels))

    with torch.device("meta"):
        network = UNet(architecture)
        watched = [module for module in network.modules() if isinstance(module, nn.Conv3d | Upsampling)]
        hooks = [module.register_forward_hook(note) for module in watched]
        network(torch.empty(1, architecture.in_channels, *patch))
    for hook in hooks:
        hook.remove()
    return found


def time_step(architecture: Architecture, device: torch.device, patch: Axes, batch_size: int) -> float:
    """Seconds of a training step, the median of some."""
    settings = TrainingSettings(epochs=1000)
    network = build_network(architecture, torch.Generator().manual_seed(0))
    state = start_training(network, settings, device, scaled=needs_scaling(device))
    loss = Loss(targets=Targets.of_labels({"a": 1, "b": 2}), settings=LossSettings(), batch_dice=False)
    training = SimpleNamespace(configuration=SimpleNamespace(architecture=architecture))
    run = SimpleNamespace(settings=settings, loss=loss, device=device, training=training, ranks=ALONE)
    images = torch.randn(batch_size, architecture.in_channels, *patch, device=device)
    batch = Batch(images=images, labels=torch.randint(0, 3, (batch_size, *patch), device=device))
    return clock(lambda: train_step(state, batch, run, SILENT), device)


def time_convolution(one: SimpleNamespace, device: torch.device, batch_size: int) -> float:
    """Seconds of a convolution forth and back, the median of some."""
    module = one.module.to_empty(device=device)
    for weights in module.parameters():
        nn.init.normal_(weights, std=0.01)
    module = module.to(memory_format=torch.channels_last_3d)  # as the network has its maps
    maps = torch.randn(batch_size, *one.shape, device=device).to(memory_format=torch.channels_last_3d)
    maps.requires_grad_(one.shape[0] > 1)

    def there_and_back() -> None:
        with autocast(device):
            out = module(maps)
        out.backward(torch.ones_like(out))

    return clock(there_and_back, device)


def clock(work, device: torch.device) -> float:
    """Seconds of one call, the median of several, when the device has done all of it."""
    seconds = []
    warm_up, steps = (WARM_UP, STEPS) if device.type == "cuda" else (1, 3)
    for _ in range(warm_up + steps):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds[warm_up:])[steps // 2]


if __name__ == "__main__":
    main()
