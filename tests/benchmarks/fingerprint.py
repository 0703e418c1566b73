"""The fingerprint beside nnU-Net's: seconds and memory, in alternating runs over the same files.

    python tests/benchmarks/fingerprint.py PATH/TO/Task04_Hippocampus WORKSPACE [--nnunet PATH/TO/python] [--pairs 3]

Each run is a process of its own, as a user would type the command; see programs.py for how time and memory are
measured. PATH/TO/python belongs to an environment with nnU-Net v2; without it only autoseg runs. The data are those of
the Medical Segmentation Decathlon, task 4; a second dataset holds its first cases only, to show that the memory does
not grow with their number. Prints tables in Markdown for RESULTS.md. Needs Linux.
"""

import argparse
import shutil
import statistics
from pathlib import Path

from measured_on import print_machine
from programs import (
    CORES,
    MEGABYTE,
    NUMBER,
    Run,
    call_ours,
    call_theirs,
    import_hippocampus,
    limit_cores,
    reference_folders,
)

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.workspace import DatasetFolders, Workspace

FEW_NUMBER, FEW_CASES = 26, 26


def main() -> None:
    """Runs the commands and prints their time and memory, and the values that they computed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    limit_cores()
    print_machine()
    workspace = Workspace(root=arguments.workspace.resolve())
    whole = import_hippocampus(arguments.source, workspace)
    few = copy_few(whole, workspace.folders(f"Dataset{FEW_NUMBER:03d}_FewHippocampi"))

    ours, ours_few, theirs = [], [], []
    for number in range(1, arguments.pairs + 1):
        print(f"pair {number} of {arguments.pairs}", flush=True)
        ours_few.append(run_ours(few, FEW_NUMBER, workspace))
        ours.append(run_ours(whole, NUMBER, workspace))
        if arguments.nnunet is not None:
            theirs.append(run_reference(arguments.nnunet, workspace))

    counts = [len(Dataset.open(folders.raw).cases) for folders in (few, whole)]
    rows = {f"autoseg, {counts[0]} cases": ours_few, f"autoseg, all {counts[1]} cases": ours}
    fingerprints = {"autoseg": Fingerprint.load(whole.fingerprint)}
    if arguments.nnunet is not None:
        rows[f"nnU-Net, all {counts[1]} cases"] = theirs
        reference = reference_folders(workspace)["nnUNet_preprocessed"] / whole.raw.name / "dataset_fingerprint.json"
        fingerprints["nnU-Net"] = read_fingerprint(reference)
    print_runs(rows)
    print_intensities(fingerprints)
    if arguments.nnunet is not None:
        print_ratios(ours, theirs)
        print_agreement(*fingerprints.values())


def copy_few(whole: DatasetFolders, few: DatasetFolders) -> DatasetFolders:
    """Makes a dataset of the first cases of another."""
    shutil.rmtree(few.raw, ignore_errors=True)
    dataset = Dataset.open(whole.raw)
    cases = dataset.cases[:FEW_CASES]
    for case in cases:
        for path in (*case.images, case.label):
            copy = few.raw / path.relative_to(whole.raw)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    dataset.info.save(few.raw / "dataset.json", {"numTraining": len(cases)})
    return few


def run_ours(folders: DatasetFolders, number: int, workspace: Workspace) -> Run:
    """Runs autoseg's command; nothing of an earlier run is there."""
    shutil.rmtree(folders.preprocessed, ignore_errors=True)
    return call_ours(workspace, "fingerprint", number)


def run_reference(python: Path, workspace: Workspace) -> Run:
    """Runs nnU-Net's command with as many workers as there are cores; nothing of an earlier run is there."""
    shutil.rmtree(reference_folders(workspace)["nnUNet_preprocessed"], ignore_errors=True)
    return call_theirs(workspace, python, "extract_fingerprint", NUMBER, "-np", CORES)


def print_runs(rows: dict[str, list[Run]]) -> None:
    """Prints a line for each program and dataset."""
    print("\n| program | seconds, least | seconds, median | MB, all processes | MB, largest process |")
    print("|---|---|---|---|---|")
    for name, runs in rows.items():
        seconds = [run.seconds for run in runs]
        everything = max(run.all_processes for run in runs) / MEGABYTE
        largest = max(run.largest_process for run in runs) / MEGABYTE
        print(f"| {name} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {everything:.0f} | {largest:.0f} |")


def print_ratios(ours: list[Run], theirs: list[Run]) -> None:
    """Prints how many times as long nnU-Net takes: the shortest runs compared, and pair by pair."""
    least = min(run.seconds for run in theirs) / min(run.seconds for run in ours)
    pairs = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True)]
    print(f"\nnnU-Net takes {least:.1f} times as long, the shortest runs compared;", end=" ")
    print(f"{', '.join(f'{ratio:.1f}' for ratio in pairs)} times pair by pair.")


def print_intensities(fingerprints: dict[str, Fingerprint]) -> None:
    """Prints the intensities of the foreground, which must agree but for nnU-Net's sampling."""
    print("\n| foreground of channel 0 | mean | deviation | 0.5 % | median | 99.5 % | least | most |")
    print("|---|---|---|---|---|---|---|---|")
    for name, fingerprint in fingerprints.items():
        facts = fingerprint.channels[0]
        low, middle, high = facts.percentile_00_5, facts.median, facts.percentile_99_5
        numbers = (facts.mean, facts.std, low, middle, high, facts.minimum, facts.maximum)
        print(f"| {name} | {' | '.join(f'{number:.2f}' for number in numbers)} |")


def print_agreement(ours: Fingerprint, theirs: Fingerprint) -> None:
    """Prints whether the shapes and spacings of all cases are the same."""
    grids = [[(case.shape_after_crop, case.spacing_mm) for case in each.cases] for each in (ours, theirs)]
    print(f"\nShapes and spacings of all cases agree: {'yes' if grids[0] == grids[1] else 'NO'}.")


if __name__ == "__main__":
    main()
