"""The demo with several seeds: how long it takes, and how well the worst organ of a held-out case is segmented.

    python tests/benchmarks/demo.py FOLDER [--seeds 0 1 2 3 4] [--training-seeds 1 2]

For each seed a dataset is made and the demo is run on it, in a folder of its own below FOLDER, as a process of its own
and timed from the making of the scans to the picture. `--training-seeds` trains again on the same cases, with these
seeds in plan.json, by the command that the demo printed; the demo itself trains with the seed of every plan. Prints a
table in Markdown for RESULTS.md.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

from measured_on import print_machine

import autoseg
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.importing import demo_dataset
from autoseg.workspace import Workspace

NAME = "Dataset001_Demo"


def main() -> None:
    """Runs the demo with each seed and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of the scans")
    parser.add_argument("--training-seeds", type=int, nargs="*", default=[], help="more seeds of the training")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--coarser", type=float, default=1.0, help="factor of the voxels' edges, for a quick trial")
    arguments = parser.parse_args()
    print_machine()
    print("| scans | training | seconds | worst organ of a held-out case | mean Dice |\n|---|---|---|---|---|")
    for seed in arguments.seeds:
        workspace = arguments.folder / f"seed_{seed}"
        started = time.perf_counter()
        make_scans(workspace / "source" / NAME, seed, arguments.cases, arguments.coarser)
        output = run("demo", "-w", workspace)
        print_row(seed, "as planned", time.perf_counter() - started, workspace)
        for training_seed in arguments.training_seeds:
            started = time.perf_counter()
            train_again(workspace, training_seed, output)
            print_row(seed, f"seed {training_seed}", time.perf_counter() - started, workspace)


def make_scans(folder: Path, seed: int, cases: int, coarser: float) -> None:
    """Makes the scans of the demo with another seed; the demo uses those that it finds."""
    shapes = {
        name: tuple(round(size / coarser) for size in getattr(demo_dataset, name))
        for name in ("LOWEST_SHAPE", "HIGHEST_SHAPE")
    }
    spacing = tuple(size * coarser for size in demo_dataset.SPACING_MM)
    with patch.multiple(demo_dataset, SPACING_MM=spacing, **shapes):
        autoseg.make_demo_dataset(folder, seed=seed, cases=cases)


def run(*words: object) -> str:
    """Runs a command of autoseg; returns what it printed. It may end with an error if organs were not learned.

    Raises:
        SystemExit: The command failed for another reason.
    """
    command = [sys.executable, "-m", "autoseg", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "organs were not learned" not in done.stderr:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def train_again(workspace: Path, seed: int, output: str) -> None:
    """Trains the fold anew with another seed in plan.json, by the command that the demo printed."""
    plan = Workspace(root=workspace).folders(NAME).plan
    content = json.loads(plan.read_text(encoding="utf-8"))
    content["training"]["seed"] = seed
    plan.write_text(json.dumps(content), encoding="utf-8")
    [command] = re.findall(r"^\$ autoseg (train .*)$", output, re.MULTILINE)
    run(*shlex.split(command), "--restart")


def print_row(seed: int, training: str, seconds: float, workspace: Path) -> None:
    """Prints the row of one training."""
    summary = Summary.load(summary_file(Workspace(root=workspace).folders(NAME).model("3d_fullres").validation(0)))
    dice, organ, case = min(
        (scores.dice, label, case.name) for case in summary.cases for label, scores in case.scores.items()
    )
    worst = f"{dice:.3f} ({organ} of {case})"
    print(f"| {seed} | {training} | {seconds:.0f} | {worst} | {summary.foreground_mean.dice:.3f} |", flush=True)


if __name__ == "__main__":
    main()
