"""Jobs on a real Slurm of this machine: accepted, in order, requeued, and with the same result as here."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from job_graphs import HOSTILE_FOLDER, shell_job, states_of, usual_graph
from small_slurm import SmallSlurm, missing_programs, small_slurm
from tiny_workspaces import NAME, NUMBER, edit_training, folders_of, plan_tiny, write_volumes

from autoseg.cli.demo import EPOCHS
from autoseg.cluster.cancellation import cancel_jobs
from autoseg.cluster.graph import JobGraph
from autoseg.cluster.job_state import find_job_states
from autoseg.cluster.settings import ClusterSettings
from autoseg.cluster.submission import submit_to_slurm
from autoseg.errors import AutosegError
from autoseg.pipeline import make_demo_dataset, plan_and_preprocess, status

MISSING = missing_programs()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}")

WITHOUT_GPUS = {"gpus": 0, "cpus": 1, "memory": "1GB", "time": "1h"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallSlurm]:
    """A Slurm with two nodes."""
    before = os.environ.get("SLURM_CONF")
    with small_slurm(tmp_path_factory.mktemp("slurm")) as running:
        os.environ.update(running.environment)
        yield running
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before


def submit(graph: JobGraph, **settings: object) -> dict[str, str]:
    """Submits jobs, and gives the id of each by its name."""
    jobs = submit_to_slurm(graph, ClusterSettings.model_validate({**WITHOUT_GPUS, **settings}))
    return {job.name: job.job_id for job in jobs}


def test_slurm_runs_jobs_in_order_and_cancels_what_cannot_begin(slurm, tmp_path):
    """In a folder with a hostile name; what a job says of itself agrees with Slurm."""
    folder = tmp_path / HOSTILE_FOLDER
    ids = submit(usual_graph(folder))
    states = slurm.wait()
    assert (folder / "word").read_text() == HOSTILE_FOLDER
    assert (folder / "second.log").read_text() == "second runs\n"
    assert (folder / "array_3.log").read_text() == "part 3/3\n"
    expected = {"first": "COMPLETED", "second": "COMPLETED", "failing": "FAILED", "useless": "CANCELLED"}
    assert {name: states[ids[name]] for name in expected} == expected
    array = [states[f"{ids['array']}_{part}"] for part in (1, 2, 3)]
    assert array == ["COMPLETED", "FAILED", "COMPLETED"]
    shown = states_of(folder)
    assert shown["first"] == shown["second"] == ("done", "")
    assert shown["failing"] == ("failed", "exit code 3: error: it broke")
    assert shown["useless"] == ("failed", "left the queue without having begun (cancelled)")
    assert shown["stopped"][0] == "stopped"
    assert shown["array"] == ("failed", "2 of 3 parts done, 1 failed; part 2: exit code 1: part 2/3")


def test_a_job_that_slurm_cannot_run_is_refused_with_all_others(slurm, tmp_path):
    """There is no such partition."""
    before = slurm.states()
    reason = "Slurm did not take the jobs, and none is submitted: invalid partition specified: nowhere"
    with pytest.raises(AutosegError, match=reason):
        submit(usual_graph(tmp_path), partition="nowhere")
    assert slurm.states() == before


@pytest.mark.slow
def test_a_job_ends_itself_before_its_limit_and_goes_on(slurm, tmp_path):
    """Slurm warns it, it is requeued, and the job that waits for it begins only then."""
    script = f"""
        [ ! -e '{tmp_path}/saved' ] || {{ echo resumed; exit 0; }}
        trap 'touch "{tmp_path}/saved"; exit 143' TERM; echo begun; while true; do sleep 0.1; done
    """
    jobs = (shell_job("long", script), shell_job("next", "echo next", "long"))
    ids = submit(JobGraph(title="test", folder=tmp_path, jobs=jobs), time="60s")
    states = slurm.wait(180)
    assert {states[ids["long"]], states[ids["next"]]} == {"COMPLETED"}
    events = [line.split()[0] for line in (tmp_path / "long.record").read_text().splitlines()]
    assert events in (["submitted", *GONE_ON], ["begun", "submitted", *GONE_ON[1:]])
    log = (tmp_path / "long.log").read_text()
    assert (log.index("begun"), "TIME LIMIT" in log, log.rstrip().endswith("resumed")) == (0, False, True)


GONE_ON = ["begun", "requeued", "begun", "ended"]


def run(*arguments: str) -> str:
    """Runs a command as a user would, and gives back what it printed."""
    answer = subprocess.run(
        [sys.executable, "-m", "autoseg", *arguments], capture_output=True, text=True, check=False, timeout=9000
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def wait_for_epoch(root: Path, fold: int) -> None:
    """Waits until a fold runs and an epoch of it is done."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        states = {entry.name: entry for entry in status(NUMBER, workspace=root)}
        entry = states.get(f"3d_fullres, fold {fold}")
        if entry is not None and entry.state == "running" and "done" in entry.detail:
            return
        time.sleep(0.1)
    raise AssertionError(states)


