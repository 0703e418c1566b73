"""Which jobs a request to stop is about, and what is said where a scheduler cannot be asked."""

import pytest
from job_graphs import states_of
from tiny_workspaces import NAME, NUMBER, folders_of, write_volumes

from autoseg.cluster.cancellation import cancel_jobs, find_fold_jobs
from autoseg.cluster.graph import record_file
from autoseg.cluster.job_state import JobState, find_job_states
from autoseg.errors import ProblemsError, UsageError
from autoseg.pipeline import stop, stop_run
from autoseg.workspace import Workspace


def test_jobs_of_folds_are_found_by_configuration():
    """Those that are over are left out, and those whose training is asked otherwise."""
    names = {
        "2d": {0: "waiting", 1: "running", 2: "running", 3: "done", "all": "waiting"},
        "3d_fullres": {0: "waiting"},
    }
    states = {
        f"train_{name}_fold_{fold}": JobState(name=f"train_{name}_fold_{fold}", state=state, job="slurm job 1")
        for name, folds in names.items()
        for fold, state in folds.items()
    }
    states["find_best"] = JobState(name="find_best", state="waiting", job="slurm job 2")
    assert list(find_fold_jobs(states, "2d", held=[1])) == [0, 2, "all"]
    assert list(find_fold_jobs(states, "3d_lowres", held=[])) == []


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("slurm", "job is not cancelled: there is no scancel on this machine; end it by 'scancel 7'"),
        ("pbs", "job is not cancelled: autoseg removes no jobs from this scheduler; end it by 'qdel 7'"),
    ],
)
def test_jobs_that_cannot_be_cancelled_are_named(tmp_path, monkeypatch, scheduler, expected):
    """Nothing is recorded of them, since they go on waiting."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    record_file(tmp_path, "job").write_text(f"submitted {scheduler} 7 0\n")
    assert cancel_jobs(tmp_path, list(find_job_states(tmp_path).values())) == [expected]
    assert states_of(tmp_path) == {"job": ("waiting", "")}


def test_a_job_that_ended_well_is_done_although_it_was_cancelled(tmp_path):
    """A new submission begins anew."""
    record_file(tmp_path, "job").write_text("submitted local 1.1@x 0\ncancelled 1.1@x\nended 1.1@x 0\n")
    assert states_of(tmp_path)["job"] == ("done", "")
    record_file(tmp_path, "job").write_text("submitted local 1.1@x 0\ncancelled 1.1@x\nsubmitted local 2.1@x 0\n")
    assert states_of(tmp_path)["job"] == ("waiting", "")


@pytest.fixture
def jobs(tmp_path):
    """The folder of jobs of a dataset, two of whose jobs wait for a program on another machine."""
    write_volumes(tmp_path, cases=2)
    folder = Workspace(root=tmp_path).jobs(NAME)
    folder.mkdir(parents=True)
    for name in ("train_2d_fold_0", "train_2d_fold_1", "find_best"):
        record_file(folder, name).write_text("submitted local 5.1@elsewhere 0\n")
    return folder


def cancelled(folder):
    """Names of jobs that were cancelled."""
    return [path.stem for path in sorted(folder.glob("*.record")) if "\ncancelled 5.1@elsewhere\n" in path.read_text()]


def test_waiting_folds_of_a_configuration_are_cancelled(jobs, tmp_path):
    """One by its number, or all; what is neither trained nor waits is refused, and nothing is cancelled."""
    with pytest.raises(UsageError, match="fold 3 of 2d is not being trained"):
        stop(NUMBER, "2d", 3, workspace=tmp_path)
    with pytest.raises(UsageError, match="no fold of 3d_fullres is being trained"):
        stop(NUMBER, "3d_fullres", workspace=tmp_path)
    assert cancelled(jobs) == []
    assert stop(NUMBER, "2d", 1, workspace=tmp_path) == [1]
    assert cancelled(jobs) == ["train_2d_fold_1"]
    assert stop(NUMBER, "2d", "cv", workspace=tmp_path) == [0, 1]
    assert cancelled(jobs) == ["train_2d_fold_0", "train_2d_fold_1"]


def test_all_jobs_of_a_dataset_are_cancelled(jobs, tmp_path):
    """Those of another scheduler are named after that."""
    record_file(jobs, "report").write_text("submitted pbs 8 0\n")
    with pytest.raises(ProblemsError, match=r"report is not cancelled: .*'qdel 8'"):
        stop_run(NUMBER, workspace=tmp_path)
    assert cancelled(jobs) == ["find_best", "train_2d_fold_0", "train_2d_fold_1"]
    record_file(jobs, "report").unlink()
    assert stop_run(NUMBER, workspace=tmp_path) == ["job find_best", "job train_2d_fold_0", "job train_2d_fold_1"]
    assert not folders_of(tmp_path).results.exists()
