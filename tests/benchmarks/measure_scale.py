"""Times how training cases are opened and sampled; the program that `scale.py` starts.

    PYTHON tests/benchmarks/measure_scale.py WORKSPACE NUMBER [--batches 40]

Opens the prepared cases of a dataset as `train` does, makes batches of fold 0, and prints the seconds of both as JSON.
"""

import argparse
import json
import time
from pathlib import Path

from autoseg.dataloading.loader import Batches, open_cases
from autoseg.planning.plan_file import load_plan_and_splits, open_planned_dataset
from autoseg.preprocessing.prepared_check import check_prepared
from autoseg.preprocessing.store import open_stored
from autoseg.workspace import find_workspace

CONFIGURATION = "3d_fullres"


def main() -> None:
    """Opens the cases and makes batches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("--batches", type=int, default=40)
    arguments = parser.parse_args()
    folders = find_workspace(arguments.workspace).dataset(arguments.number)
    started = time.perf_counter()
    plan, splits = load_plan_and_splits(arguments.number, folders)
    dataset = open_planned_dataset(arguments.number, folders, plan, splits)
    check_prepared(dataset, plan, CONFIGURATION, folders, arguments.number)
    stored = open_stored(folders.cases(CONFIGURATION), splits.fold(0).training)
    batches = Batches(
        cases=open_cases(list(stored.values())),
        configuration=plan.configurations[CONFIGURATION],
        foreground_fraction=plan.training.foreground_fraction,
        seed=(0, 0),
        augmented=False,
    )
    batches.make(0)
    opened = time.perf_counter()
    for number in range(1, arguments.batches + 1):
        batches.make(number)
    ended = time.perf_counter()
    print(json.dumps({"start": opened - started, "batch": (ended - opened) / arguments.batches}))


if __name__ == "__main__":
    main()