def results(root: Path) -> tuple[dict[str, torch.Tensor], dict[str, bytes]]:
    """The weights of all folds, and the content of all masks and scores."""
    model, weights = folders_of(root).model("3d_fullres"), {}
    for fold in range(5):
        content = torch.load(model.checkpoint(fold), weights_only=True)
        weights |= {f"{fold} {name}": value for name, value in content["weights"].items()}
    paths = [*model.path.rglob("*.nii.gz"), *model.path.rglob("summary.json"), folders_of(root).best_model]
    return weights, {str(path.relative_to(root)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_waiting_jobs_are_cancelled_and_running_ones_save(slurm, tmp_path):
    """Those that run get one SIGTERM; those that wait, for a machine or for others, never begin."""
    script = f"trap 'echo saved; exit 143' TERM; echo begun; touch '{tmp_path}/begun'; while true; do sleep 0.1; done"
    jobs = (
        shell_job("long", script),
        shell_job("array", "sleep 300", parts=6),
        shell_job("next", "echo next", "long"),
    )
    ids = submit(JobGraph(title="test", folder=tmp_path, jobs=jobs))
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() or "RUNNING" not in slurm.states().get(f"{ids['array']}_1", ""):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert cancel_jobs(tmp_path, list(find_job_states(tmp_path).values())) == []
    states = slurm.wait()
    assert states[ids["next"]] == "CANCELLED"
    assert (tmp_path / "array.record").read_text().count("begun") < 6
    assert (tmp_path / "long.log").read_text().splitlines().count("saved") == 1
    assert (tmp_path / "long.record").read_text().endswith(f"ended {ids['long']} 143\n")
    assert {name: state for name, (state, _) in states_of(tmp_path).items()} == dict.fromkeys(ids, "stopped")
    assert states_of(tmp_path)["next"][1] == "cancelled before it began; submit it again to go on"


@pytest.mark.slow
def test_arrays_prepare_cases_and_segment_scans(slurm, tmp_path, trained_volumes):
    """As a single run does; the states of the parts are counted."""
    root = tmp_path / "an array's"
    shutil.copytree(trained_volumes, root)
    (root / "cluster.json").write_text(json.dumps(WITHOUT_GPUS))
    folders = folders_of(root)
    cases = {path.name: path.read_bytes() for path in folders.cases("3d_fullres").glob("*.zip")}
    shutil.rmtree(folders.cases("3d_fullres"))
    number = ("-d", str(NUMBER), "-c", "3d_fullres")
    run("preprocess", *number, "--parts", "2", "--on", "slurm", "-w", str(root))
    scans = ("-i", str(folders.raw / "imagesTr"), "--device", "cpu")
    run("predict", *number, *scans, "-o", str(tmp_path / "masks"), "--parts", "2", "--on", "slurm", "-w", str(root))
    slurm.wait(300)
    shown = {entry.name.split("_")[0]: (entry.state, entry.detail) for entry in status(NUMBER, workspace=root)}
    assert shown["preprocess"] == shown["predict"] == ("done", "2 of 2 parts done")
    assert {path.name: path.read_bytes() for path in folders.cases("3d_fullres").glob("*.zip")} == cases
    run("predict", *number, *scans, "-o", str(tmp_path / "alone"), "-w", str(root))
    alone = {path.name: path.read_bytes() for path in (tmp_path / "alone").glob("*.nii.gz")}
    assert len(alone) == 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "masks").glob("*.nii.gz")} == alone


def prepare_tiny(root: Path) -> None:
    """Five cases that are learned within seconds."""
    write_volumes(root, cases=5)
    plan_tiny(root, epochs=8, steps_per_epoch=8)


def prepare_demo(root: Path) -> None:
    """The demo, as long as it trains."""
    make_demo_dataset(root / "raw" / NAME)
    plan_and_preprocess(NUMBER, configurations=["3d_fullres"], preset="small", workspace=root)
    edit_training(root, epochs=EPOCHS)


@pytest.mark.timeout(10800)
@pytest.mark.parametrize(
    "prepare",
    [pytest.param(prepare_tiny, marks=pytest.mark.slow), pytest.param(prepare_demo, marks=pytest.mark.benchmark)],
)
def test_five_folds_with_a_lost_node_equal_those_of_this_machine(slurm, tmp_path, prepare):
    """A machine fails under one fold, the time of another is over; all are requeued, and nothing differs in a bit."""
    here, there = tmp_path / "here", tmp_path / 'there\'s "one"\nmore'
    prepare(here)
    shutil.copytree(here, there)
    (there / "cluster.json").write_text(json.dumps({**WITHOUT_GPUS, "memory": "3GB"}))
    train = ("train", "-d", str(NUMBER), "-c", "3d_fullres", "-f", "cv", "--device", "cpu")
    printed = run(*train, "--on", "slurm", "-w", str(there))
    ids = dict(reversed(line.removeprefix("job ").split(": ")) for line in printed.splitlines() if line[:4] == "job ")
    assert [*ids] == [*(f"train_3d_fullres_fold_{fold}" for fold in range(5)), "find_best", "report"]

    wait_for_epoch(there, 0)
    node = slurm.call("squeue", "--noheader", f"--jobs={ids['train_3d_fullres_fold_0']}", "--format=%N").strip()
    slurm.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    slurm.call("scontrol", "update", f"nodename={node}", "state=resume")
    for fold in range(4, 0, -1):  # the last ones still wait
        if slurm.states()[ids[f"train_3d_fullres_fold_{fold}"]] == "RUNNING":
            break
    wait_for_epoch(there, fold)
    slurm.call("scancel", "--batch", "--signal=USR1", ids[f"train_3d_fullres_fold_{fold}"])
    assert set(slurm.wait(9000).values()) >= {"COMPLETED"}

    states = status(NUMBER, workspace=there)
    assert {entry.state for entry in states} == {"done"}, states
    assert [entry.name for entry in states][-2:] == ["find_best", "report"]
    assert folders_of(there).model_report.is_file()
    records = {path.stem: path.read_text() for path in (there / "jobs" / NAME).glob("*.record")}
    assert records["train_3d_fullres_fold_0"].count("begun") == 2
    assert "requeued" in records[f"train_3d_fullres_fold_{fold}"]

    run(*train, "--on", "local", "-w", str(here))
    (weights, files), (other_weights, other_files) = results(here), results(there)
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(value, other_weights[name]) for name, value in weights.items())
    assert files == other_files
