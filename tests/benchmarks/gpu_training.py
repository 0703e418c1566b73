"""All figures that training is to reach on a GPU, measured by one command for one table.

    python tests/benchmarks/gpu_training.py WORKSPACE --source Task04_Hippocampus --nnunet PATH/TO/python
    python tests/benchmarks/gpu_training.py WORKSPACE --source Task04_Hippocampus --prepare-only [--nnunet ...]

PATH/TO/python belongs to an environment with nnU-Net v2; without it the column of nnU-Net stays empty. The rows, of
which --rows chooses some, are

    hippocampus   seconds of an epoch of 3d_fullres, beside nnU-Net's, with all cores and with four
    volumes       the same for made-up scans, whose patches are 128 x 128 x 128, batch 2
    step          multiply-adds per second of a step, beside its convolutions alone; see gpu_step.py
    folds         hippocampus, five folds of 100 epochs: mean Dice of all held-out cases

Both programs train the same plain network on patches and batches of the same size, because the plans are made by
`--rules nnunet`; nnU-Net trains with its own benchmark trainer. The fastest epoch of each counts. Datasets that are
prepared already are kept, so a workspace may be prepared on another machine (--prepare-only) and copied. The options
--device cpu --epochs 1 --fold-epochs 1 --folds 0 --steps 2 --patch 32 32 32 --scale 0.3 try everything out in minutes.
Prints a table in Markdown, row by row, and writes it to the file of --report.
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

from gpu_step import compare_step
from measured_on import machine_line
from programs import NUMBER, call_theirs, forget, import_hippocampus, reference_cases, reference_folders
from smooth_scans import scale, write_scans

from autoseg.imaging.geometry import Shape
from autoseg.planning.plan import Plan
from autoseg.planning.presets import PRESETS, REFERENCE_TRAINING
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.device import resolve_device
from autoseg.workspace import Workspace

NAME = "3d_fullres"
VOLUMES_NUMBER, VOLUMES_COUNT, VOLUMES_LABELS = 902, 8, 4
VOLUMES_SHAPE: Shape = (200, 200, 200)
ISOTROPIC_MM = (1.0, 1.0, 1.0)
ROWS = ("hippocampus", "volumes", "step", "folds")
THEIR_EPOCHS = 5
"""Number of epochs of nnU-Net's benchmark trainer."""
FEW_CORES = 4
FOLDS_PLAN, FOLDS_PRESET = "folds", "8gb"
AIMS = {"epoch": "2", "epoch, few cores": "3", "waits": "under 2 %", "step": "70 %", "folds": "0.8904"}
"""Aims as they stand in the table; the Dice is the published one of nnU-Net after 1000 epochs."""


class Row(NamedTuple):
    """The cells of a row of the table."""

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
    parser.add_argument("--epochs", type=int, default=THEIR_EPOCHS, help="epochs of which the fastest counts")
    parser.add_argument("--fold-epochs", type=int, default=100)
    parser.add_argument("--folds", nargs="+", default=["cv"])
    parser.add_argument("--steps", type=int, help="steps of an epoch, instead of 250")
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128), metavar=("Z", "Y", "X"))
    parser.add_argument("--scale", type=float, default=1.0, help="factor for every edge of the made-up scans")
    arguments = parser.parse_args()
    workspace = Workspace(root=arguments.workspace.resolve())
    prepare(workspace, arguments)
    if not arguments.prepare_only:
        machine = machine_line(resolve_device(arguments.device))
        write_table(machine, measure(workspace, arguments), arguments.report)


