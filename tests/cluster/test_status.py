"""The state of every fold: from results, locks, and the records of jobs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_workspaces import NAME, NUMBER, folders_of
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.cluster.graph import record_file
from autoseg.pipeline.job_states import status
from autoseg.workspace import Workspace

HOLD = """
import sys
from pathlib import Path
from autoseg.runtime.lock import run_alone
with run_alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def workspace(trained_volumes, tmp_path, monkeypatch):
    """A copy of the workspace whose folds 0, 1 and all are trained; there is no Slurm."""
    shutil.copytree(trained_volumes, tmp_path / "copy")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path / "copy"


def rows(root: Path) -> dict[str, tuple[str, str, str]]:
    """Name of each work to its state, place and detail."""
    return {entry.name: (entry.state, entry.where, entry.detail) for entry in status(NUMBER, workspace=root)}


def record(root: Path, name: str, *lines: str, log: str = "") -> None:
    """Writes the record of a job, and its log."""
    folder = Workspace(root=root).jobs(NAME)
    folder.mkdir(parents=True, exist_ok=True)
    record_file(folder, name).write_text("".join(f"{line}\n" for line in lines))
    (folder / f"{name}.log").write_text(log)


def test_what_was_trained_by_hand_is_shown(workspace):
    """With the mean Dice of the held-out cases, as their summary has it."""
    model = folders_of(workspace).model("3d_fullres")
    summary = json.loads((model.validation(0) / "summary.json").read_text())
    shown = rows(workspace)
    assert shown["3d_fullres, fold 0"] == ("done", "", f"mean Dice {summary['foreground_mean']['dice']:.4f}")
    assert shown["3d_fullres, fold 2"] == ("not begun", "", "")
    assert shown["3d_fullres, fold all"] == ("done", "", "2 epochs done")
    assert [*shown] == [f"3d_fullres, fold {fold}" for fold in (0, 1, 2, "all")]


def test_a_fold_that_ended_early_is_stopped(workspace):
    """Its checkpoint is there, its scores are not."""
    model = folders_of(workspace).model("3d_fullres")
    shutil.rmtree(model.validation(1))
    assert rows(workspace)["3d_fullres, fold 1"] == ("stopped", "", "2 epochs done")


def test_whoever_holds_a_fold_trains_it(workspace):
    """By hand, or as the job that runs; a lock that a killed run left behind is no sign of life."""
    folder = folders_of(workspace).model("3d_fullres").fold(2)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    state, where, _ = rows(workspace)["3d_fullres, fold 2"]
    assert (state, where.split(" on ")[0]) == ("running", f"process {process.pid}")
    record(workspace, "train_3d_fullres_fold_2", "submitted slurm 12 0", "begun 12 node4")
    assert rows(workspace)["3d_fullres, fold 2"][1] == f"slurm job 12, {where}"
    process.kill()
    process.communicate()
    record(workspace, "train_3d_fullres_fold_2")
    assert rows(workspace)["3d_fullres, fold 2"][0] == "not begun"


def test_jobs_are_shown_for_their_folds(workspace):
    """A job that waits, one that failed with its last line; a fold that is done is done, whatever its job says."""
    record(workspace, "train_2d_fold_0", "submitted slurm 20 0")
    record(
        workspace,
        "train_2d_fold_1",
        *("submitted slurm 21 0", "begun 21 node1", "ended 21 2"),
        log="epoch 0\nerror: the disk is full; free some space\nbye\n",
    )
    record(workspace, "train_3d_fullres_fold_0", "submitted slurm 22 0", "begun 22 node1", "ended 22 1")
    record(workspace, "find_best", "submitted slurm 23 0")
    record(workspace, "preprocess", "submitted slurm 24 2", "begun 24_1 node2")
    shown = rows(workspace)
    assert shown["2d, fold 0"] == ("waiting", "slurm job 20", "")
    assert shown["2d, fold 1"] == ("failed", "slurm job 21", "exit code 2: error: the disk is full; free some space")
    assert shown["2d, fold 2"] == ("not begun", "", "")
    assert shown["3d_fullres, fold 0"][0] == "done"
    assert shown["find_best"] == ("waiting", "slurm job 23", "")
    assert shown["preprocess"] == ("running", "slurm job 24 on node2", "0 of 2 parts done, 1 running, 1 waiting")


def test_the_command_prints_a_table(workspace):
    """And says so if there is nothing."""
    result = CliRunner().invoke(app, ["status", "-d", str(NUMBER), "-w", str(workspace)])
    assert result.exit_code == 0
    assert "3d_fullres, fold 0" in result.output
    result = CliRunner().invoke(app, ["status", "-w", str(workspace)])
    assert result.output == "nothing is trained, and no job was submitted\n"
    result = CliRunner().invoke(app, ["status", "-d", "7", "-w", str(workspace)])
    assert result.exit_code == 2
