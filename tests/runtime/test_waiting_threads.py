"""Tests of how threads wait; the library of OpenMP says itself, in fresh processes, what is in force."""

import os
import re
import subprocess
import sys

import pytest
import torch  # noqa: F401 - loads its library of OpenMP
from threadpoolctl import threadpool_info

from autoseg.runtime.waiting_threads import SETTINGS_OF_USERS, VARIABLES, let_waiting_threads_sleep

DOORS = {
    "notebook": "import autoseg",
    "console script": "from autoseg.__main__ import main",
    "python -m": """
import contextlib, runpy, sys
sys.argv = ["autoseg", "--version"]
with contextlib.suppress(SystemExit):
    runpy.run_module("autoseg", run_name="__main__")
""",
    "a module of the package": "import autoseg.training.loop",
}
COMMAND_OF_A_WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import torch'], check=True)"

LIBRARIES = {library["prefix"]: library["filepath"] for library in threadpool_info() if library["user_api"] == "openmp"}
only_libgomp = pytest.mark.skipif("libgomp" not in LIBRARIES, reason="torch has another library of OpenMP")

LOAD = f"import ctypes; ctypes.CDLL({LIBRARIES.get('libgomp')!r})"
"""Loads torch's library of OpenMP as torch does, without all that else takes seconds to load."""


def settings_in_force(code: str, **variables: str) -> list[tuple[str, str]]:
    """Runs code in a fresh process; returns spin count and wait policy as each library says them when it is loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS_OF_USERS}
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE", **variables},
    )
    counts = re.findall(r"GOMP_SPINCOUNT = '(\w+)'", process.stderr)
    return list(zip(counts, re.findall(r"OMP_WAIT_POLICY = '(\w+)'", process.stderr), strict=True))


@only_libgomp
@pytest.mark.parametrize("door", DOORS)
def test_waiting_threads_soon_sleep(door: str) -> None:
    """Through every door, without anything that the user sets; one of them loads torch itself."""
    in_force = settings_in_force(f"{DOORS[door]}\n{LOAD}")
    assert set(in_force) == {(VARIABLES["GOMP_SPINCOUNT"], VARIABLES["OMP_WAIT_POLICY"])}


@pytest.mark.slow
@only_libgomp
def test_processes_that_are_started_inherit_it() -> None:
    """Also those of a program that has not loaded torch itself."""
    in_force = settings_in_force(f"import autoseg\n{COMMAND_OF_A_WORKER}")
    assert set(in_force) == {(VARIABLES["GOMP_SPINCOUNT"], VARIABLES["OMP_WAIT_POLICY"])}


@only_libgomp
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GOMP_SPINCOUNT": "7"}, ("7", "PASSIVE")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("30000000000", "ACTIVE")),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, ("0", "PASSIVE")),
    ],
)
def test_setting_of_the_user_wins(variables: dict[str, str], expected: tuple[str, str]) -> None:
    """Then nothing else is set either, which could contradict it."""
    assert set(settings_in_force(f"import autoseg\n{LOAD}", **variables)) == {expected}


@pytest.mark.slow
@only_libgomp
def test_nothing_changes_after_torch_was_loaded() -> None:
    """The library would not read it any more, and processes that are started would differ from this one."""
    usual = settings_in_force("import torch")
    both = settings_in_force(f"import torch, autoseg\nautoseg.Plan\n{COMMAND_OF_A_WORKER}")
    assert len(both) == 2 * len(usual)
    assert set(both) == set(usual)


@pytest.mark.parametrize("name", SETTINGS_OF_USERS)
def test_every_setting_of_the_user_is_respected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library."""
    monkeypatch.delitem(sys.modules, "torch")
    environment = {name: "1"}
    let_waiting_threads_sleep(environment)
    assert environment == {name: "1"}
    let_waiting_threads_sleep(environment := {})
    assert environment == VARIABLES
