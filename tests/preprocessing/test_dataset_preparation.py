"""Preprocessing of datasets: continued after interruptions, limited to what is needed, and checked before training."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of, write_volumes

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import CaseFacts
from autoseg.errors import ProblemsError, UsageError, WriteError
from autoseg.pipeline.datasets import plan_and_preprocess
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import Plan
from autoseg.preprocessing import dataset as module
from autoseg.preprocessing.archive import write_archive
from autoseg.preprocessing.dataset import estimate_bytes, prepare_cases
from autoseg.preprocessing.prepared_check import check_prepared
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.lock import run_alone
from autoseg.workspace import DatasetFolders

NAME = "3d_fullres"
CASES = [f"case_{number}" for number in range(1, 6)]
ENOUGH_SECONDS = 60


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose cases are prepared, to be copied."""
    root = tmp_path_factory.mktemp("done")
    write_volumes(root, cases=len(CASES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 3000)
        plan_and_preprocess(NUMBER, configurations=[NAME], preset="small", workspace=root)
    return root


@pytest.fixture
def folders(done: Path, tmp_path: Path) -> DatasetFolders:
    """A copy of it, in which the files are as old as they were."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return folders_of(tmp_path)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that are made, in a list that grows."""
    names: list[str] = []
    save = module.save_case

    def note(folder, name, case, **options):
        names.append(name)
        save(folder, name, case, **options)

    monkeypatch.setattr(module, "save_case", note)
    return names


def prepare(folders: DatasetFolders, *, skip=(), **changes: object) -> str:
    """Prepares the dataset as it is on disk, by the plan with some changes; returns what was said."""
    listener = Listener()
    prepare_cases(Dataset.open(folders.raw).without(skip), changed_plan(folders, **changes), [NAME], folders, listener)
    return listener.text


def check(folders: DatasetFolders, **changes: object) -> None:
    """Checks what was prepared."""
    check_prepared(Dataset.open(folders.raw), changed_plan(folders, **changes), NAME, folders, NUMBER)


def changed_plan(folders: DatasetFolders, **changes: object) -> Plan:
    """The plan, with other values in the configuration."""
    plan = Plan.load(folders.plan)
    configuration = plan.configurations[NAME].model_copy(update=changes)
    return plan.model_copy(update={"configurations": {**plan.configurations, NAME: configuration}})


def contents(folders: DatasetFolders) -> dict[str, bytes]:
    """All files of the configuration."""
    return {path.name: path.read_bytes() for path in folders.cases(NAME).iterdir()}


# --- What is taken over -----------------------------------------------------------------------------------------------


def test_nothing_is_made_twice(folders, made):
    """The same command keeps all cases the second time and says so."""
    before = contents(folders)
    assert prepare(folders) == f"5 of 5 cases were prepared for {NAME} by an earlier run"
    assert made == []
    assert contents(folders) == before


def test_training_settings_change_no_case(folders, made):
    """Batch and patch size make nothing stale, neither for preparing nor for training."""
    before = contents(folders)
    changes = {"batch_size": 7, "patch_size": (8, 8, 8)}
    prepare(folders, **changes)
    check(folders, **changes)
    assert made == []
    assert contents(folders) == before


@pytest.mark.parametrize(
    "changes", [{"spacing_mm": (2.0, 2.0, 2.0)}, {"normalization": (Normalization(scheme="none"),)}]
)
def test_another_plan_makes_all_cases_anew(folders, made, changes):
    """Training refuses until the last case is replaced; what was taken over is not said."""
    before = contents(folders)
    with pytest.raises(UsageError, match=rf"plan\.json has changed since .* for {NAME}; run .* first"):
        check(folders, **changes)
    assert prepare(folders, **changes) == ""
    assert sorted(made) == CASES
    check(folders, **changes)
    with pytest.raises(UsageError, match=r"plan\.json has changed"):
        check(folders)
    assert prepare(folders) == ""
    assert contents(folders) == before


def test_a_change_of_plan_that_was_stopped_is_told(folders, monkeypatch):
    """Some cases follow the new plan, some the old one; neither is trained, and the next run makes only the rest."""
    monkeypatch.setattr("autoseg.runtime.thread_map.count_cores", lambda: 1)
    save, calls = module.save_case, iter(range(10))

    def stop(*arguments, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        save(*arguments, **options)

    coarse = {"spacing_mm": (2.0, 2.0, 2.0)}
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_case", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(folders, **coarse)
    with pytest.raises(UsageError, match=r"in 3 of its cases \(case_3, case_4, case_5\)"):
        check(folders, **coarse)
    with pytest.raises(UsageError, match=r"in 2 of its cases \(case_1, case_2\)"):
        check(folders)
    assert prepare(folders, **coarse) == f"2 of 5 cases were prepared for {NAME} by an earlier run"
    check(folders, **coarse)


def test_a_changed_scan_is_prepared_anew(folders, made):
    """Training goes on with the old case, as it did when it began; preparing makes this one only."""
    path = folders.raw / "imagesTr" / "case_2_0000.nii.gz"
    os.utime(path, ns=(1, 1))
    check(folders)
    prepare(folders)
    assert made == ["case_2"]


def test_cases_that_left_the_dataset_are_removed_at_the_end(folders, made):
    """Half-written files and notes of killed runs are removed too; other files are left alone."""
    folder = folders.cases(NAME)
    for name in (".writing_0123_case_9.zip", "case_9.zip", "notes.txt"):
        (folder / name).touch()
    prepare(folders, skip=["case_3"])
    assert made == []
    names = {name for name in contents(folders) if name != "notes.txt"}
    assert names == {f"{case}.zip" for case in CASES if case != "case_3"}
    assert (folder / "notes.txt").exists()


# --- Faults -----------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_and_its_case_redone_alone(folders, made):
    """A single wrong bit is found; the command in the message repairs it."""
    before = contents(folders)
    path = folders.cases(NAME) / "case_4.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ProblemsError) as caught:
        check(folders)
    [line] = caught.value.lines
    assert str(path) in line
    assert line.endswith(f"; run 'autoseg preprocess -d {NUMBER} -c {NAME}', which preprocesses it again")
    assert prepare(folders) == f"4 of 5 cases were prepared for {NAME} by an earlier run"
    assert made == ["case_4"]
    assert contents(folders) == before


def test_cases_too_large_for_the_memory_are_not_read_before_training(folders, monkeypatch):
    """Their sizes are looked at all the same."""
    monkeypatch.setattr("autoseg.preprocessing.prepared_check.MEMORY_FOR_CASES_BYTES", 100)
    monkeypatch.setattr(StoredCase, "verify", None)
    check(folders)
    (folders.cases(NAME) / "case_1.zip").write_bytes(b"short")
    with pytest.raises(ProblemsError, match=r"case_1\.zip"):
        check(folders)


def test_many_damaged_cases_are_a_few_lines(folders, monkeypatch):
    """A dead disk does not fill the screen."""
    monkeypatch.setattr("autoseg.preprocessing.prepared_check.MOST_LINES", 2)
    for name in CASES:
        (folders.cases(NAME) / f"{name}.zip").write_bytes(b"")
    with pytest.raises(ProblemsError) as caught:
        check(folders)
    assert len(caught.value.lines) == 3
    assert caught.value.lines[-1].startswith("3 more cases are damaged; run")


def test_a_bad_case_costs_no_other(folders, made):
    """The others are prepared, and nothing is removed; the next run makes only the one that was mended."""
    image = folders.raw / "imagesTr" / "case_2_0000.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    coarse = {"spacing_mm": (2.0, 2.0, 2.0)}
    with pytest.raises(ProblemsError, match=r"case 'case_2': .* is cut off"):
        prepare(folders, **coarse)
    assert sorted(made) == [name for name in CASES if name != "case_2"]
    assert (folders.cases(NAME) / "case_2.zip").exists()
    assert not list(folders.cases(NAME).glob(".*"))
    image.write_bytes(whole)
    made.clear()
    prepare(folders, **coarse)
    assert made == ["case_2"]


def test_a_full_disk_keeps_what_was_finished(folders, monkeypatch, made):
    """One line ends the run; the next one goes on."""
    before = contents(folders)
    shutil.rmtree(folders.cases(NAME))
    monkeypatch.setattr("autoseg.runtime.thread_map.count_cores", lambda: 1)
    with monkeypatch.context() as patch:

        def fail(path, parts):
            if "case_3" in path.name:
                raise OSError(28, "No space left on device", str(path))
            write_archive(path, parts)

        patch.setattr("autoseg.preprocessing.store.write_archive", fail)
        with pytest.raises(WriteError, match="No space left on device; free some space"):
            prepare(folders)
    with pytest.raises(
        ProblemsError, match=rf"3 of 5 cases are not preprocessed for {NAME}: case_3, case_4, case_5; run"
    ):
        check(folders)
    made.clear()
    prepare(folders)
    assert sorted(made) == CASES[2:]
    assert contents(folders) == before


def test_a_case_that_does_not_fit_into_the_memory_has_its_line(folders, monkeypatch):
    """The other cases are made."""
    shutil.rmtree(folders.cases(NAME))
    load = module.load_case

    def fill(case, info):
        if case.name == "case_1":
            raise MemoryError
        return load(case, info)

    monkeypatch.setattr(module, "load_case", fill)
    with pytest.raises(ProblemsError, match="case 'case_1' does not fit into the memory; "):
        prepare(folders)
    assert len(list(folders.cases(NAME).glob("*.zip"))) == 4


def test_two_runs_at_once_are_refused(folders):
    """The second has one line, and changes nothing."""
    with run_alone(folders.preprocessed):
        script = (
            "import sys; from autoseg.__main__ import main; sys.argv = ['autoseg', *sys.argv[1:]]; sys.exit(main())",
            "preprocess", "-d", NUMBER, "-c", NAME, "-w", folders.raw.parents[1],
        )  # fmt: skip
        ended = subprocess.run([sys.executable, "-c", *map(str, script)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: another run is at work on {folders.raw.name} (process {os.getpid()} on ")
    check(folders)


# --- Kills ------------------------------------------------------------------------------------------------------------

# Slow enough to be killed in the midst of a case, of its writing, and of taking its place.
SLOWLY = """
import sys, time
from pathlib import Path
from autoseg.preprocessing import dataset as module
from autoseg.datasets.dataset import Dataset
from autoseg.planning.plan import Plan
from autoseg.runtime.reporting import SILENT
from autoseg.workspace import Workspace
replace, load = Path.replace, module.load_case
def slow_replace(path, target):
    time.sleep(0.03)
    return replace(path, target)
def slow_load(*arguments):
    time.sleep(0.05)
    return load(*arguments)
Path.replace, module.load_case = slow_replace, slow_load
folders = Workspace(root=Path(sys.argv[1])).folders("Dataset001_Tiny")
print("begun", flush=True)
module.prepare_cases(Dataset.open(folders.raw), Plan.load(folders.plan), ["3d_fullres"], folders, SILENT)
"""


def kill(folders: DatasetFolders, after_seconds: float) -> None:
    """Begins to prepare, and kills the program some time later; it cannot do anything about it."""
    command = [sys.executable, "-c", SLOWLY, str(folders.raw.parents[1])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(after_seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=ENOUGH_SECONDS)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill so")
def test_a_kill_at_any_moment_changes_nothing_in_the_end(folders):
    """After several kills in a row, the folder is that of a run that was not disturbed, byte by byte."""
    before = contents(folders)
    shutil.rmtree(folders.cases(NAME))
    random = np.random.default_rng(0)
    for _ in range(3):
        kill(folders, after_seconds=random.uniform(0.02, 0.3))
        if len(list(folders.cases(NAME).glob("*.zip"))) < len(CASES):
            with pytest.raises((ProblemsError, UsageError), match="not preprocessed"):
                check(folders)
    prepare(folders)
    assert contents(folders) == before
    assert not list(folders.preprocessed.glob(".*"))
    check(folders)


def test_a_case_that_killed_a_run_comes_last_and_alone(folders, monkeypatch):
    """Whatever it does to the next run, all others are finished by then."""
    before = contents(folders)
    shutil.rmtree(folders.cases(NAME))
    folders.crash_log().write_text('+"case_1"\n+"case_2"\n-"case_1"\n+"case')
    monkeypatch.setattr("autoseg.runtime.thread_map.count_cores", lambda: 2)
    load, finished = module.load_case, []

    def look(case, info):
        time.sleep(0.02)
        finished.append((case.name, sorted(path.stem for path in folders.cases(NAME).glob("*.zip"))))
        return load(case, info)

    monkeypatch.setattr(module, "load_case", look)
    text = prepare(folders)
    assert text == "an earlier run was killed, perhaps for lack of memory, at case_2: now last and alone"
    assert finished[-1] == ("case_2", ["case_1", "case_3", "case_4", "case_5"])
    assert contents(folders) == before
    assert not folders.crash_log().exists()


def test_a_stop_forgets_no_case_that_killed_a_run(folders, monkeypatch):
    """The run that was stopped did not come to it."""
    shutil.rmtree(folders.cases(NAME))
    folders.crash_log().write_text('+"case_2"\n')

    def stop(case, info):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "load_case", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(folders)
    assert "at case_2: now last and alone" in prepare(folders)
    assert not folders.crash_log().exists()


# --- Memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_estimated_by_voxels_before_and_after():
    """The estimate uses the axis order of the plan; a 2D configuration leaves the first axis as it is."""
    facts = CaseFacts(shape=(20, 40, 10), shape_after_crop=(20, 40, 5), spacing_mm=(1.0, 1.0, 2.0))
    recipe = PreprocessingSettings(
        axis_order=(2, 0, 1),
        spacing_mm=(1.0, 2.0, 2.0),
        normalization=(Normalization(scheme="zscore"),),
        channels=1,
        structures=((1,),),
    )
    assert estimate_bytes(facts, recipe) == 24 * 8000 + 16 * (4000 * 2 // 4)
    flat = recipe.model_copy(update={"spacing_mm": (0.5, 0.5)})
    assert estimate_bytes(facts, flat) == 24 * 8000 + 16 * 4000 * 4
    planes = CaseFacts(shape_after_crop=(1, 10, 10), spacing_mm=(1.0, 1.0, 1.0))
    assert estimate_bytes(planes, recipe) == 24 * 100 + 16 * 25


def test_cases_without_an_estimate_are_prepared(folders, made):
    """The fingerprint of nnU-Net names no cases."""
    folders.fingerprint.unlink()
    shutil.rmtree(folders.cases(NAME))
    prepare(folders)
    assert sorted(made) == CASES
