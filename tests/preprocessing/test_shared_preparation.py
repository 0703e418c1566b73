"""Preprocessing that several runs share by leases: each case is prepared once, though one of the runs is killed."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of, write_volumes

from autoseg.errors import DatasetError, ProblemsError
from autoseg.pipeline.datasets import plan_and_preprocess, preprocess
from autoseg.preprocessing import dataset as module
from autoseg.runtime import leases
from autoseg.workspace import DatasetFolders

CASES = 10

RUN = """
import sys, time
from pathlib import Path
from autoseg.pipeline.datasets import preprocess
from autoseg.preprocessing import dataset

log, hangs_after = Path(sys.argv[2]), int(sys.argv[3])
load, calls = dataset.load_case, []

def load_slowly(case, info):
    calls.append(case.name)
    with log.open("a") as file:
        file.write(case.name + "\\n")
    time.sleep(1000 if len(calls) > hangs_after else 0.02)
    return load(case, info)

dataset.load_case = load_slowly
preprocess(1, part="any", workspace=sys.argv[1])
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetFolders:
    """A workspace whose cases are prepared."""
    write_volumes(tmp_path, cases=CASES)
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 3000)
    plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path)
    return folders_of(tmp_path)


def contents(folders: DatasetFolders) -> dict[str, bytes]:
    """The prepared cases of all configurations."""
    paths = folders.preprocessed.glob("*d*/*.zip")
    return {str(path.relative_to(folders.preprocessed)): path.read_bytes() for path in paths}


def forget(folders: DatasetFolders) -> dict[str, bytes]:
    """Removes the prepared cases, and returns what they were."""
    whole = contents(folders)
    for names in ("2d", "3d_fullres"):
        shutil.rmtree(folders.cases(names))
    return whole


def start(folders: DatasetFolders, log: Path, *, hangs_after: int = 1000) -> subprocess.Popen[bytes]:
    """Starts a run, which notes each case that it begins, and may stop answering after some of them."""
    log.touch()
    words = [sys.executable, "-c", RUN, folders.raw.parents[1], log, hangs_after]
    return subprocess.Popen([str(word) for word in words])


def wait_for_lines(log: Path, count: int) -> None:
    """Waits until a run has begun so many cases."""
    while len(log.read_text().split()) < count:
        time.sleep(0.02)


@pytest.fixture
def stopped_at_end() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that do not survive a test that fails."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_runs_of_which_one_is_killed(folders, tmp_path, stopped_at_end):
    """What the killed one had in work is taken over, and nothing else is made twice; the result is that of one run."""
    whole = forget(folders)
    logs = [tmp_path / f"log_{number}" for number in range(3)]
    stopped_at_end.append(killed := start(folders, logs[0], hangs_after=2))
    wait_for_lines(logs[0], 3)
    others = [start(folders, log) for log in logs[1:]]
    stopped_at_end += others
    wait_for_lines(logs[1], 1)
    killed.kill()
    killed.wait()
    assert [other.wait(timeout=120) for other in others] == [0, 0]

    begun = Counter(name for log in logs for name in log.read_text().split())
    assert len(begun) == CASES
    twice = {name for name, times in begun.items() if times > 1}
    assert len(twice) <= len(logs[0].read_text().split()) - 2
    assert twice <= set(logs[0].read_text().split())
    assert max(begun.values()) <= 2
    assert contents(folders) == whole
    assert [path.name for path in folders.preprocessed.iterdir() if path.name[0] == "."] == []


def test_a_run_that_shares_with_nobody_makes_all(folders):
    """And a later one finds all of it there."""
    whole, listener = forget(folders), Listener()
    preprocess(NUMBER, part="any", workspace=folders.raw.parents[1], reporter=listener)
    assert contents(folders) == whole
    assert not any("other runs" in line for line in listener.lines)
    preprocess(NUMBER, part="any", workspace=folders.raw.parents[1], reporter=listener)
    assert f"{CASES} of {CASES} cases were prepared for 2d, 3d_fullres by other runs" in listener.lines
    assert not folders.leases.exists()


def test_a_run_waits_for_what_another_has_in_work(folders, monkeypatch):
    """It ends when all cases are there, and says for what it waits."""
    monkeypatch.setattr("autoseg.runtime.shared_work.LOOK_SECONDS", 0.01)
    whole, listener, root = forget(folders), Listener(), folders.raw.parents[1]
    with leases.open_leases(folders.leases) as other:
        assert other.take("case_1")
        say = listener.say

        def say_and_release(line: str) -> None:
            say(line)
            if line.startswith("waiting for what other runs have in work: case_1 ("):
                assert len(contents(folders)) == len(whole) - 2
                other.release("case_1")

        monkeypatch.setattr(listener, "say", say_and_release)
        preprocess(NUMBER, part="any", workspace=root, reporter=listener)
        assert contents(folders) == whole


def test_a_run_whose_case_was_taken_over_writes_nothing(folders, monkeypatch):
    """The other one is about to write the same."""
    forget(folders)
    make, taken_over = module.preprocess_case, []

    def lose(*arguments: object, **options: object) -> object:
        for path in sorted(folders.leases.glob("case_1.1")):
            taken_over.append(path)
            path.with_name("case_1.2").write_text("another run")
        return make(*arguments, **options)

    monkeypatch.setattr(module, "preprocess_case", lose)
    monkeypatch.setattr(leases, "EXPIRED_SECONDS", 0.0)
    monkeypatch.setattr("autoseg.runtime.shared_work.LOOK_SECONDS", 0.01)
    written: list[str] = []
    save = module.save_case
    monkeypatch.setattr(
        module, "save_case", lambda folder, name, *a, **b: written.append(name) or save(folder, name, *a, **b)
    )
    preprocess(NUMBER, part="any", workspace=folders.raw.parents[1])
    assert taken_over
    assert sorted(written) == sorted(f"case_{number + 1}" for number in range(CASES) for _ in range(2))


def test_a_case_that_cannot_be_prepared_is_named(folders, monkeypatch):
    """All others are prepared, and no lease is left."""
    whole, load = forget(folders), module.load_case

    def fail(case, info):
        if case.name == "case_3":
            raise DatasetError("case 'case_3' is bad", "mend it")
        return load(case, info)

    monkeypatch.setattr(module, "load_case", fail)
    with pytest.raises(ProblemsError, match="case 'case_3' is bad"):
        preprocess(NUMBER, part="any", workspace=folders.raw.parents[1])
    assert len(contents(folders)) == len(whole) - 2
    assert not folders.leases.exists()