def prepare(workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Makes datasets, their plans and their preprocessed cases, for both programs."""
    numbers = []
    if {"hippocampus", "folds"} & set(arguments.rows):
        if arguments.source is not None:
            import_hippocampus(arguments.source, workspace)
        numbers.append(NUMBER)
    if "volumes" in arguments.rows:
        folders = workspace.folders(f"Dataset{VOLUMES_NUMBER}_MadeUpVolumes")
        shape = scale(VOLUMES_SHAPE, arguments.scale)
        kind = {"count": VOLUMES_COUNT, "shape": shape, "labels": VOLUMES_LABELS, "spacing_mm": ISOTROPIC_MM}
        if write_scans(folders.raw, **kind):
            forget(folders, workspace)  # those were prepared of scans of another size
        numbers.append(VOLUMES_NUMBER)
    for number in numbers:
        prepare_dataset(workspace, number, arguments)
    if "folds" in arguments.rows:
        folders = workspace.dataset(NUMBER, FOLDS_PLAN)
        if not folders.plan.is_file():
            options = ("-c", NAME, "--preset", FOLDS_PRESET, "--plan", FOLDS_PLAN)
            run_autoseg("plan_and_preprocess", NUMBER, workspace, *options)
        usual = PRESETS[FOLDS_PRESET].training
        length = {"steps_per_epoch": usual.steps_per_epoch, "validation_steps": usual.validation_steps}
        planned = Plan.load(folders.plan).training
        set_training(folders.plan, planned.model_copy(update=length), arguments)


def prepare_dataset(workspace: Workspace, number: int, arguments: argparse.Namespace) -> None:
    """Plans a dataset by nnU-Net's rules and preprocesses it; epochs are as long as nnU-Net's without --steps."""
    folders = workspace.dataset(number)
    if not folders.plan.is_file():
        run_autoseg("plan_and_preprocess", number, workspace, "--rules", "nnunet", "-c", NAME)
    set_training(folders.plan, REFERENCE_TRAINING, arguments)
    if arguments.nnunet is not None and not reference_cases(folders, workspace, NAME).is_dir():
        call_theirs(workspace, arguments.nnunet, "plan_and_preprocess", number, "-c", NAME, "-np", 2, "-npfp", 2)


def set_training(path: Path, training: TrainingSettings, arguments: argparse.Namespace) -> None:
    """Writes the settings of the training into a plan: with --steps in an epoch, and compiled except on a CPU.

    So few epochs would not be compiled otherwise, as those of a whole training are.
    """
    changes: dict[str, object] = {} if arguments.device == "cpu" else {"compile": "on"}
    if arguments.steps is not None:
        changes |= {"steps_per_epoch": arguments.steps, "validation_steps": 1}
    Plan.load(path).model_copy(update={"training": training.model_copy(update=changes)}).save(path)


def measure(workspace: Workspace, arguments: argparse.Namespace) -> Iterator[Row]:
    """Measures row by row."""
    everything = sorted(os.sched_getaffinity(0))
    for name, number in (("hippocampus", NUMBER), ("volumes", VOLUMES_NUMBER)):
        if name not in arguments.rows:
            continue
        for cores in (everything, everything[:FEW_CORES]) if len(everything) > FEW_CORES else (everything,):
            os.sched_setaffinity(0, cores)  # the programs that are started inherit it
            yield from compare_epochs(workspace, number, arguments, few=len(cores) < len(everything))
        os.sched_setaffinity(0, everything)
    if "step" in arguments.rows:
        yield time_step(arguments)
    if "folds" in arguments.rows:
        yield from train_folds(workspace, arguments)


def compare_epochs(workspace: Workspace, number: int, arguments: argparse.Namespace, *, few: bool) -> Iterator[Row]:
    """Yields the seconds of an epoch of both programs, and the share of ours that waited for data."""
    ours, waiting = train_ours(workspace, number, arguments)
    theirs = train_theirs(workspace, number, arguments.nnunet) if arguments.nnunet else None
    configuration = Plan.load(workspace.dataset(number).plan).configurations[NAME]
    patch = " x ".join(map(str, configuration.patch_size))
    title = f"epoch, {patch}, batch {configuration.batch_size}, {len(os.sched_getaffinity(0))} cores"
    texts = ("", "") if theirs is None else (f"{theirs:.2f} s", f"{theirs / ours:.1f} times")
    yield Row(title, f"{ours:.2f} s", *texts, AIMS["epoch, few cores" if few else "epoch"])
    yield Row(f"{title}: waits for data", f"{waiting:.1%}", aim=AIMS["waits"])


def train_ours(workspace: Workspace, number: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Trains with autoseg; returns the seconds of the fastest epoch, and the share of it that waited for data."""
    length = ("--epochs", arguments.epochs, "--restart", "--device", arguments.device)
    run_autoseg("train", number, workspace, "-c", NAME, "-f", 0, *length)
    path = workspace.dataset(number).model(NAME).progress(0, "jsonl")
    epochs = [json.loads(line) for line in path.read_text().splitlines()]
    fastest = min(epochs, key=lambda epoch: epoch["seconds"])
    return fastest["seconds"], fastest["waiting_share"]


def train_theirs(workspace: Workspace, number: int, python: Path) -> float:
    """Trains with nnU-Net's own benchmark trainer; returns the seconds of the fastest epoch."""
    environment = {**os.environ, **{name: str(path) for name, path in reference_folders(workspace).items()}}
    trainer = f"nnUNetTrainerBenchmark_{THEIR_EPOCHS}epochs"
    results = reference_folders(workspace)["nnUNet_results"]
    for folder in results.glob(f"Dataset{number:03d}_*/{trainer}__*__{NAME}"):
        shutil.rmtree(folder)  # an earlier run's would keep the figures of other GPUs
    command = [str(python.with_name("nnUNetv2_train")), str(number), NAME, "0", "-tr", trainer]
    subprocess.run(command, check=True, env=environment)
    [path] = results.glob(f"Dataset{number:03d}_*/{trainer}__*__{NAME}/fold_0/benchmark_result.json")
    [measured] = json.loads(path.read_text()).values()
    return float(measured["fastest_epoch"])


def time_step(arguments: argparse.Namespace) -> Row:
    """Measures the multiply-adds per second of a step beside those of its convolutions."""
    patch = tuple(arguments.patch)
    timed = compare_step(resolve_device(arguments.device), patch, 2)
    speeds = [f"{timed.products / seconds / 1e12:.2f} T/s" for seconds in (timed.step, timed.alone)]
    title = f"multiply-adds of a step, {' x '.join(map(str, patch))}, batch 2, beside its convolutions alone"
    return Row(title, *speeds, f"{timed.share:.0%}", AIMS["step"])


def train_folds(workspace: Workspace, arguments: argparse.Namespace) -> Iterator[Row]:
    """Trains the folds of hippocampus by our own rules; yields the Dice of their held-out cases."""
    length = ("--epochs", arguments.fold_epochs, "--device", arguments.device, "--plan", FOLDS_PLAN)
    run_autoseg("train", NUMBER, workspace, "-c", NAME, "-f", *arguments.folds, *length)
    model = workspace.dataset(NUMBER, FOLDS_PLAN).model(NAME).path
    summaries = {
        path.parts[-3].replace("_", " "): path for path in sorted(model.glob("fold_*/validation/summary.json"))
    }
    for folds, path in {**summaries, "all folds": model / "summary.json"}.items():
        dice = json.loads(path.read_text())["foreground_mean"]["dice"]
        title = f"hippocampus, mean Dice after {arguments.fold_epochs} epochs, {folds}"
        yield Row(title, f"{dice:.4f}", aim=AIMS["folds"] if folds == "all folds" else "")


def run_autoseg(command: str, number: int, workspace: Workspace, *options: object) -> None:
    """Runs a command of autoseg as a user would type it, and shows what it prints."""
    words = [sys.executable, "-m", "autoseg", command, "-d", number, *options, "-w", workspace.root]
    subprocess.run([str(word) for word in words], check=True)


def write_table(machine: str, rows: Iterator[Row], report: Path | None) -> None:
    """Prints each row when it is measured; the report is written anew with each, so that an interruption loses none."""
    lines = [machine, "", "| quantity | autoseg | beside it | reached | aim |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
        if report is not None:
            report.write_text("\n".join(lines) + "\n")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
