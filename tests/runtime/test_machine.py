"""Tests of the cores and the free memory of the machine."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.runtime import machine
from autoseg.runtime.machine import count_cores, free_memory_bytes, may_have_gpu


def test_there_is_a_core():
    """There is at least the core that runs this test."""
    assert count_cores() >= 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, 8), ({"SLURM_CPUS_PER_TASK": "3"}, 3), ({"NCPUS": "2"}, 2), ({"NCPUS": "64"}, 8), ({"NCPUS": "x"}, 8)],
)
def test_a_job_of_a_cluster_has_the_cores_that_it_was_given(monkeypatch, variables, expected):
    """Slurm does not confine it to them everywhere."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name in machine.CORES_OF_JOBS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert count_cores() == expected


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux says")
def test_memory_of_this_machine_is_known():
    """Some memory is free, and less than a petabyte."""
    free = free_memory_bytes()
    assert free is not None
    assert 10**6 < free < 10**15


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """Pretends to be a machine with 2 GB available, in the control group /job/step."""
    (tmp_path / "meminfo").write_text("MemTotal:  8000000 kB\nMemAvailable:  2000000 kB\n")
    (tmp_path / "cgroup").write_text("4:memory:/other\n0::/job/step\n")
    (tmp_path / "groups" / "job" / "step").mkdir(parents=True)
    monkeypatch.setattr(machine, "MEMORY_STATE", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path / "groups")
    return tmp_path


def limit(group: Path, *, most: str, used: int, cached: int) -> None:
    """Sets the limit of a control group."""
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\nfile 9\n")


def test_free_memory_is_what_the_system_calls_available(pretended):
    """This holds without a limit of the control group."""
    assert free_memory_bytes() == 2000000 * 1024
    limit(pretended / "groups" / "job" / "step", most="max", used=5, cached=0)
    assert free_memory_bytes() == 2000000 * 1024


def test_a_job_has_what_its_group_allows(pretended):
    """The lowest limit of all enclosing groups counts; copies of files count as free."""
    limit(pretended / "groups" / "job" / "step", most="1000", used=700, cached=100)
    assert free_memory_bytes() == 400
    limit(pretended / "groups" / "job", most="900", used=700, cached=100)
    assert free_memory_bytes() == 300
    limit(pretended / "groups" / "job", most="900", used=1200, cached=100)
    assert free_memory_bytes() == 0


def test_a_system_that_does_not_say_is_unknown(pretended):
    """Windows and macOS have no such files."""
    (pretended / "meminfo").unlink()
    assert free_memory_bytes() is None


def test_no_groups_is_no_limit(pretended):
    """Old Linux systems have no control groups of version 2."""
    (pretended / "cgroup").unlink()
    assert free_memory_bytes() == 2000000 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere drivers have other signs")
@pytest.mark.parametrize("name", ["nvidiactl", "nvhost-gpu", "kfd", "dxg"])
def test_a_driver_shows_that_there_may_be_a_gpu(tmp_path, monkeypatch, name):
    """The device file of any driver counts; without one, torch need not be asked."""
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    (tmp_path / "null").touch()
    assert not may_have_gpu()
    (tmp_path / name).touch()
    assert may_have_gpu()


KEEPING = """
import ctypes, os, sys
from pathlib import Path
from autoseg.runtime.machine import release_freed_memory, retain_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if sys.argv[1] == "keep":
    retain_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
library.malloc.argtypes = [ctypes.c_size_t]
before, size = resident(), 200_000_000
block = library.malloc(size)
ctypes.memset(block, 1, size)
library.free(block)
kept = resident() - before
release_freed_memory()
print(kept > size / 2, resident() - before > size / 2)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not GNU's")
@pytest.mark.parametrize(("how", "expected"), [("keep", "True False"), ("usual", "False False")])
def test_freed_memory_is_kept_until_it_is_given_back(how, expected):
    """The process keeps 200 MB if it was told to retain memory, until it releases it."""
    done = subprocess.run([sys.executable, "-c", KEEPING, how], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_a_machine_is_known_by_processor_cores_and_limits(tmp_path, monkeypatch):
    """What changes the speed of torch changes the name of the machine."""
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nmodel name\t: Fast CPU @ 3 GHz\n")
    monkeypatch.setattr(machine, "PROCESSOR_FACTS", facts)
    for name in machine.SPEED_LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert machine.identify_machine() == f"Fast CPU @ 3 GHz, {count_cores()} cores"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine.identify_machine().endswith(" cores, ONEDNN_MAX_CPU_ISA=AVX2")


@pytest.mark.parametrize("text", [None, "processor: 0\n"])
def test_a_machine_without_a_model_name_has_its_kind(tmp_path, monkeypatch, text):
    """Systems without /proc, and processors that do not tell."""
    facts = tmp_path / "cpuinfo"
    if text is not None:
        facts.write_text(text)
    monkeypatch.setattr(machine, "PROCESSOR_FACTS", facts)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    assert machine.identify_machine().startswith("arm64, ")


@pytest.mark.parametrize(("load_per_core", "busy"), [(0.1, False), (0.7, False), (0.8, True), (4, True)])
def test_a_machine_is_busy_by_its_load(monkeypatch, load_per_core, busy):
    """The mean of the last minute counts."""
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load_per_core * count_cores(), 0, 0))
    assert machine.is_busy() == busy


def test_a_system_without_a_load_is_not_busy(monkeypatch):
    """Windows does not tell."""
    monkeypatch.delattr(machine.os, "getloadavg")
    assert not machine.is_busy()
