"""Schedules of the networks of the literature, compared in one run on real data by what each learns in a minute.

    python tests/benchmarks/network_schedules.py WORKSPACE [--budget 60s] [--only vnet unet] [--preset small]

WORKSPACE holds the hippocampus dataset, prepared by `autoseg plan_and_preprocess -d 4 --preset small`. Each network is
planned for it in memory and trains fold 0 by each schedule, from the same initial weights on the same patches, with
the loss of its specification; the table gives the Dice of held-out patches at the end. The `training` of the
specifications in autoseg/networks/literature was chosen by these figures.
"""

import argparse
from pathlib import Path

from measured_on import print_machine
from small_schedule import DATASET, learn, make_run

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.presets import PRESETS
from autoseg.runtime.units import parse_duration
from autoseg.workspace import Workspace

GENTLE_RATES = (0.001, 0.0003, 0.0001)
FEW_STEPS = {"average_decay": 0.9}
"""Settings of all schedules: a minute has too few steps for the average of the weights that the preset takes."""


def main() -> None:
    """Trains each network with each schedule and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    arguments = parser.parse_args()
    print_machine()
    folders, preset = Workspace(root=arguments.workspace).folders(DATASET), PRESETS[arguments.preset]
    schedules = {"of the preset": {"optimizer": "sgd", "learning_rate": preset.training.learning_rate}}
    schedules |= {f"adam, {rate:g}": {"optimizer": "adam", "learning_rate": rate} for rate in GENTLE_RATES}
    facts, info = Fingerprint.load(folders.fingerprint), DatasetInfo.load(folders.raw / "dataset.json")
    print("| network | images | schedule | steps | Dice of held-out patches |\n|---|---|---|---:|---:|", flush=True)
    for name in arguments.only:
        plan = make_plan(
            facts,
            info,
            PlanningOptions(
                dataset=DATASET,
                memory_budget_bytes=preset.memory_bytes,
                preset=arguments.preset,
                network=Plugin(name=name, settings=NETWORKS[name].complete({})),
            ),
        )
        chosen = "3d_fullres" if 3 in NETWORKS[name].dimensions else "2d"
        run = make_run(folders, plan, parse_duration(arguments.budget), chosen, validation_steps=16)
        patch = " x ".join(map(str, plan.configurations[chosen].patch_size))
        for title, schedule in schedules.items():
            steps, dice = learn(run, FEW_STEPS | schedule)
            print(f"| {name} | {patch} | {title} | {steps} | {dice:.3f} |", flush=True)


if __name__ == "__main__":
    main()
