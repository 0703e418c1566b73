"""A request becomes a job for each fold, and nothing is written while it is checked."""

import shutil
from dataclasses import replace

import pytest
import torch
from tiny_workspaces import NUMBER, files_in, folders_of, plan_tiny, write_volumes

from autoseg.datasets.splits import Splits
from autoseg.errors import UsageError
from autoseg.pipeline.datasets import plan_configurations, preprocess
from autoseg.training.duration import LengthRequest
from autoseg.training.jobs import TrainingRequest, describe_concerns, make_jobs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Returns a workspace that was planned and preprocessed, and that no test changes."""
    root = tmp_path_factory.mktemp("prepared")
    write_volumes(root)
    plan_tiny(root)
    return root


@pytest.fixture
def request_of(root):
    """Returns a function that makes requests."""

    def request(**changes):
        usual = TrainingRequest(
            number=NUMBER,
            folders=folders_of(root),
            configuration="3d_fullres",
            folds=(0,),
            device="cpu",
        )
        return replace(usual, **changes)

    return request


def test_each_fold_has_a_job_of_its_own(root, request_of):
    """Each has its cases and its seed, and a plan of the requested length; nothing is written."""
    before = files_in(root)
    jobs = make_jobs(request_of(folds=("cv", "all", 1), length=LengthRequest(epochs=7, restart=True)))
    splits = Splits.load(folders_of(root).splits)
    assert [job.fold for job in jobs] == [0, 1, 2, "all"]
    assert [job.split for job in jobs] == [splits.fold(job.fold) for job in jobs]
    assert len({job.seed for job in jobs}) == 4
    assert {job.plan.training.epochs for job in jobs} == {7}
    assert all(job.restart and job.ranks.alone and job.device == torch.device("cpu") for job in jobs)
    assert all(job.model == folders_of(root).model("3d_fullres") for job in jobs)
    assert jobs[0].cases_folder == folders_of(root).cases("3d_fullres")
    assert jobs[0].cascade_labels_folder is None
    assert files_in(root) == before


def test_places_of_augmentation_and_trackers_reach_the_jobs(request_of):
    """The jobs have the values of the request."""
    [there] = make_jobs(request_of(augment_on="device"))
    [here] = make_jobs(request_of(augment_on="cpu"))
    assert (there.augment_on_device, here.augment_on_device) == (True, False)
    assert here.trackers == {}
    with pytest.raises(UsageError, match="nonsense"):
        make_jobs(request_of(trackers=("nonsense",)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"folds": ()}, "no fold was named; name one or several"),
        ({"folds": (0, 9)}, "there is no fold 9; take a number from 0 to 2, or 'all'"),
        ({"configuration": "3d_lowres"}, "has no configuration '3d_lowres'; choose from"),
        ({"device": "cuda:7"}, "there is no device 'cuda:7' here"),
        ({"length": LengthRequest(extend="3")}, "fold 0 of 3d_fullres is not trained to its end"),
        ({"length": LengthRequest(budget="soon")}, "soon"),
    ],
)
def test_what_cannot_be_is_one_line(request_of, changes, text):
    """The error comes before a fold begins."""
    with pytest.raises(UsageError, match=text):
        make_jobs(request_of(**changes))


def test_plan_for_a_gpu_is_named_on_a_cpu(root, tmp_path, request_of):
    """There is one line for all folds, and none for the small plan, which is made for a CPU."""
    copy = shutil.copytree(root, tmp_path / "copy")
    assert list(describe_concerns(make_jobs(request_of())[0])) == []
    plan_configurations(NUMBER, preset="4gb", workspace=copy)
    preprocess(NUMBER, workspace=copy)
    jobs = make_jobs(request_of(folders=folders_of(copy), folds=("cv",)))
    assert [line.split(";")[0] for line in describe_concerns(jobs[0])] == ["this plan is made for a GPU"]
