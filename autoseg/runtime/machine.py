"""The resources of this machine: processor, cores and free memory, and whether there may be a GPU."""

import ctypes
import os
import platform
import sys
from pathlib import Path

PROCESSOR_FACTS = Path("/proc/cpuinfo")
SPEED_LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS")
"""Environment variables that limit the instruction set, or the threads, of torch."""

CORES_OF_JOBS = ("SLURM_CPUS_PER_TASK", "NCPUS")
"""Environment variables that hold the number of cores of a job, of Slurm and of PBS."""

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
MEMORY_STATE = Path("/proc/meminfo")

DEVICES = Path("/dev")
GPU_FILES = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dxg")
"""Device files of drivers: of NVIDIA's cards, of its boards (two), of AMD's cards, and of WSL for either."""

# Options of `mallopt` of the C library of GNU, by their numbers in its header: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and
# M_ARENA_MAX
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LARGEST_KEPT = 2**30
"""Size in bytes of the largest array whose memory is kept."""


def count_cores() -> int:
    """Returns the number of cores that this process may use, which can be fewer than the machine has.

    A job of a cluster may be confined to its cores, or only be told how many it has.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = [int(os.environ[name]) for name in CORES_OF_JOBS if os.environ.get(name, "").isdecimal()]
    return max(1, min([cores, *told]))


def identify_machine() -> str:
    """Returns the processor, its cores and the limits of the environment: what decides how fast torch calculates.

    An example: "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz, 4 cores".
    """
    limits = [f"{name}={os.environ[name]}" for name in SPEED_LIMITS if os.environ.get(name)]
    return ", ".join([_processor(), f"{count_cores()} cores", *limits])


def is_busy() -> bool:
    """Returns whether other programs have kept the cores busy for the last minute, as far as the system tells.

    Decision: three quarters of the cores; with fewer, two threads find cores of their own.
    """
    return hasattr(os, "getloadavg") and os.getloadavg()[0] >= 0.75 * count_cores()


def _processor() -> str:
    """Returns the model of the processor, as far as the system tells it."""
    try:
        for line in PROCESSOR_FACTS.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"


def free_memory_bytes() -> int | None:
    """Returns the memory that can still be taken before the system swaps or kills processes, in bytes.

    In a container, or in a job of a cluster, the limit of the control group counts if it is lower.

    Returns:
        None if the system does not say, as on Windows and macOS.
    """
    try:
        lines = dict(line.split(":", 1) for line in MEMORY_STATE.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return min([free, *_free_in_groups()])


def retain_freed_memory() -> None:
    """Makes this process keep freed memory for its next arrays, instead of returning it to the system.

    The system would fill the memory with zeros each time it is taken again. A network on a CPU allocates and frees
    feature maps of a hundred megabytes, layer by layer. With patches of 96 x 96 x 96 voxels it takes 0.65 of the time
    this way (measured on two cores). There is one arena, because the C library maps memory that other threads than the
    first ask for. Arrays of more than a gigabyte are returned to the system as before. Only the C library of GNU has
    these options; elsewhere nothing changes.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(ARENA_MAX, 1)


def release_freed_memory() -> None:
    """Returns the memory that `retain_freed_memory` kept to the system, before a large array is allocated."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def may_have_gpu() -> bool:
    """Returns whether there may be a CUDA GPU, so that it is worth asking torch, which takes a second to load.

    There is none if there is no driver.
    """
    return sys.platform != "linux" or any(any(DEVICES.glob(pattern)) for pattern in GPU_FILES)


def _free_in_groups() -> list[int]:
    """Returns the free bytes of each control group (version 2) of this process that limits its memory."""
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
                limit = int((folder / "memory.max").read_text())  # fails on "max", if there is no limit
                used = int((folder / "memory.current").read_text()) - _cached_bytes(folder)
            except (OSError, ValueError):
                continue
            free.append(max(0, limit - used))
    return free


def _cached_bytes(group: Path) -> int:
    """Returns the bytes that hold copies of files, which the system frees first."""
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0
