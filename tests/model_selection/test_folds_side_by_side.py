"""Folds that are trained at the same time, on one machine or on several, share what belongs to all of them in turns."""

import shutil
import threading
from pathlib import Path

import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of

from autoseg.evaluation.summary import Summary, summary_file
from autoseg.model_selection.validation import pool_validation
from autoseg.planning.plan_file import load_plan_and_splits, open_planned_dataset
from autoseg.runtime.lock import run_alone


@pytest.fixture
def workspace(trained_volumes: Path, tmp_path: Path) -> Path:
    """A copy of the workspace whose folds 0, 1 and all are trained."""
    shutil.copytree(trained_volumes, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_last_fold_pools_all_of_them(workspace):
    """While another run pools, this one waits; then it sees what has been validated meanwhile."""
    folders = folders_of(workspace)
    model, (plan, splits) = folders.model("3d_fullres"), load_plan_and_splits(NUMBER, folders)
    dataset = open_planned_dataset(NUMBER, folders, plan, splits)
    validated, hidden = summary_file(model.validation(1)), workspace / "hidden.json"
    validated.rename(hidden)
    held, told = threading.Event(), threading.Event()

    class Told(Listener):
        """Lets the other run go on as soon as this one waits."""

        def say(self, line: str) -> None:
            super().say(line)
            told.set()

    def pool_elsewhere() -> None:
        with run_alone(model.path):
            held.set()
            assert told.wait(60)
            hidden.rename(validated)

    other, listener = threading.Thread(target=pool_elsewhere), Told()
    other.start()
    assert held.wait(60)
    _, pooled = pool_validation(dataset, model, listener)
    other.join()
    assert [line.split("; ")[-1] for line in listener.lines] == ["waiting until it has ended"]
    assert {case.name for case in pooled.cases} == set(splits.fold(0).validation) | set(splits.fold(1).validation)
    assert Summary.load(summary_file(model.path)) == pooled
    assert not (model.path / ".running").exists()
