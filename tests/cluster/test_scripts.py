"""The scripts for schedulers: what is submitted, with what, and what a job does; run with programs that stand in."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from job_graphs import HOSTILE_FOLDER, shell_job, states_of, usual_graph

from autoseg.cluster.graph import Job, JobGraph
from autoseg.cluster.pbs import render_pbs
from autoseg.cluster.settings import ClusterSettings
from autoseg.cluster.slurm import render_slurm
from autoseg.cluster.snakemake import render_snakemake
from autoseg.cluster.submission import submit_to_slurm
from autoseg.errors import AutosegError, UsageError

SETTINGS = ClusterSettings.model_validate(
    {
        "partition": "gpu",
        "account": "lab",
        "gpus": 2,
        "cpus": 8,
        "memory": "32GiB",
        "time": "24h",
        "options": ["--qos=high", "--comment=it's mine"],
        "setup": ["module() { echo loaded $2 >&2; }", "module load cuda"],
    }
)

# Stands in for sbatch and qsub: remembers its arguments, then runs the script, and every part of an array, at once.
SUBMIT = """#!/bin/bash
number=$(($(cat "$BOOK/count" 2> /dev/null || echo 0) + 1)); echo $number > "$BOOK/count"
[ "$number" != "${REFUSE:-}" ] || { echo 'sbatch: error: Batch job submission failed: no such thing' >&2; exit 1; }
printf '%s\\0' "$@" > "$BOOK/$number.arguments"
cat > "$BOOK/$number.script"
log=/dev/null array=
for word in "$@"; do
    case $word in
        --output=*) log=${word#--output=};;
        --array=1-*) array=${word#--array=1-};;
        1-*) array=${word#1-};;
        *depend*:[0-9]*) before=${word##*:}; [ ! -e "$BOOK/${before%%.*}.failed" ] || { echo "$number"; exit 0; };;
    esac
done
for part in $(seq 1 ${array:-1}); do
    path=${log//%%/%}
    [ -z "$array" ] || export SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_ID=$part PBS_ARRAY_INDEX=$part
    path=${path//%a/$part}
    mkdir -p "$(dirname "$path")"
    id=$number; [ -z "$array" ] || id="$number[$part]"
    env SLURM_JOB_ID=$number PBS_JOBID="$id.server" PBS_O_WORKDIR="$PWD" bash "$BOOK/$number.script" >> "$path" 2>&1 ||
        touch "$BOOK/$number.failed"
done
if [ "$(basename "$0")" = qsub ]; then
    [ -z "$array" ] && echo "$number.server" || echo "$number[].server"
else
    echo "$number;cluster"
fi
"""
NOTE = """#!/bin/bash
echo "$(basename "$0") $*" >> "$BOOK/calls"
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """The folder in which programs that stand in for those of schedulers remember how they were called."""
    folder, programs = tmp_path / "book", tmp_path / "programs"
    for path, names in ((SUBMIT, ("sbatch", "qsub")), (NOTE, ("scancel", "qdel", "scontrol", "squeue"))):
        for name in names:
            programs.mkdir(exist_ok=True)
            (programs / name).write_text(path)
            (programs / name).chmod(0o755)
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BOOK", str(folder))
    return folder


def arguments(book: Path, number: int) -> list[str]:
    """The arguments of one submission."""
    return (book / f"{number}.arguments").read_bytes().decode().split("\0")[:-1]


def check_usual(folder: Path) -> None:
    """The jobs of `usual_graph` went as they should."""
    assert (folder / "word").read_text() == HOSTILE_FOLDER
    assert (folder / "second.log").read_text().endswith("second runs\n")
    assert (folder / "array_3.log").read_text().endswith("part 3/3\n")
    states = states_of(folder)
    assert states["first"] == states["second"] == ("done", "")
    assert states["failing"] == ("failed", "exit code 3: error: it broke")
    assert states["stopped"][0] == "stopped"
    assert states["array"] == ("failed", "2 of 3 parts done, 1 failed; part 2: exit code 1: part 2/3")
    assert not (folder / "useless.log").exists()


def test_slurm_gets_jobs_with_resources_and_dependencies(tmp_path, book):
    """What is submitted is what is printed."""
    folder = tmp_path / HOSTILE_FOLDER
    jobs = submit_to_slurm(usual_graph(folder), SETTINGS)
    assert [(job.job_id, job.name) for job in jobs[:2]] == [("1", "first"), ("2", "second")]
    check_usual(folder)
    assert arguments(book, 2) == [
        "--parsable",
        "--job-name=second",
        f"--output={str(folder).replace('%', '%%')}/second.log",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@120",
        "--nodes=1",
        "--ntasks=1",
        "--partition=gpu",
        "--account=lab",
        "--cpus-per-task=8",
        "--mem=32768M",
        "--time=24:00:00",
        "--qos=high",
        "--comment=it's mine",
        "--dependency=afterok:1",
        "--kill-on-invalid-dep=yes",
    ]
    assert "--array=1-3" in arguments(book, 6)
    assert (folder / "second.log").read_text().startswith("loaded cuda\n")


def test_pbs_gets_jobs_with_resources_and_dependencies(tmp_path, book):
    """By the script that is printed."""
    folder = tmp_path / HOSTILE_FOLDER
    subprocess.run(["bash", "-s"], input=render_pbs(usual_graph(folder), SETTINGS), text=True, check=True)
    check_usual(folder)
    assert arguments(book, 2) == [
        *("-N", "second", "-V", "-j", "oe", "-o", "/dev/null", "-l", "select=1:ncpus=8:mem=32768mb"),
        *("-q", "gpu", "-A", "lab", "-l", "walltime=24:00:00", "--qos=high", "--comment=it's mine"),
        *("-W", "depend=afterok:1.server"),
    ]
    assert arguments(book, 6)[-6:-4] == ["-J", "1-3"]


def test_gpus_are_asked_for_in_the_words_of_each_scheduler(tmp_path):
    """A job that knows how many it uses gets so many."""
    job = Job(name="train", kind="train", command=("true",))
    graph = JobGraph(title="test", folder=tmp_path, jobs=(job,))
    assert "--gres=gpu:2 " in render_slurm(graph, SETTINGS)
    assert ":ngpus=2:" in render_pbs(graph, SETTINGS)
    assert "gpu=2, " in render_snakemake(graph, SETTINGS)


@pytest.mark.parametrize("refused", [1, 3])
def test_if_one_job_is_refused_none_stays(tmp_path, book, monkeypatch, refused):
    """And the reason of Slurm is told in one line."""
    monkeypatch.setenv("REFUSE", str(refused))
    with pytest.raises(AutosegError) as caught:
        submit_to_slurm(usual_graph(tmp_path / "jobs"), SETTINGS)
    reason = "Slurm did not take the jobs, and none is submitted: Batch job submission failed: no such thing"
    assert str(caught.value) == f"{reason}; say in cluster.json what jobs ask for, or ask who runs the cluster"
    calls = (book / "calls").read_text() if refused > 1 else ""
    assert calls == ("scancel 1 2\n" if refused > 1 else "")


def test_without_slurm_nothing_is_submitted(tmp_path, monkeypatch):
    """The error names what is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no sbatch here"):
        submit_to_slurm(usual_graph(tmp_path), SETTINGS)


def test_slurm_writes_no_logs_behind_a_backslash(tmp_path):
    """Seen with Slurm 22.05: such a job fails without a word, so it is not submitted."""
    with pytest.raises(UsageError, match="has a backslash; choose a workspace without one"):
        render_slurm(usual_graph(tmp_path / "a\\b"), SETTINGS)


def run_job(tmp_path: Path, script: str, signal: str, book: Path) -> tuple[int, str]:
    """Exit code and record of a job that gets a signal once it has begun."""
    job = shell_job("job", script)
    text = render_slurm(JobGraph(title="test", folder=tmp_path, jobs=(job,)), ClusterSettings())
    text = text.split("<<'END_OF_JOB'\n")[1].split("END_OF_JOB")[0]
    environment = {**os.environ, "SLURM_JOB_ID": "5"}
    process = subprocess.Popen(["bash", "-c", text], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    subprocess.run(["kill", f"-{signal}", str(process.pid)], check=True)
    process.communicate(timeout=20)
    return process.returncode, (tmp_path / "job.record").read_text().partition("\n")[2]


WORK = "trap 'sleep 0.3; exit 143' TERM; echo begun; while true; do sleep 0.05; done"


def test_a_job_whose_time_is_nearly_over_ends_and_is_requeued(tmp_path, book):
    """The command is asked to end, and ends in its own time."""
    assert run_job(tmp_path, WORK, "USR1", book) == (143, "requeued 5\n")
    assert (book / "calls").read_text() == "scontrol requeue 5\n"


def test_a_job_that_is_cancelled_stays_cancelled(tmp_path, book):
    """It may save its state, but does not come back."""
    assert run_job(tmp_path, WORK, "TERM", book) == (143, "ended 5 143\n")
    assert not (book / "calls").exists()


def test_a_job_that_ends_well_although_its_time_is_nearly_over_is_done(tmp_path, book):
    """It had nothing left to do."""
    script = "trap 'exit 0' TERM; echo begun; while true; do sleep 0.05; done"
    assert run_job(tmp_path, script, "USR1", book) == (0, "ended 5 0\n")
    assert not (book / "calls").exists()


def test_pbs_jobs_end_themselves_before_their_limit(tmp_path, book):
    """PBS sends no signal, so a clock does; the log says what to do."""
    job = shell_job("slow", "trap 'echo saved; exit 143' TERM; while true; do sleep 0.05; done")
    settings = ClusterSettings.model_validate({"time": "2s"})
    script = render_pbs(JobGraph(title="test", folder=tmp_path, jobs=(job,)), settings)
    subprocess.run(["bash", "-s"], input=script, text=True, check=True)
    lines = (tmp_path / "slow.log").read_text().splitlines()  # bash may add that it was terminated
    assert lines[-2:] == ["saved", "ended itself before its time limit; submit it again to go on"]
    assert states_of(tmp_path)["slow"][0] == "failed"


def test_a_snakefile_has_a_rule_for_each_job(tmp_path):
    """It is Python, whatever the paths hold; the files that say that a job is done link the rules."""
    text = render_snakemake(usual_graph(tmp_path / HOSTILE_FOLDER), SETTINGS)
    rules = [line.removesuffix(":").split()[1] for line in text.splitlines() if line.startswith("rule ")]
    assert rules == ["all", "first", "second", "failing", "useless", "stopped", "array"]
    assert all(line.startswith(("#", "workdir: ", "shell.", "rule ", "    ")) or not line for line in text.splitlines())
    values = [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith(("    input", "    shell"))]
    for value in values:
        compile(value, "Snakefile", "eval")


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="Snakemake is not installed")
def test_snakemake_runs_the_rules_in_order(tmp_path):
    """Also in a folder with braces and a line break in its name."""
    folder = tmp_path / HOSTILE_FOLDER
    usual = [job for job in usual_graph(folder).jobs if job.name in ("first", "second")]
    jobs = (*usual, shell_job("array", 'echo "part $2"', parts=3), shell_job("last", "echo {last}", "array", "second"))
    settings = ClusterSettings.model_validate({"cpus": 1, "memory": "1GB", "time": "1h", "setup": ["a={x}; echo $a"]})
    (tmp_path / "Snakefile").write_text(render_snakemake(JobGraph(title="test", folder=folder, jobs=jobs), settings))
    subprocess.run(["snakemake", "--snakefile", str(tmp_path / "Snakefile"), "--cores", "2"], check=True)
    assert (folder / "word").read_text() == HOSTILE_FOLDER
    assert (folder / "array_3.log").read_text() == "part 3/3\n"
    assert (folder / "last.log").read_text() == "{last}\n"
    assert {path.stem for path in folder.glob("*.done")} == {"first", "second", "array_1", "array_2", "array_3", "last"}
