"""Graphs of small jobs, for tests of schedulers."""

from pathlib import Path

from autoseg.cluster.graph import Job, JobGraph
from autoseg.cluster.job_state import find_job_states

HOSTILE_FOLDER = 'it\'s "my" $HOME %j {x}\n#SBATCH --partition=none\nEND_OF_JOB'
"""Name of a folder that scripts must quote."""


def shell_job(name: str, script: str, *after: str, parts: int | None = None, result: Path | None = None) -> Job:
    """A job that runs a script of the shell; the part of an array is its arguments."""
    command = ("bash", "-c", script, "job")
    return Job(name=name, kind="train", command=command, after=after, parts=parts, result=result, gpus=0)


def usual_graph(folder: Path) -> JobGraph:
    """Jobs that go well, one that fails, one that waits for it, one without its result, and an array."""
    word = Job(
        name="first",
        kind="train",
        command=("bash", "-c", 'printf "%s" "$1" > "$2"', "job", HOSTILE_FOLDER, str(folder / "word")),
        gpus=0,
    )
    jobs = (
        word,
        shell_job("second", "echo second runs", "first"),
        shell_job("failing", "echo error: it broke >&2; echo and more; exit 3"),
        shell_job("useless", "echo never", "failing"),
        shell_job("stopped", "echo bye", result=folder / "missing"),
        shell_job("array", 'echo "part $2"; [ "$2" != 2/3 ]', parts=3),
    )
    return JobGraph(title="test", folder=folder, jobs=jobs)


def states_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Name of each job to its state and its detail."""
    return {name: (state.state, state.detail) for name, state in find_job_states(folder).items()}
