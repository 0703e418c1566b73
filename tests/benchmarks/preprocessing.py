"""Preprocessing and export beside nnU-Net's: seconds, memory and differences, in alternating runs over the same data.

    python tests/benchmarks/preprocessing.py WORKSPACE [--nnunet PATH/TO/python] [--rows image labels export many cases]
    python tests/benchmarks/preprocessing.py WORKSPACE [--nnunet PATH/TO/python] --rows hippocampus --source FOLDER

PATH/TO/python belongs to an environment with nnU-Net v2; without it only autoseg runs. Each measurement is a process of
its own. The rows "image", "labels", "export" and "many" time one call each (see measure_resampling.py); "cases" and
"hippocampus" time whole commands as a user would type them, both with nnU-Net's planning rules so that both prepare the
same grids, and watch the memory of all their processes (see programs.py). All that is measured shares two cores. Needs
Linux, 20 GB of memory and 10 GB of disk; --scale makes all made-up arrays smaller. FOLDER is task 4 of the Medical
Segmentation Decathlon. Prints tables in Markdown for RESULTS.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import blosc2
import numpy as np
from comparison_rows import print_row
from measured_on import print_machine
from programs import (
    CORES,
    MEGABYTE,
    NUMBER,
    Run,
    call_ours,
    call_theirs,
    forget,
    import_hippocampus,
    limit_cores,
    reference_cases,
)
from smooth_scans import make_image, make_labels, make_logits, scale, write_scans

from autoseg.datasets.dataset import Dataset
from autoseg.imaging.geometry import Shape
from autoseg.preprocessing.store import StoredCase
from autoseg.workspace import DatasetFolders, Workspace

SCANS_NUMBER = 901
MEASURE_RESAMPLING = Path(__file__).with_name("measure_resampling.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """A row that times one call.

    Attributes:
        text: Description for the table.
        task: Name of the call in measure_resampling.py.
        make: Makes the array to be resampled.
        old, new: Shapes (z, y, x), before and after.
        classes: Number of classes of logits.
        share: Number of these classes that nnU-Net gets; its seconds are scaled up to all.
        pairs: Largest number of runs of each program.
    """

    text: str
    task: str
    make: Callable[[Shape], np.ndarray]
    old: Shape
    new: Shape
    classes: int = 0
    share: int = 0
    pairs: int = 3


RESAMPLINGS = {
    "image": Resampling(
        text="image, cubic",
        task="image",
        make=lambda shape: make_image(shape, seed=1),
        old=(150, 512, 512),
        new=(300, 400, 400),
    ),
    "labels": Resampling(
        text="label map of 15 labels",
        task="labels",
        make=lambda shape: make_labels(shape, 15, seed=2),
        old=(150, 512, 512),
        new=(300, 400, 400),
    ),
    "export": Resampling(
        text="logits of 25 classes to a label map",
        task="export",
        make=lambda shape: make_logits(shape, 25, seed=3),
        old=(100, 256, 256),
        new=(150, 400, 400),
        classes=25,
        share=25,
    ),
    "many": Resampling(
        text="logits of 117 classes to a label map",
        task="export",
        make=lambda shape: make_logits(shape, 117, seed=4),
        old=(150, 256, 256),
        new=(300, 512, 512),
        classes=117,
        share=12,
        pairs=2,
    ),
}
CASES_SHAPE: Shape = (120, 512, 512)
CASES_LABELS = 10


class Call(NamedTuple):
    """Time and memory of one call.

    Attributes:
        seconds: Duration of the call.
        growth: The most bytes that the process held during the call, less what it held just before.
        most: The most bytes that the process held during the call.
    """

    seconds: float
    growth: int
    most: int


def main() -> None:
    """Measures the rows one by one, and prints each when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--rows", nargs="+", choices=(*RESAMPLINGS, *WHOLE), default=[*RESAMPLINGS, "cases"])
    parser.add_argument("--pairs", type=int, default=3, help="largest number of runs of each program")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for every edge of made-up arrays")
    parser.add_argument("--cases", type=int, default=20, help="scans that are made for the row 'cases'")
    parser.add_argument("--source", type=Path, metavar="FOLDER", help="for the row 'hippocampus'")
    arguments = parser.parse_args()
    if "hippocampus" in arguments.rows and arguments.source is None:
        parser.error("the row 'hippocampus' needs --source")
    limit_cores()
    print_machine()
    arguments.workspace.mkdir(parents=True, exist_ok=True)

    calls = [row for name, row in RESAMPLINGS.items() if name in arguments.rows]
    whole = [compare for name, compare in WHOLE.items() if name in arguments.rows]
    if calls:
        print_header("MB more (in all)")
        for row in calls:
            compare_calls(row, arguments)
    if compare_hippocampus in whole:
        import_hippocampus(arguments.source, Workspace(root=arguments.workspace.resolve()))  # before the table begins
    if whole:
        print_header("MB, all processes")
        for compare in whole:
            compare(arguments)


