"""What this machine has: the cores and the memory that work may take, and whether it may have a GPU."""

import os
import sys
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
MEMORY_STATE = Path("/proc/meminfo")

DEVICES = Path("/dev")
# Files that drivers make: of NVIDIA's cards, of its boards, of AMD's cards, and of either in Windows' Linux
GPU_FILES = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dxg")


def count_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes() -> int | None:
    """Memory that can still be taken before the system swaps or kills; None if it does not say, as Windows and macOS.

    In a container, or in a job of a cluster, that is what the control group allows if it is less.
    """
    try:
        lines = dict(line.split(":", 1) for line in MEMORY_STATE.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return min([free, *_free_in_groups()])


def may_have_gpu() -> bool:
    """Whether it is worth asking torch, which takes a second to load, for a CUDA GPU: no, if there is no driver."""
    return sys.platform != "linux" or any(any(DEVICES.glob(pattern)) for pattern in GPU_FILES)


def _free_in_groups() -> list[int]:
    """What each control group around this process has left, if it is limited; only those of version 2 are known."""
    try:
        entries = [line.removeprefix("0::/") for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::/")]
    except OSError:
        return []
    free = []
    for entry in entries:
        for folder in (group := CONTROL_GROUPS / entry, *group.parents):
            if not folder.is_relative_to(CONTROL_GROUPS):
                break
            try:
                limit = int((folder / "memory.max").read_text())  # "max" if there is no limit
                used = int((folder / "memory.current").read_text()) - _cached_bytes(folder)
            except (OSError, ValueError):
                continue
            free.append(max(0, limit - used))
    return free


def _cached_bytes(group: Path) -> int:
    """Memory that holds copies of files, which the system gives up first."""
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0
