"""What this machine has: the cores and the memory that work may take, and whether it may have a GPU."""

import ctypes
import os
import sys
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
MEMORY_STATE = Path("/proc/meminfo")

DEVICES = Path("/dev")
# Files that drivers make: of NVIDIA's cards, of its boards, of AMD's cards, and of either in Windows' Linux
GPU_FILES = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dxg")

# Options of the C library's `mallopt`, by the numbers that its header gives them
KEEP_ABOVE, MAP_FROM, MOST_ARENAS = -1, -3, -8
LARGEST_KEPT = 2**30


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


def keep_freed_memory() -> None:
    """Lets this process take freed memory again without asking the system, which would fill it with zeros each time.

    A network on a CPU makes and forgets maps of a hundred megabytes, layer by layer. With patches of 96 x 96 x 96
    voxels it takes 0.65 of the time this way (measured on two cores). One arena, because the C library maps what other
    threads than the first ask for. Arrays of more than a gigabyte go back to the system as before. Only the C library
    of GNU knows these options; elsewhere nothing changes.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(MAP_FROM, LARGEST_KEPT)
        library.mallopt(KEEP_ABOVE, 2**31 - 1)
        library.mallopt(MOST_ARENAS, 1)


def give_back_freed_memory() -> None:
    """Gives the system what `keep_freed_memory` kept, before something large is asked for."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


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
