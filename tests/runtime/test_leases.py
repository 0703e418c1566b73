"""Leases of runs that share a work: each item belongs to one run, and what a run that ended had begun is taken over."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autoseg.errors import AutosegError, WriteError
from autoseg.runtime import leases as module
from autoseg.runtime.leases import Leases, open_leases

TAKE_AND_END = """
import os, sys
from pathlib import Path
from autoseg.runtime.leases import open_leases
with open_leases(Path(sys.argv[1])) as leases:
    assert all(leases.take(name) for name in sys.argv[2:])
    os._exit(0)
"""


def end_with(folder: Path, *names: str) -> None:
    """Runs another program that takes items and ends without giving them back."""
    subprocess.run([sys.executable, "-c", TAKE_AND_END, str(folder), *names], check=True)


def test_many_runs_take_each_item_once(tmp_path):
    """Twenty runs at the same time; nothing is left when they have ended."""
    names, folder = [f"case_{number}" for number in range(30)], tmp_path / "leases"

    def run(_: int) -> list[str]:
        taken = []
        with open_leases(folder) as leases:
            for name in names:
                if name not in finished and leases.take(name):
                    if name not in finished:
                        finished.append(name)
                        taken.append(name)
                    leases.release(name)
        return taken

    finished: list[str] = []
    with ThreadPoolExecutor(20) as pool:
        taken = [name for names_of_run in pool.map(run, range(20)) for name in names_of_run]
    assert sorted(taken) == sorted(names)
    assert not folder.exists()


def test_what_a_process_of_this_machine_had_is_taken_over_at_once(tmp_path):
    """By one run only, and only by a run that takes over."""
    end_with(tmp_path, "a", "b")
    with open_leases(tmp_path) as leases, open_leases(tmp_path) as others:
        assert not leases.take("a", take_over=False)
        assert leases.take("a")
        assert leases.is_taken_over("a")
        assert not others.take("a")
        assert others.take("c")
        assert not others.is_taken_over("c")
        leases.release("a")
        assert others.take("a")
        assert not others.is_taken_over("a")
    assert not tmp_path.exists()


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of this run."""
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leases:
    """The leases of a run on another machine, whose pulse is raised by hand."""
    with monkeypatch.context() as patches:
        patches.setattr(module, "identify_system", lambda: "0123abcd")
        patches.setattr("platform.node", lambda: "node 4")
        leases = Leases(tmp_path)
    assert leases.take("a")
    return leases


def test_another_machine_has_ended_when_its_pulse_stands_still(tmp_path, clock, elsewhere):
    """Seen from here, for as long as it takes, whatever the clocks and time stamps of others say."""
    with open_leases(tmp_path) as leases:
        assert not leases.take("a")
        clock.now = module.EXPIRED_SECONDS - 1
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        assert not leases.take("a")
        assert leases.describe_others() == "node4"
        elsewhere._beat()
        clock.now += 2
        assert not leases.take("a")
        assert elsewhere.holds("a")
        clock.now += module.EXPIRED_SECONDS
        assert leases.take("a")
        assert not elsewhere.holds("a")
        elsewhere.release("a")
        assert leases.holds("a")


def test_a_lease_that_says_nothing_expires(tmp_path, clock):
    """Its run was killed between two steps, and cannot be told from one that is about to write."""
    tmp_path.joinpath("a.1").touch()
    with open_leases(tmp_path) as leases:
        assert not leases.take("a")
        clock.now = module.EXPIRED_SECONDS + 1
        assert leases.take("a")


def test_a_run_whose_item_was_given_back_meanwhile_takes_nothing_over(tmp_path, monkeypatch):
    """Else two runs would have it: one that took it over, and one that took it anew."""
    end_with(tmp_path, "a")
    with open_leases(tmp_path) as slow, open_leases(tmp_path) as leases, open_leases(tmp_path) as third:
        make = slow._make

        def make_late(name: str, number: int) -> bool:
            assert leases.take(name)
            leases.release(name)
            assert third.take(name)
            return make(name, number)

        monkeypatch.setattr(slow, "_make", make_late)
        assert not slow.take("a")
        assert third.holds("a")


def test_an_item_that_ends_its_runs_is_refused(tmp_path):
    """It would end one machine after the other; it stays refused until somebody does it alone."""
    with open_leases(tmp_path) as others:
        assert others.take("b")
        for _ in range(module.MOST_RUNS):
            end_with(tmp_path, "a")
        for _ in range(2):
            with open_leases(tmp_path) as leases, pytest.raises(AutosegError, match="'a': 3 runs ended while they"):
                leases.take("a")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """Before any work begins."""
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"), open_leases(tmp_path / "file" / "leases"):
        pass


def test_the_pulse_goes_on(tmp_path, monkeypatch):
    """Whatever the run is doing."""
    monkeypatch.setattr(module, "PULSE_SECONDS", 0.01)
    with open_leases(tmp_path) as leases:
        [path] = tmp_path.iterdir()
        first = path.read_text()
        while path.read_text() == first:
            assert not leases.wait(0.01)
