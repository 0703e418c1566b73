"""How a fold goes on is resolved from its checkpoint, before anything is changed."""

import shutil
from dataclasses import replace

import pytest
import torch
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Split, Splits
from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.pipeline.training import train
from autoseg.planning.plan import Plan
from autoseg.training.duration import LengthRequest, replace_length
from autoseg.training.fold_job import FoldJob
from autoseg.training.initial_weights import InitialWeightsRequest
from autoseg.training.jobs import resolve_job
from autoseg.training.ranks import Ranks

USUAL = LengthRequest()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a workspace in which fold 0 was trained."""
    root = tmp_path_factory.mktemp("trained")
    write_volumes(root)
    plan_tiny(root, epochs=2, steps_per_epoch=1)
    train(NUMBER, "3d_fullres", 0, device="cpu", workspace=root)
    return root


def job_of(root, fold=0, **changes):
    """Returns the job of a fold, with the plan as it stands now."""
    folders = folders_of(root)
    job = FoldJob(
        dataset=Dataset.open(folders.raw),
        plan=Plan.load(folders.plan),
        configuration_name="3d_fullres",
        fold=fold,
        split=Splits.load(folders.splits).fold(fold),
        folders=folders,
        cases_folder=folders.cases("3d_fullres"),
        device=torch.device("cpu"),
    )
    return replace(job, **changes)


def test_fold_that_was_not_begun_stays_as_it_is(trained):
    """The job of such a fold, or of one that is restarted, does not change."""
    for job in (job_of(trained, 1), job_of(trained, restart=True)):
        assert resolve_job(job, USUAL) == job


def test_begun_fold_keeps_its_length(trained):
    """The length in plan.json does not matter; an extension makes it longer."""
    job = job_of(trained)
    later = replace(job, plan=replace_length(job.plan, epochs=9))
    assert resolve_job(later, USUAL).plan.training.epochs == 2
    assert resolve_job(later, LengthRequest(extend="3")).plan.training.epochs == 5
    with pytest.raises(UsageError, match="begun with another length"):
        resolve_job(later, LengthRequest(epochs=9))


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"split": Split(training=("case_1",), validation=("case_2",))}, ModelError, "was begun with other cases than"),
        ({"ranks": Ranks(count=99)}, UsageError, "patches cannot be shared among 99 processes"),
        (
            {"fold": 1, "initial_weights": InitialWeightsRequest(freeze="encoder")},
            UsageError,
            "--freeze would keep random weights",
        ),
        ({"split": Split(training=("gone",), validation=())}, AutosegError, "gone"),
    ],
)
def test_what_cannot_go_on_is_one_line(trained, changes, kind, text):
    """Changed cases, too many processes, frozen random weights and missing cases are refused."""
    with pytest.raises(kind, match=text):
        resolve_job(job_of(trained, **changes), USUAL)


def test_unfinished_fold_is_not_extended(trained):
    """A fold that was never begun is not extended either."""
    with pytest.raises(UsageError, match="fold 1 of 3d_fullres is not trained to its end, so it cannot be extended"):
        resolve_job(job_of(trained, 1), LengthRequest(extend="3"))


def test_job_says_what_it_is(trained, tmp_path):
    """The line names cases, length and device; fold "all" has a seed of its own."""
    assert job_of(trained).describe() == "3d_fullres, fold 0: 2 cases, 1 held out, for 2 epochs of 1 steps on cpu"
    job = job_of(trained)
    timed = replace(job, plan=replace_length(job.plan, budget_seconds=90.0))
    assert timed.describe().endswith("for 1 min 30 s on cpu")
    assert "none held out" in job_of(trained, "all").describe()
    assert job_of(trained, "all").seed - job_of(trained).seed == 100
    assert job_of(shutil.copytree(trained, tmp_path / "copy"), 1).load_checkpoint() is None
