"""All that training is to reach on a GPU, measured by one command, in one table.

    python tests/benchmarks/gpu_training.py WORKSPACE --source Task04_Hippocampus --nnunet PATH/TO/python
    python tests/benchmarks/gpu_training.py WORKSPACE --source Task04_Hippocampus --prepare-only [--nnunet ...]

PATH/TO/python belongs to an environment with nnU-Net v2; without it its column stays empty. Rows (`--rows` chooses):

    hippocampus   seconds of an epoch of 3d_fullres, beside nnU-Net's, with all cores and with four
    volumes       the same for made-up scans, whose patches are 128 x 128 x 128, batch 2
    step          multiply-adds per second of a step, beside its convolutions alone; see gpu_step.py
    folds         hippocampus, five folds of 100 epochs: mean Dice of all held-out cases

Epochs are those of the same patches, batches and plain network: plans by `--rules nnunet`; nnU-Net trains with its own
benchmark trainer. The fastest epoch of each counts. What is prepared already is kept, so a workspace may be prepared on
another machine (`--prepare-only`) and brought along. `--device cpu --epochs 1 --steps 2 --patch 32 32 32 --scale 0.3`
tries everything out in minutes. Prints a table in Markdown, row by row, and writes it to `--report`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fingerprint import NUMBER, import_whole, reference_folders
from gpu_step import compare_step
from preprocessing import call_theirs, forget, reference_cases, scale
from smooth_scans import write_scans

from autoseg.imaging.geometry import Shape
from autoseg.planning.plan import Plan
from autoseg.planning.presets import REFERENCE_TRAINING
from autoseg.runtime.device import resolve_device
from autoseg.workspace import Workspace

NAME = "3d_fullres"
VOLUMES_NUMBER, VOLUMES_COUNT, VOLUMES_LABELS = 902, 8, 4
VOLUMES_SHAPE: Shape = (200, 200, 200)
ISOTROPIC_MM = (1.0, 1.0, 1.0)
ROWS = ("hippocampus", "volumes", "step", "folds")
THEIR_EPOCHS = 5
"""Of nnU-Net's benchmark trainer."""
FEW_CORES = 4
FOLDS_PLAN = "folds"
AIMS = {"epoch": "2", "epoch, few cores": "3", "waits": "under 2 %", "step": "70 %", "folds": "0.8904"}
"""Ratios, shares and Dice; that of nnU-Net after 1000 epochs was published."""


class Row(NamedTuple):
    """A line of the table, as text."""

    what: str
    ours: str
    theirs: str = ""
    reached: str = ""
    aim: str = ""


def main() -> None:
    """Prepares what is missing, then measures row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--source", type=Path, help="Task04_Hippocampus, unless it was imported before")
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument("--report", type=Path, help="file for the table")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, default=THEIR_EPOCHS, help="of which the fastest counts")
    parser.add_argument("--fold-epochs", type=int, default=100)
    parser.add_argument("--folds", nargs="+", default=["cv"])
    parser.add_argument("--steps", type=int, help="of an epoch, instead of 250")
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128), metavar=("Z", "Y", "X"))
    parser.add_argument("--scale", type=float, default=1.0, help="of every edge of the made-up scans")
    arguments = parser.parse_args()
    workspace = Workspace(root=arguments.workspace.resolve())
    prepare(workspace, arguments)
    if not arguments.prepare_only:
        write_table(measure(workspace, arguments), arguments.report)


def prepare(workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Datasets, their plans and their preprocessed cases, for both programs."""
    numbers = []
    if {"hippocampus", "folds"} & set(arguments.rows):
        if arguments.source is not None:
            import_whole(arguments.source, workspace)
        numbers.append(NUMBER)
    if "volumes" in arguments.rows:
        folders = workspace.folders(f"Dataset{VOLUMES_NUMBER}_MadeUpVolumes")
        shape = scale(VOLUMES_SHAPE, arguments.scale)
        kind = {"count": VOLUMES_COUNT, "shape": shape, "labels": VOLUMES_LABELS, "spacing_mm": ISOTROPIC_MM}
        if write_scans(folders.raw, **kind):
            forget(folders, workspace)  # what was prepared of scans of another size
        numbers.append(VOLUMES_NUMBER)
    for number in numbers:
        prepare_dataset(workspace, number, arguments)
    if "folds" in arguments.rows and not workspace.dataset(NUMBER, FOLDS_PLAN).plan.is_file():
        call_ours("plan_and_preprocess", NUMBER, workspace, "-c", NAME, "--preset", "8gb", "--plan", FOLDS_PLAN)


def prepare_dataset(workspace: Workspace, number: int, arguments: argparse.Namespace) -> None:
    """As nnU-Net plans it; our epochs are as long as nnU-Net's unless this run asks for shorter ones."""
    folders = workspace.dataset(number)
    if not folders.plan.is_file():
        call_ours("plan_and_preprocess", number, workspace, "--rules", "nnunet", "-c", NAME)
    plan, training = Plan.load(folders.plan), REFERENCE_TRAINING
    if arguments.steps:
        training = training.model_copy(update={"steps_per_epoch": arguments.steps, "validation_steps": 1})
    plan.model_copy(update={"training": training}).save(folders.plan)
    if arguments.nnunet is not None and not reference_cases(folders, workspace, NAME).is_dir():
        call_theirs(workspace, arguments.nnunet, "plan_and_preprocess", number, "-c", NAME, "-np", 2, "-npfp", 2)


