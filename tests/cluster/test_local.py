"""A graph on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job_graphs import HOSTILE_FOLDER, shell_job, states_of, usual_graph
from phantoms import Listener

from autoseg.cluster.cancellation import cancel_jobs
from autoseg.cluster.graph import Job, JobGraph
from autoseg.cluster.job_state import find_job_states
from autoseg.cluster.local import list_gpus, run_locally
from autoseg.errors import ProblemsError


def test_jobs_run_after_each_other_and_failures_are_told(tmp_path):
    """One that fails does not end the others; those that wait for it do not begin."""
    folder, listener = tmp_path / HOSTILE_FOLDER, Listener()
    with pytest.raises(ProblemsError) as caught:
        run_locally(usual_graph(folder), [], listener)
    assert (folder / "word").read_text() == HOSTILE_FOLDER
    assert (folder / "second.log").read_text() == "second runs\n"
    assert (folder / "array_3.log").read_text() == "part 3/3\n"
    lines = {line.split(" ")[0].rstrip(","): line for line in caught.value.lines}
    assert lines["failing"] == f"failing ended with exit code 3: it broke; see {folder / 'failing.log'}"
    assert lines["useless"] == "useless was not begun, because it needs failing"
    assert lines["stopped"].startswith("stopped was stopped before its end")
    assert lines["array"].startswith("array, part 2 of 3 ended with exit code 1: part 2/3; see ")
    assert len(lines) == 4
    states = states_of(folder)
    assert states["first"] == states["second"] == ("done", "")
    assert states["failing"] == ("failed", "exit code 3: error: it broke")
    assert states["stopped"][0] == "stopped"
    assert states["array"] == ("failed", "2 of 3 parts done, 1 failed; part 2: exit code 1: part 2/3")
    assert states["useless"] == ("failed", "not begun, because a job that it waited for did not end well")


def gpu_job(name: str, gpus: int | None, *after: str) -> Job:
    """A job that says which GPUs it sees, and takes a moment."""
    script = "echo gpus $CUDA_VISIBLE_DEVICES; sleep 0.3"
    return Job(name=name, kind="train", command=("bash", "-c", script), after=after, gpus=gpus)


def test_each_gpu_has_a_job_at_a_time(tmp_path):
    """A job that trains on several has as many; one that wants more than there are has all."""
    jobs = (gpu_job("a", None), gpu_job("b", None), gpu_job("c", 2), gpu_job("d", 8, "a"))
    run_locally(JobGraph(title="test", folder=tmp_path, jobs=jobs), ["4", "GPU-abc"], Listener())
    shown = {job.name: (tmp_path / f"{job.name}.log").read_text().split()[1] for job in jobs}
    assert {shown["a"], shown["b"]} == {"4", "GPU-abc"}
    assert set(shown["c"].split(",")) == set(shown["d"].split(",")) == {"4", "GPU-abc"}


def test_preprocessing_and_single_devices_share_no_gpus(tmp_path):
    """They run one after the other."""
    train = JobGraph(title="test", folder=tmp_path, jobs=(shell_job("a", "true"),))
    assert list_gpus(train, "cpu") == list_gpus(train, "cuda:1") == []
    array = Job(name="preprocess", kind="preprocess", command=("true",), parts=2)
    assert list_gpus(JobGraph(title="test", folder=tmp_path, jobs=(array,)), "auto") == []


RUN = """
import sys
from pathlib import Path
from job_graphs import shell_job
from autoseg.cluster.graph import JobGraph
from autoseg.cluster.local import run_locally
from autoseg.runtime.reporting import SILENT
script = "trap 'echo asked; exit 143' TERM; echo begun; while true; do sleep 0.1; done"
jobs = (shell_job("long", script), shell_job("next", "true", "long"))
run_locally(JobGraph(title="test", folder=Path(sys.argv[1]), jobs=jobs), [], SILENT)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_jobs_in_an_orderly_way(tmp_path, number):
    """They are asked by SIGTERM, so that a training saves its state; nothing is left running."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "long.log", "begun")
    assert states_of(tmp_path)["long"][0] == "running"
    assert states_of(tmp_path)["next"][0] == "waiting"
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert "Stopped" in errors
    assert (tmp_path / "long.log").read_text() == "begun\nasked\n"
    assert states_of(tmp_path)["long"] == ("failed", "exit code 143: asked")


def test_cancelled_jobs_do_not_begin_and_end_once(tmp_path):
    """One that runs is asked by a single SIGTERM, whether the whole run is stopped as well or not."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "long.log", "begun")
    assert cancel_jobs(tmp_path, list(find_job_states(tmp_path).values())) == []
    _, errors = process.communicate(timeout=30)
    assert "long was stopped before its end; run the same command to go on" in errors
    assert "next was cancelled; run the same command to go on" in errors
    assert (tmp_path / "long.log").read_text() == "begun\nasked\n"
    assert not (tmp_path / "next.log").exists()
    states = states_of(tmp_path)
    assert states["long"] == ("stopped", "ended by a request to stop; submit it again to go on")
    assert states["next"] == ("stopped", "cancelled before it began; submit it again to go on")


def test_a_killed_run_is_noticed(tmp_path):
    """It says nothing, but its process is gone."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "long.log", "begun")
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    os.killpg(int(child), signal.SIGKILL)
    assert states_of(tmp_path)["long"] == ("failed", "ended without a word, after: begun")


def wait_for(path: Path, text: str) -> None:
    """Waits until a file holds a text."""
    deadline = time.monotonic() + 60
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
