"""Runs commands of autoseg and of nnU-Net as a user types them, and watches their time and memory.

Each command is a process of its own, watched from its start to its end. Memory is looked at while it runs: the sum over
all its processes, in which pages that processes share count once for each, and the largest process as the system
reports it. Needs Linux.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.workspace import DatasetFolders, Workspace

CORES = 2
NUMBER = 4
"""Number of the hippocampus dataset in a workspace."""
LOOK_SECONDS = 0.02
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Time and memory of one run of a command.

    Attributes:
        seconds: From the start of the process to its end.
        all_processes: The most bytes that all processes of the command held together.
        largest_process: The most bytes that one process held.
        processor_seconds: Time of all its threads and processes on the processor.
    """

    seconds: float
    all_processes: int
    largest_process: int
    processor_seconds: float = 0.0


def limit_cores() -> None:
    """Keeps this process, and those that it starts, to two cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def import_hippocampus(source: Path, workspace: Workspace) -> DatasetFolders:
    """Imports task 4 of the Medical Segmentation Decathlon into the workspace, unless an earlier run did."""
    if not workspace.names(NUMBER):
        command = [sys.executable, "-m", "autoseg", "import", source, "-d", NUMBER, "-w", workspace.root]
        subprocess.run([str(part) for part in command], check=True)
    return workspace.dataset(NUMBER)


def call_ours(workspace: Workspace, command: str, number: int, *options: object) -> Run:
    """Runs a command of autoseg for a dataset."""
    words = [sys.executable, "-m", "autoseg", command, "-d", number, *options, "-w", workspace.root]
    return watch([str(word) for word in words], workspace.root / f"{command}.log")


def call_theirs(workspace: Workspace, python: Path, command: str, number: int, *options: object) -> Run:
    """Runs a command of nnU-Net for a dataset; `python` is the interpreter of its environment."""
    folders = reference_folders(workspace)
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    words = [python.with_name(f"nnUNetv2_{command}"), "-d", number, *options]
    environment = {name: str(path) for name, path in folders.items()}
    return watch([str(word) for word in words], workspace.root / f"nnunet_{command}.log", environment)


def reference_folders(workspace: Workspace) -> dict[str, Path]:
    """Returns the folders that nnU-Net's environment variables name; its raw format is ours, so that one is shared."""
    return {
        "nnUNet_raw": workspace.raw,
        "nnUNet_preprocessed": workspace.root / "nnunet_preprocessed",
        "nnUNet_results": workspace.root / "nnunet_results",
    }


def reference_cases(folders: DatasetFolders, workspace: Workspace, configuration: str) -> Path:
    """Returns the folder where nnU-Net keeps the preprocessed cases of a configuration."""
    return reference_folders(workspace)["nnUNet_preprocessed"] / folders.raw.name / f"nnUNetPlans_{configuration}"


def forget(folders: DatasetFolders, workspace: Workspace) -> None:
    """Removes what both programs prepared of a dataset."""
    shutil.rmtree(folders.preprocessed, ignore_errors=True)
    shutil.rmtree(reference_cases(folders, workspace, "").parent, ignore_errors=True)


def watch(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Run:
    """Runs a command to its end and watches its memory; what it prints goes into the log.

    Raises:
        SystemExit: The command failed.
    """
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
    return Run(
        seconds=seconds,
        all_processes=most,
        largest_process=usage.ru_maxrss * 1024,
        processor_seconds=usage.ru_utime + usage.ru_stime,
    )


def family(process_id: int) -> list[int]:
    """Returns the numbers of a process and of all that it started, directly or not."""
    members = [process_id]
    for member in members:  # grows on the way
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            members += map(int, read_process_file(children).split())
    return members


def resident_bytes(process_id: int) -> int:
    """Returns the memory that a process holds; 0 once it has ended."""
    pages = read_process_file(Path(f"/proc/{process_id}/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def read_process_file(path: Path) -> str:
    """Returns the text of a file that the system keeps about a process; empty if the process has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