def measure(workspace: Workspace, arguments: argparse.Namespace) -> Iterator[Row]:
    """Row by row."""
    everything = sorted(os.sched_getaffinity(0))
    for name, number in (("hippocampus", NUMBER), ("volumes", VOLUMES_NUMBER)):
        if name not in arguments.rows:
            continue
        for cores in (everything, everything[:FEW_CORES]) if len(everything) > FEW_CORES else (everything,):
            os.sched_setaffinity(0, cores)  # the programs that are started get it too
            yield from compare_epochs(workspace, number, arguments, few=len(cores) < len(everything))
        os.sched_setaffinity(0, everything)
    if "step" in arguments.rows:
        yield time_step(arguments)
    if "folds" in arguments.rows:
        yield from train_folds(workspace, arguments)


def compare_epochs(workspace: Workspace, number: int, arguments: argparse.Namespace, *, few: bool) -> Iterator[Row]:
    """Seconds of an epoch of both programs, and the share of ours that waited for data."""
    ours, waiting = train_ours(workspace, number, arguments)
    theirs = train_theirs(workspace, number, arguments.nnunet) if arguments.nnunet else None
    configuration = Plan.load(workspace.dataset(number).plan).configurations[NAME]
    patch = " x ".join(map(str, configuration.patch_size))
    what = f"epoch, {patch}, batch {configuration.batch_size}, {len(os.sched_getaffinity(0))} cores"
    texts = ("", "") if theirs is None else (f"{theirs:.2f} s", f"{theirs / ours:.1f} times")
    yield Row(what, f"{ours:.2f} s", *texts, AIMS["epoch, few cores" if few else "epoch"])
    yield Row(f"{what}: waits for data", f"{waiting:.1%}", aim=AIMS["waits"])


def train_ours(workspace: Workspace, number: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the fastest epoch, and the share of it that waited for data."""
    length = ("--epochs", arguments.epochs, "--restart", "--device", arguments.device)
    call_ours("train", number, workspace, "-c", NAME, "-f", 0, *length)
    path = workspace.dataset(number).model(NAME).progress(0, "jsonl")
    epochs = [json.loads(line) for line in path.read_text().splitlines()]
    fastest = min(epochs, key=lambda epoch: epoch["seconds"])
    return fastest["seconds"], fastest["waiting_share"]


def train_theirs(workspace: Workspace, number: int, python: Path) -> float:
    """Seconds of the fastest epoch by nnU-Net's own benchmark trainer."""
    environment = {**os.environ, **{name: str(path) for name, path in reference_folders(workspace).items()}}
    trainer = f"nnUNetTrainerBenchmark_{THEIR_EPOCHS}epochs"
    results = reference_folders(workspace)["nnUNet_results"]
    for former in results.glob(f"Dataset{number:03d}_*/{trainer}__*__{NAME}"):
        shutil.rmtree(former)  # it would keep the figures of other GPUs
    command = [str(python.with_name("nnUNetv2_train")), str(number), NAME, "0", "-tr", trainer]
    subprocess.run(command, check=True, env=environment)
    [found] = results.glob(f"Dataset{number:03d}_*/{trainer}__*__{NAME}/fold_0/benchmark_result.json")
    [measured] = json.loads(found.read_text()).values()
    return float(measured["fastest_epoch"])


def time_step(arguments: argparse.Namespace) -> Row:
    """A step beside its convolutions."""
    patch = tuple(arguments.patch)
    timed = compare_step(resolve_device(arguments.device), patch, 2)
    speeds = [f"{timed.products / seconds / 1e12:.2f} T/s" for seconds in (timed.step, timed.alone)]
    what = f"multiply-adds of a step, {' x '.join(map(str, patch))}, batch 2, beside its convolutions alone"
    return Row(what, *speeds, f"{timed.share:.0%}", AIMS["step"])


def train_folds(workspace: Workspace, arguments: argparse.Namespace) -> Iterator[Row]:
    """Hippocampus by our own rules: what the held-out cases of all folds reach."""
    length = ("--epochs", arguments.fold_epochs, "--device", arguments.device, "--plan", FOLDS_PLAN)
    call_ours("train", NUMBER, workspace, "-c", NAME, "-f", *arguments.folds, *length)
    model = workspace.dataset(NUMBER, FOLDS_PLAN).model(NAME).path
    summaries = {
        path.parts[-3].replace("_", " "): path for path in sorted(model.glob("fold_*/validation/summary.json"))
    }
    for which, path in {**summaries, "all folds": model / "summary.json"}.items():
        dice = json.loads(path.read_text())["foreground_mean"]["dice"]
        what = f"hippocampus, mean Dice after {arguments.fold_epochs} epochs, {which}"
        yield Row(what, f"{dice:.4f}", aim=AIMS["folds"] if which == "all folds" else "")


def call_ours(command: str, number: int, workspace: Workspace, *options: object) -> None:
    """Runs a command of autoseg, as a user would type it."""
    words = [sys.executable, "-m", "autoseg", command, "-d", number, *options, "-w", workspace.root]
    subprocess.run([str(word) for word in words], check=True)


def write_table(rows: Iterator[Row], report: Path | None) -> None:
    """Prints each row when it is measured; a report is written anew with each, so that a break loses none."""
    lines = ["| what | autoseg | beside it | reached | aim |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
        if report is not None:
            report.write_text("\n".join(lines) + "\n")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
