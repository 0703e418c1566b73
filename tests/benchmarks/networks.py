"""The networks of the literature beside the usual one: the cost of each, and its Dice after the same training time.

    python tests/benchmarks/networks.py [--patch 48 64 48] [--steps 4] [--only vnet unet_3d]
    python tests/benchmarks/networks.py --dataset 4 --workspace FOLDER --budget 30m [--preset small]

The columns are the number of weights, the multiply-adds of a forward pass of a patch, the estimated memory of a
training step with two patches, and the seconds of such a step on two cores of a CPU, the first of which does not count.
2D networks get the last two edges of the patch. With a dataset that was imported into a workspace, each network is
planned and trained for the budget on fold 0 with everything else equal; the last column then holds the mean Dice of the
held-out cases. Prints a table in Markdown for RESULTS.md.
"""

import argparse
import time
from dataclasses import dataclass
from statistics import median

import torch
from measured_on import print_machine
from programs import CORES, limit_cores
from single_batch_run import make_single_batch_run
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
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.memory import training_bytes
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.presets import PRESETS
from autoseg.planning.settings import TrainingSettings
from autoseg.planning.topology import choose_topology, design_network
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step
from autoseg.training.losses import Loss
from autoseg.training.state import start_training

PATCHES, CLASSES = 2, 3
USUAL = "usual"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to be measured.

    Attributes:
        name: Name for the table.
        architecture: Architecture as a plan has it.
        plugin: Name and settings of a network of the literature; None for the usual network.
        patch: Shape of a patch, (z, y, x) or (y, x).
    """

    name: str
    architecture: Architecture
    plugin: Plugin | None
    patch: tuple[int, ...]

    @property
    def auxiliary_outputs(self) -> tuple[AuxiliaryOutput, ...]:
        """The outputs in training that stand for something else than the labels."""
        if self.plugin is None:
            return ()
        spec = NETWORKS[self.plugin.name]
        return spec.auxiliary_outputs(spec.parse(self.plugin.settings))

    def make(self) -> nn.Module:
        """Builds the network with random weights."""
        if self.plugin is None:
            return build_network(self.architecture)
        return build_torch_network(NETWORKS[self.plugin.name], self.architecture, self.plugin.settings)


def main() -> None:
    """Measures one network after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--steps", type=int, default=4, help="training steps, the first of which does not count")
    parser.add_argument("--only", nargs="+", choices=[USUAL, *NETWORKS], default=[USUAL, *NETWORKS])
    parser.add_argument("--dataset", type=int, help="number of an imported dataset, for the Dice")
    parser.add_argument("--workspace")
    parser.add_argument("--budget", default="30m", help="training time of each network")
    parser.add_argument("--preset", default="small")
    arguments = parser.parse_args()
    limit_cores()
    print_machine()
    torch.set_num_threads(CORES)
    print("| network | images | weights | multiply-adds of a patch | memory of a step | seconds of a step | Dice |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in arguments.only:
        for subject in subjects(name, tuple(arguments.patch), arguments.preset):
            dice = "" if arguments.dataset is None else f"{learn(subject, arguments):.4f}"
            print(f"| {' | '.join([*costs(subject), f'{seconds(subject, arguments.steps):.2f}', dice])} |", flush=True)


def subjects(name: str, patch: tuple[int, ...], preset: str) -> list[Subject]:
    """Returns a network in 3D, in 2D, or both; the usual one is that of the preset, in 3D."""
    if name == USUAL:
        topology = choose_topology((1.0,) * 3, tuple(map(float, patch)))
        options = {"in_channels": 1, "out_channels": CLASSES}
        usual = design_network(topology.strides, topology.kernels, PRESETS[preset], **options)
        return [Subject(name=name, architecture=usual, plugin=None, patch=topology.patch_size)]
    spec, networks = NETWORKS[name], []
    for dimensions in reversed(spec.dimensions):
        divisor = spec.divisor({}, dimensions)
        edges = tuple(-(-edge // step) * step for edge, step in zip(patch[-dimensions:], divisor, strict=True))
        plugin = Plugin(name=name, settings=spec.adapt_to_patch({}, edges))
        architecture = spec.make_architecture(plugin.settings, dimensions, in_channels=1, out_channels=CLASSES)
        networks.append(Subject(name=name, architecture=architecture, plugin=plugin, patch=edges))
    return networks


def costs(subject: Subject) -> list[str]:
    """Returns the first cells of a row, which are counted without running the network."""
    weights = sum(weight.numel() for weight in subject.make().parameters())
    memory = training_bytes(subject.architecture, subject.patch, PATCHES, subject.plugin)
    return [
        subject.name,
        " x ".join(map(str, subject.patch)),
        f"{weights:,}",
        f"{multiply_adds(subject) / 1e9:.1f} G",
        f"{memory / 1e9:.2f} GB",
    ]


def multiply_adds(subject: Subject) -> int:
    """Counts those of a forward pass of a patch: by the specification, of the usual network on torch's meta device."""
    if subject.plugin is not None:
        spec = NETWORKS[subject.plugin.name]
        return spec.count(subject.plugin.settings, subject.architecture, subject.patch).multiply_adds
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject.make().to("meta")(torch.empty(1, 1, *subject.patch, device="meta"))
    return counter.get_total_flops() // 2


def seconds(subject: Subject, steps: int) -> float:
    """Returns the seconds of a training step of the program, the median of all but the first.

    A step is forward, loss, backward, clipping and optimizer, in the precision of the CPU.
    """
    settings, device = TrainingSettings(), torch.device("cpu")
    network = subject.make()
    state = start_training(network, settings, device, scaled=False)
    state.forward = state.plain_forward = network
    targets = Targets.of_labels({str(label): label for label in range(1, CLASSES)})
    loss = Loss(targets=targets, settings=LossSettings(), batch_dice=False, auxiliary_outputs=subject.auxiliary_outputs)
    run = make_single_batch_run(
        subject.architecture, loss, patch=subject.patch, batch_size=PATCHES, device=device, settings=settings
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(PATCHES, 1, *subject.patch, generator=generator)
    labels = torch.randint(CLASSES, (PATCHES, *subject.patch), generator=generator)
    durations = []
    for _ in range(steps):
        started = time.perf_counter()
        train_step(state, Batch(images=images, labels=labels), run, SILENT)
        durations.append(time.perf_counter() - started)
    return median(durations[1:])


def learn(subject: Subject, arguments: argparse.Namespace) -> float:
    """Trains a network for the budget; returns the mean Dice of the held-out cases of fold 0."""
    configuration = "3d_fullres" if len(subject.patch) == 3 else "2d"
    plan_name = f"{subject.name}_{len(subject.patch)}d"
    autoseg.plan_and_preprocess(
        arguments.dataset,
        configurations=[configuration],
        preset=arguments.preset,
        network=None if subject.plugin is None else subject.plugin.name,
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