def compare_calls(row: Resampling, arguments: argparse.Namespace) -> None:
    """Runs both programs over one made-up array."""
    old, new = scale(row.old, arguments.scale), scale(row.new, arguments.scale)
    array, ours, theirs = (arguments.workspace / f"{name}.npy" for name in ("array", "ours", "theirs"))
    np.save(array, row.make(old))
    our_calls, their_calls = [], []
    for _ in range(min(row.pairs, arguments.pairs)):
        our_calls.append(run_call(Path(sys.executable), "autoseg", row, (array, ours), new))
        if arguments.nnunet is not None:
            their_calls.append(run_call(arguments.nnunet, "nnunet", row, (array, theirs), new))
    whole = row.share == row.classes
    difference = describe_difference(np.load(ours), np.load(theirs)) if whole and their_calls else "-"
    array.unlink()

    text = f"{row.text}, {' x '.join(map(str, old))} to {' x '.join(map(str, new))}"
    factor = 1 if whole else row.classes / row.share
    seconds = [call.seconds for call in our_calls], [call.seconds * factor for call in their_calls]
    marks = ("", "") if whole else (f", from {row.share} classes", f", {row.share} classes")
    memory = describe_memory(our_calls), describe_memory(their_calls) + marks[1] if their_calls else "-"
    print_row(text, *seconds, *memory, difference, mark=marks[0])


def describe_memory(calls: Sequence[Call]) -> str:
    """Describes the MB that a call adds to its process, and in brackets all that the process holds."""
    growth, most = (
        max(values) / MEGABYTE for values in zip(*((call.growth, call.most) for call in calls), strict=True)
    )
    return f"{growth:.0f} ({most:.0f})"


def run_call(python: Path, program: str, row: Resampling, files: tuple[Path, Path], shape: Shape) -> Call:
    """Runs measure_resampling.py once."""
    share = ["--classes", row.share] if program == "nnunet" and row.share else []
    command = [python, MEASURE_RESAMPLING, program, row.task, *files, *shape, *share]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return Call(**json.loads(done.stdout.splitlines()[-1]))


