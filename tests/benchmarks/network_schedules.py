"""Schedules of the networks of the literature, compared in one run on real data: what does each learn in a minute?

    python tests/benchmarks/network_schedules.py WORKSPACE [--budget 60s] [--only vnet unet] [--preset small]

WORKSPACE holds the hippocampus dataset, prepared by `autoseg plan_and_preprocess -d 4 --preset small`. Each network is
planned for it in memory and trains fold 0 by each schedule, from the same initial weights on the same patches, with
the loss of its page; the table gives the Dice of held-out patches at the end. The pages' `training` was chosen by it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from autoseg.data.loader import Batches, open_cases
from autoseg.data.splits import Splits
from autoseg.data.store import StoredCase
from autoseg.extensions import Own
from autoseg.fingerprint import Fingerprint
from autoseg.info import DatasetInfo
from autoseg.network.making import make_network
from autoseg.networks.table import NETWORKS
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import PRESETS
from autoseg.reporting import SILENT
from autoseg.training.loop import train_fold
from autoseg.training.losses import Loss
from autoseg.training.run import Run
from autoseg.training.state import start_training
from autoseg.units import parse_duration
from autoseg.workspace import Workspace

CPU, DATASET = torch.device("cpu"), "Dataset004_Hippocampus"
GENTLE_RATES = (0.001, 0.0003, 0.0001)


def main() -> None:
    """Trains each network with each schedule and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    arguments = parser.parse_args()
    print("| network | images | schedule | steps | Dice of held-out patches |\n|---|---|---|---:|---:|", flush=True)
    usual = PRESETS[arguments.preset].training
    schedules = {"of the preset": {"optimizer": usual.optimizer, "learning_rate": usual.learning_rate}}
    schedules |= {f"adam, {rate:g}": {"optimizer": "adam", "learning_rate": rate} for rate in GENTLE_RATES}
    for name in arguments.only:
        run = make_run(name, arguments)
        for title, schedule in schedules.items():
            tried = replace(run, settings=run.settings.model_copy(update=schedule))
            network = make_network(run.training.configuration, seed=0)
            state = start_training(network, tried.settings, CPU, scaled=False)
            train_fold(state, tried, SILENT, lambda _: None)
            patch = " x ".join(map(str, run.training.configuration.patch_size))
            dice = state.reports[-1].mean_pseudo_dice
            print(f"| {name} | {patch} | {title} | {state.step} | {dice:.3f} |", flush=True)


def make_run(name: str, arguments: argparse.Namespace) -> Run:
    """Fold 0, of volumes where the network takes them, in one long epoch that the budget ends."""
    workspace = Workspace(root=arguments.workspace)
    folders, info = workspace.folders(DATASET), DatasetInfo.load(workspace.dataset(4).raw / "dataset.json")
    options = PlanningOptions(
        dataset=DATASET, memory_budget_bytes=4 * 10**9, preset=arguments.preset, network=_complete(name)
    )
    plan = make_plan(Fingerprint.load(folders.fingerprint), info, options)
    chosen = "3d_fullres" if 3 in NETWORKS[name].dimensions else "2d"
    configuration, split = plan.configurations[chosen], Splits.load(folders.splits).fold(0)
    long = {"budget_seconds": parse_duration(arguments.budget), "steps_per_epoch": 10**6, "validation_steps": 16}
    long |= {"average_decay": 0.9}  # a minute has too few steps for that of the preset
    training, validation = (
        Batches(
            cases=open_cases([StoredCase.open(folders.cases(chosen), name) for name in names]),
            configuration=configuration,
            foreground_fraction=plan.training.foreground_fraction,
            seed=(0, number),
            augmented=number == 0,
        )
        for number, names in enumerate((split.training, split.validation))
    )
    loss = Loss(
        targets=info.targets,
        settings=plan.training.loss,
        batch_dice=configuration.batch_dice,
        further=_further(configuration.network),
    )
    return Run(
        settings=plan.training.model_copy(update=long),
        training=training,
        validation=validation,
        loss=loss,
        device=CPU,
        workers=1,
    )


def _complete(name: str) -> Own:
    return Own(name=name, settings=NETWORKS[name].complete({}))


def _further(network: Own):
    page = NETWORKS[network.name]
    return page.further(page.read(network.settings))


if __name__ == "__main__":
    main()
