"""The fingerprint beside nnU-Net's: seconds and memory, in alternating runs over the same files.

    python tests/benchmarks/fingerprint.py PATH/TO/Task04_Hippocampus WORKSPACE --nnunet PATH/TO/python [--pairs 3]

Each run is a process of its own, as a user would type the command, from its start to its end. PATH/TO/python belongs to
an environment with nnU-Net v2. Memory is watched while the commands run: the sum over all processes of a command, in
which pages that processes share count once for each, and the largest process as the system reports it. Needs Linux.
Prints tables in Markdown for RESULTS.md. The data are those of the Medical Segmentation Decathlon, task 4.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.workspace import DatasetFolders, Workspace

NUMBER, FEW_NUMBER = 4, 26
FEW_CASES = 26
LOOK_SECONDS = 0.02
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run of a command took; memory in bytes, at most."""

    seconds: float
    all_processes: int
    largest_process: int


def main() -> None:
    """Runs the commands and prints what they took and found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--nnunet", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    workspace = Workspace(root=arguments.workspace.resolve())
    whole = import_whole(arguments.source, workspace)
    few = copy_few(whole, workspace.folders(f"Dataset{FEW_NUMBER:03d}_FewHippocampi"))

    ours, ours_few, theirs = [], [], []
    for number in range(1, arguments.pairs + 1):
        print(f"pair {number} of {arguments.pairs}", flush=True)
        ours_few.append(run_ours(few, FEW_NUMBER, workspace))
        ours.append(run_ours(whole, NUMBER, workspace))
        theirs.append(run_reference(arguments.nnunet, workspace))

    print_runs({"autoseg, 26 cases": ours_few, "autoseg, 260 cases": ours, "nnU-Net, 260 cases": theirs})
    print_ratios(ours, theirs)
    reference = reference_folders(workspace)["nnUNet_preprocessed"] / whole.raw.name / "dataset_fingerprint.json"
    print_facts({"autoseg": Fingerprint.load(whole.fingerprint), "nnU-Net": read_fingerprint(reference)})


def import_whole(source: Path, workspace: Workspace) -> DatasetFolders:
    """Brings the dataset into the workspace, unless an earlier run did."""
    if not workspace.names(NUMBER):
        command = [sys.executable, "-m", "autoseg", "import", source, "-d", NUMBER, "-w", workspace.root]
        subprocess.run([str(part) for part in command], check=True)
    return workspace.dataset(NUMBER)


def copy_few(whole: DatasetFolders, few: DatasetFolders) -> DatasetFolders:
    """Makes a dataset of the first cases of another."""
    shutil.rmtree(few.raw, ignore_errors=True)
    dataset = Dataset.open(whole.raw)
    for case in dataset.cases[:FEW_CASES]:
        for path in (*case.images, case.label):
            copy = few.raw / path.relative_to(whole.raw)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    dataset.info.save(few.raw / "dataset.json", {"numTraining": FEW_CASES})
    return few


def run_ours(folders: DatasetFolders, number: int, workspace: Workspace) -> Run:
    """Takes our fingerprint from nothing."""
    shutil.rmtree(folders.preprocessed, ignore_errors=True)
    command = [sys.executable, "-m", "autoseg", "fingerprint", "-d", str(number), "-w", str(workspace.root)]
    return watch(command, workspace.root / "fingerprint.log")


def run_reference(python: Path, workspace: Workspace) -> Run:
    """Takes nnU-Net's fingerprint from nothing, in two processes."""
    folders = reference_folders(workspace)
    shutil.rmtree(folders["nnUNet_preprocessed"], ignore_errors=True)
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    command = [str(python.with_name("nnUNetv2_extract_fingerprint")), "-d", str(NUMBER), "-np", "2"]
    return watch(command, workspace.root / "fingerprint.log", {name: str(path) for name, path in folders.items()})


def reference_folders(workspace: Workspace) -> dict[str, Path]:
    """What nnU-Net wants in the environment; its raw format is ours, so that folder is shared."""
    return {
        "nnUNet_raw": workspace.raw,
        "nnUNet_preprocessed": workspace.root / "nnunet_preprocessed",
        "nnUNet_results": workspace.root / "nnunet_results",
    }


def watch(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Run:
    """Runs a command to its end, and looks at its memory all the while."""
    most = 0
    with log.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **(environment or {})})
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            most = max(most, sum(resident_bytes(process_id) for process_id in family(process.pid)))
            time.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed, see {log}")
    return Run(seconds=seconds, all_processes=most, largest_process=usage.ru_maxrss * 1024)


def family(process_id: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [process_id]
    for member in found:  # grows on the way
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            found += map(int, read_if_there(children).split())
    return found


def resident_bytes(process_id: int) -> int:
    """Memory that a process holds; 0 once it has ended."""
    pages = read_if_there(Path(f"/proc/{process_id}/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def read_if_there(path: Path) -> str:
    """Text of a file of the system, empty if its process has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def print_runs(rows: dict[str, list[Run]]) -> None:
    """A line per program and dataset."""
    print("\n| program | seconds, least | seconds, median | MB, all processes | MB, largest process |")
    print("|---|---|---|---|---|")
    for name, runs in rows.items():
        seconds = [run.seconds for run in runs]
        everything = max(run.all_processes for run in runs) / MEGABYTE
        largest = max(run.largest_process for run in runs) / MEGABYTE
        print(f"| {name} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {everything:.0f} | {largest:.0f} |")


def print_ratios(ours: list[Run], theirs: list[Run]) -> None:
    """How many times as long the reference takes: the least against the least, and pair by pair."""
    least = min(run.seconds for run in theirs) / min(run.seconds for run in ours)
    pairs = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True)]
    print(f"\nnnU-Net takes {least:.1f} times as long, the shortest runs compared;", end=" ")
    print(f"{', '.join(f'{ratio:.1f}' for ratio in pairs)} times pair by pair.")


def print_facts(fingerprints: dict[str, Fingerprint]) -> None:
    """What both found, which must agree."""
    print("\n| foreground of channel 0 | mean | deviation | 0.5 % | median | 99.5 % | least | most |")
    print("|---|---|---|---|---|---|---|---|")
    for name, fingerprint in fingerprints.items():
        facts = fingerprint.channels[0]
        low, middle, high = facts.percentile_00_5, facts.median, facts.percentile_99_5
        numbers = (facts.mean, facts.std, low, middle, high, facts.minimum, facts.maximum)
        print(f"| {name} | {' | '.join(f'{number:.2f}' for number in numbers)} |")
    grids = [[(case.shape_after_crop, case.spacing_mm) for case in one.cases] for one in fingerprints.values()]
    print(f"\nShapes and spacings of all cases agree: {'yes' if grids[0] == grids[1] else 'NO'}.")


if __name__ == "__main__":
    main()