def describe_difference(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Describes the largest difference of intensities, or the number of voxels with another label."""
    if ours.shape != theirs.shape:
        return f"SHAPES {ours.shape} and {theirs.shape}"
    if ours.dtype == np.float32:
        return f"at most {np.abs(ours - theirs).max():.1e}"
    return f"{np.count_nonzero(ours != theirs):,} of {ours.size:,} voxels"


def compare_cases(arguments: argparse.Namespace) -> None:
    """Times preprocessing of 3d_fullres for made-up CT scans, after each program has planned for itself."""
    workspace = Workspace(root=arguments.workspace.resolve())
    folders = workspace.folders(f"Dataset{SCANS_NUMBER}_MadeUpScans")
    shape = scale(CASES_SHAPE, arguments.scale)
    write_scans(folders.raw, count=arguments.cases, shape=shape, labels=CASES_LABELS)
    forget(folders, workspace)
    call_ours(workspace, "fingerprint", SCANS_NUMBER)
    call_ours(workspace, "plan", SCANS_NUMBER, "--rules", "nnunet")
    if arguments.nnunet is not None:
        call_theirs(workspace, arguments.nnunet, "extract_fingerprint", SCANS_NUMBER, "-np", CORES)
        call_theirs(workspace, arguments.nnunet, "plan_experiment", SCANS_NUMBER)

    name, ours, theirs = "3d_fullres", [], []
    for _ in range(1 if arguments.cases > 4 else min(2, arguments.pairs)):
        shutil.rmtree(folders.cases(name), ignore_errors=True)
        shutil.rmtree(reference_cases(folders, workspace, name), ignore_errors=True)
        ours.append(call_ours(workspace, "preprocess", SCANS_NUMBER, "-c", name))
        if arguments.nnunet is not None:
            options = ("-c", name, "-np", CORES)
            theirs.append(call_theirs(workspace, arguments.nnunet, "preprocess", SCANS_NUMBER, *options))
    text = f"{arguments.cases} scans of {' x '.join(map(str, shape))} with {CASES_LABELS} labels, preprocess {name}"
    print_whole(text, ours, theirs, difference_of_cases(folders, workspace, [name]))


def compare_hippocampus(arguments: argparse.Namespace) -> None:
    """Times plan_and_preprocess of a dataset of many small cases, from nothing."""
    workspace = Workspace(root=arguments.workspace.resolve())
    folders = workspace.dataset(NUMBER)
    names, ours, theirs = ["2d", "3d_fullres"], [], []
    for _ in range(arguments.pairs):
        forget(folders, workspace)
        ours.append(call_ours(workspace, "plan_and_preprocess", NUMBER, "--rules", "nnunet", "-c", *names))
        if arguments.nnunet is not None:
            options = ("-c", *names, "-np", CORES, "-npfp", CORES)
            theirs.append(call_theirs(workspace, arguments.nnunet, "plan_and_preprocess", NUMBER, *options))
    count = len(Dataset.open(folders.raw).cases)
    text = f"{count} hippocampus cases, plan_and_preprocess 2d and 3d_fullres"
    print_whole(text, ours, theirs, difference_of_cases(folders, workspace, names))


def difference_of_cases(folders: DatasetFolders, workspace: Workspace, configurations: list[str]) -> str:
    """Describes how the cases differ as both programs prepared them; "-" if nnU-Net prepared none."""
    intensities, voxels, differing = 0.0, 0, 0
    records = [
        (name, path) for name in configurations for path in reference_cases(folders, workspace, name).glob("*.pkl")
    ]
    for name, path in records:
        image, label = StoredCase.open(folders.cases(name), path.stem).load()
        their_image, their_label = (
            np.asarray(blosc2.open(str(path.with_name(f"{path.stem}{ending}.b2nd")))[:]) for ending in ("", "_seg")
        )
        if image.shape != their_image.shape:
            return f"SHAPES of {path.stem}: {image.shape} and {their_image.shape}"
        intensities = max(intensities, float(np.abs(image - their_image).max()))
        voxels, differing = voxels + label.size, differing + np.count_nonzero(label != their_label[0])
    if not records:
        return "-"
    return f"intensities at most {intensities:.1e}, {differing:,} of {voxels:,} labels"


def print_whole(text: str, ours: list[Run], theirs: list[Run], difference: str) -> None:
    """Prints a line for whole commands; `theirs` is empty if nnU-Net was not run."""
    seconds = [[run.seconds for run in runs] for runs in (ours, theirs)]
    memory = [f"{max(run.all_processes for run in runs) / MEGABYTE:.0f}" if runs else "-" for runs in (ours, theirs)]
    print_row(text, *seconds, *memory, difference)


def print_header(memory: str) -> None:
    """Prints the head of a table; `memory` names its columns of memory."""
    print(f"\n| | autoseg, s | nnU-Net, s | times | autoseg, {memory} | nnU-Net, {memory} | differences |")
    print("|---|---|---|---|---|---|---|", flush=True)


WHOLE = {"cases": compare_cases, "hippocampus": compare_hippocampus}

if __name__ == "__main__":
    main()
