"""Schedules of the small preset, compared in one run on real data by what the network learns in a minute.

    python tests/benchmarks/small_schedule.py WORKSPACE [--budget 60s]

WORKSPACE holds the preprocessed hippocampus dataset that `hippocampus.py` leaves behind. Each schedule trains fold 0
from the same initial weights on the same patches; the table gives the Dice of held-out patches at the end.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from measured_on import print_machine

from autoseg.dataloading.loader import Batches, open_cases
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.splits import Splits
from autoseg.models.build import make_network
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.reporting import SILENT
from autoseg.runtime.units import parse_duration
from autoseg.training.loop import train_fold
from autoseg.training.losses import Loss
from autoseg.training.state import Run, start_training
from autoseg.workspace import DatasetFolders, Workspace

CPU = torch.device("cpu")
DATASET = "Dataset004_Hippocampus"
SCHEDULES = (
    {"learning_rate": 0.01, "momentum": 0.99, "average_decay": 0.0},  # the reference method's
    {"learning_rate": 0.01, "momentum": 0.99, "average_decay": 0.99},
    {"learning_rate": 0.01, "momentum": 0.9, "average_decay": 0.99},
    {"learning_rate": 0.1, "momentum": 0.9, "average_decay": 0.99},
    {"learning_rate": 0.2, "momentum": 0.9, "average_decay": 0.99},
    {"learning_rate": 0.2, "momentum": 0.9, "average_decay": 0.0},
    {"learning_rate": 0.4, "momentum": 0.9, "average_decay": 0.99},
)


def main() -> None:
    """Trains with each schedule in turn and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--budget", default="60s")
    arguments = parser.parse_args()
    print_machine()
    folders = Workspace(root=arguments.workspace).folders(DATASET)
    run = make_run(folders, Plan.load(folders.plan), parse_duration(arguments.budget))
    print(
        "| learning rate | momentum | average | steps | Dice of held-out patches |\n|---|---|---|---|---|", flush=True
    )
    for schedule in SCHEDULES:
        steps, dice = learn(run, schedule)
        print(f"| {' | '.join(f'{value:g}' for value in schedule.values())} | {steps} | {dice:.3f} |", flush=True)


def make_run(
    folders: DatasetFolders,
    plan: Plan,
    seconds: float,
    name: ConfigurationName = "3d_fullres",
    validation_steps: int = 40,
) -> Run:
    """Returns a run of fold 0 of a configuration: one long epoch that the budget ends.

    Args:
        folders: Folders of the dataset, which is preprocessed.
        plan: Plan of the dataset.
        seconds: Budget of the training.
        name: Configuration that is trained.
        validation_steps: Number of batches of held-out patches at the end.
    """
    configuration, split = plan.configurations[name], Splits.load(folders.splits).fold(0)
    one_epoch = {"budget_seconds": seconds, "steps_per_epoch": 10**6, "validation_steps": validation_steps}
    training, validation = (
        Batches(
            cases=open_cases([StoredCase.open(folders.cases(name), case) for case in cases]),
            configuration=configuration,
            foreground_fraction=plan.training.foreground_fraction,
            seed=(0, number),
            augmented=number == 0,
        )
        for number, cases in enumerate((split.training, split.validation))
    )
    return Run(
        settings=plan.training.model_copy(update=one_epoch),
        training=training,
        validation=validation,
        loss=Loss(
            targets=DatasetInfo.load(folders.raw / "dataset.json").targets,
            settings=plan.training.loss,
            batch_dice=configuration.batch_dice,
            auxiliary_outputs=configuration.auxiliary_outputs,
        ),
        device=CPU,
        workers=1,
    )


def learn(run: Run, schedule: dict[str, object]) -> tuple[int, float]:
    """Trains with a schedule; returns the number of steps and the Dice of held-out patches."""
    scheduled = replace(run, settings=run.settings.model_copy(update=schedule))
    state = start_training(make_network(run.training.configuration, seed=0), scheduled.settings, CPU, scaled=False)
    train_fold(state, scheduled, SILENT, lambda _: None)
    return state.step, state.reports[-1].mean_pseudo_dice


if __name__ == "__main__":
    main()
