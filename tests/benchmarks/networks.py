"""The networks of the literature beside the usual one: what each costs, and what it learns within one equal time.

    python tests/benchmarks/networks.py [--patch 48 64 48] [--steps 4] [--only vnet unet_3d]
    python tests/benchmarks/networks.py --dataset 4 --workspace FOLDER --budget 30m [--preset small]

Weights, multiply-adds of a patch forwards, the estimated memory of a training step with two patches, and seconds of
such a step on two cores of a CPU, the first of which does not count; networks of planes get the last two edges of the
patch. With a dataset that was imported into a workspace, each network is planned, and trained for the budget on fold 0
with everything else equal, and the mean Dice of the held-out cases stands in the last column. Prints a table in
Markdown for RESULTS.md.
"""

import argparse
import os
import time
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import autoseg
from autoseg.dataloading.batch import Batch
from autoseg.imaging.targets import Targets
from autoseg.networks.architecture import Architecture
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.networks.default_unet import build_network
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.torch_network import build_torch_network
from autoseg.planning.memory import training_bytes
from autoseg.planning.plugins import Plugin
from autoseg.planning.presets import PRESETS
from autoseg.planning.settings import LossSettings, TrainingSettings
from autoseg.planning.topology import choose_topology, design_network
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step
from autoseg.training.losses import Loss
from autoseg.training.ranks import ALONE
from autoseg.training.state import start_training

CORES, PATCHES, CLASSES = 2, 2, 3
USUAL = "usual"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to be measured: as a plan has it, and how to make one."""

    name: str
    architecture: Architecture
    named: Plugin | None
    patch: tuple[int, ...]

    @property
    def auxiliary_outputs(self) -> tuple[AuxiliaryOutput, ...]:
        """What its last outputs of training stand for, if not for the labels."""
        if self.named is None:
            return ()
        spec = NETWORKS[self.named.name]
        return spec.auxiliary_outputs(spec.parse(self.named.settings))

    def make(self) -> nn.Module:
        """With fresh weights."""
        if self.named is None:
            return build_network(self.architecture)
        return build_torch_network(NETWORKS[self.named.name], self.architecture, self.named.settings)


def main() -> None:
    """Measures one network after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--steps", type=int, default=4, help="the first of which does not count")
    parser.add_argument("--only", nargs="+", choices=[USUAL, *NETWORKS], default=[USUAL, *NETWORKS])
    parser.add_argument("--dataset", type=int, help="number of an imported dataset, for the Dice")
    parser.add_argument("--workspace")
    parser.add_argument("--budget", default="30m", help="training time of each network")
    parser.add_argument("--preset", default="small")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    print("| network | images | weights | multiply-adds of a patch | memory of a step | seconds of a step | Dice |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in arguments.only:
        for subject in subjects(name, tuple(arguments.patch), arguments.preset):
            dice = "" if arguments.dataset is None else f"{learn(subject, arguments):.4f}"
            print(f"| {' | '.join([*costs(subject), f'{seconds(subject, arguments.steps):.2f}', dice])} |", flush=True)


def subjects(name: str, patch: tuple[int, ...], preset: str) -> list[Subject]:
    """A network in 3D, in 2D, or both; the usual one is that of the preset, in 3D."""
    if name == USUAL:
        topology = choose_topology((1.0,) * 3, tuple(map(float, patch)))
        options = {"in_channels": 1, "out_channels": CLASSES}
        usual = design_network(topology.strides, topology.kernels, PRESETS[preset], **options)
        return [Subject(name=name, architecture=usual, named=None, patch=topology.patch_size)]
    spec, found = NETWORKS[name], []
    for dimensions in reversed(spec.dimensions):
        divisor = spec.divisor({}, dimensions)
        edges = tuple(-(-edge // step) * step for edge, step in zip(patch[-dimensions:], divisor, strict=True))
        named = Plugin(name=name, settings=spec.adapt_to_patch({}, edges))
        outline = spec.make_architecture(named.settings, dimensions, in_channels=1, out_channels=CLASSES)
        found.append(Subject(name=name, architecture=outline, named=named, patch=edges))
    return found


def costs(subject: Subject) -> list[str]:
    """What can be counted without running anything."""
    weights = sum(one.numel() for one in subject.make().parameters())
    taken = training_bytes(subject.architecture, subject.patch, PATCHES, subject.named)
    return [
        subject.name,
        " x ".join(map(str, subject.patch)),
        f"{weights:,}",
        f"{multiply_adds(subject) / 1e9:.1f} G",
        f"{taken / 1e9:.2f} GB",
    ]


def multiply_adds(subject: Subject) -> int:
    """Of a patch forwards: as the network is sketched, the usual one on torch's meta device."""
    if subject.named is not None:
        spec = NETWORKS[subject.named.name]
        return spec.count(subject.named.settings, subject.architecture, subject.patch).multiply_adds
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject.make().to("meta")(torch.empty(1, 1, *subject.patch, device="meta"))
    return counter.get_total_flops() // 2


def seconds(subject: Subject, steps: int) -> float:
    """The program's own step: forward, loss, backward, clipping, optimizer; in the precision of the CPU."""
    settings, device = TrainingSettings(), torch.device("cpu")
    network = subject.make()
    state = start_training(network, settings, device, scaled=False)
    state.forward = state.plain_forward = network
    targets = Targets.of_labels({str(label): label for label in range(1, CLASSES)})
    run = SimpleNamespace(
        settings=settings,
        loss=Loss(
            targets=targets, settings=LossSettings(), batch_dice=False, auxiliary_outputs=subject.auxiliary_outputs
        ),
        device=device,
        training=SimpleNamespace(configuration=SimpleNamespace(architecture=subject.architecture), seed=(0, 0)),
        ranks=ALONE,
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(PATCHES, 1, *subject.patch, generator=generator)
    labels = torch.randint(CLASSES, (PATCHES, *subject.patch), generator=generator)
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        train_step(state, Batch(images=images, labels=labels), run, SILENT)
        taken.append(time.perf_counter() - started)
    return median(taken[1:])


def learn(subject: Subject, arguments: argparse.Namespace) -> float:
    """Mean Dice of the held-out cases of fold 0 after the budget."""
    configuration = "3d_fullres" if len(subject.patch) == 3 else "2d"
    plan_name = f"{subject.name}_{len(subject.patch)}d"
    autoseg.plan_and_preprocess(
        arguments.dataset,
        configurations=[configuration],
        preset=arguments.preset,
        network=None if subject.named is None else subject.named.name,
        plan_name=plan_name,
        workspace=arguments.workspace,
    )
    summary = autoseg.train(
        arguments.dataset,
        configuration,
        0,
        budget=arguments.budget,
        device="cpu",
        plan_name=plan_name,
        workspace=arguments.workspace,
    )
    return summary.foreground_mean.dice


if __name__ == "__main__":
    main()
