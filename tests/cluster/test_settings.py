"""The resources that jobs ask for, from cluster.json."""

import json
from pathlib import Path

import pytest

from autoseg.cluster.graph import Job
from autoseg.cluster.settings import ClusterSettings, load_settings, resolve_resources
from autoseg.errors import ArtifactError


def job(kind: str, gpus: int | None = None) -> Job:
    """A job of a kind."""
    return Job(name=kind, kind=kind, command=("true",), gpus=gpus)  # type: ignore[arg-type]


def write(path: Path, **content: object) -> Path:
    """Writes cluster.json by hand."""
    path.write_text(json.dumps(content))
    return path


def test_without_a_file_jobs_get_a_gpu_and_what_the_cluster_gives(tmp_path):
    """Preprocessing calculates on the CPU, so it gets none."""
    settings = load_settings(tmp_path / "cluster.json")
    resources = resolve_resources(settings, job("train"))
    assert (resources.gpus, resources.cpus, resources.memory_mib, resources.time) == (1, None, None, None)
    assert resolve_resources(settings, job("preprocess")).gpus == 0


def test_a_kind_of_jobs_has_resources_of_its_own(tmp_path):
    """What it leaves out is as for all."""
    path = write(
        tmp_path / "cluster.json",
        partition="gpu",
        gpus=2,
        memory="32GB",
        time="1.5d",
        setup=["module load cuda"],
        jobs={"preprocess": {"partition": "cpu", "cpus": 32}, "find_best": {"gpus": 0, "time": "90s", "setup": []}},
    )
    settings = load_settings(path)
    train, prepare, best = (resolve_resources(settings, job(kind)) for kind in ("train", "preprocess", "find_best"))
    assert (train.partition, train.gpus, train.memory_mib, train.time) == ("gpu", 2, 30518, "36:00:00")
    assert (prepare.partition, prepare.gpus, prepare.cpus, prepare.time) == ("cpu", 0, 32, "36:00:00")
    assert (best.partition, best.gpus, best.time, best.setup) == ("gpu", 0, "00:01:30", ())


@pytest.mark.parametrize(("gpus", "expected"), [(None, 1), (0, 0), (4, 4)])
def test_a_job_that_knows_its_gpus_gets_them(gpus, expected):
    """As with train --gpus 4, or --device cpu."""
    assert resolve_resources(ClusterSettings(), job("train", gpus)).gpus == expected


@pytest.mark.parametrize(("limit", "seconds"), [("24h", 120), ("8m", 120), ("4m", 60), ("2s", 1)])
def test_a_job_is_warned_in_time(limit, seconds):
    """Two minutes before its limit, or after three quarters of a short one."""
    settings = ClusterSettings.model_validate({"time": limit})
    assert resolve_resources(settings, job("train")).warning_seconds == seconds


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"time": "soon"}, "time"),
        ({"memory": "much"}, "memory"),
        ({"gpus": -1}, "gpus"),
        ({"cpus": 0}, "cpus"),
        ({"partition": "a b"}, "partition"),
        ({"account": ""}, "account"),
        ({"setup": ["a\nb"]}, "setup"),
        ({"options": "--qos=high"}, "options"),
        ({"colour": "red"}, "colour"),
        ({"jobs": {"cook": {}}}, "jobs"),
        ({"jobs": {"train": {"time": "soon"}}}, "jobs.train.time"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_field(tmp_path, content, field):
    """In one line."""
    path = write(tmp_path / "cluster.json", **content)
    with pytest.raises(ArtifactError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: {field}")
    assert "\n" not in str(caught.value)
