"""Hands a graph of jobs to Slurm."""

import shutil
import subprocess
from dataclasses import dataclass

from autoseg.cluster.graph import JobGraph
from autoseg.cluster.settings import ClusterSettings
from autoseg.cluster.slurm import render_slurm
from autoseg.errors import AutosegError, UsageError, WriteError
from autoseg.runtime.os_errors import advise_writing, reason_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedJob:
    """A job that Slurm has accepted.

    Attributes:
        name: Name of the job.
        job_id: Its id.
    """

    name: str
    job_id: str


def submit_to_slurm(graph: JobGraph, settings: ClusterSettings) -> list[SubmittedJob]:
    """Submits all jobs of a graph, by the very script that `render_slurm` gives; if one is refused, none stays.

    Args:
        graph: The jobs.
        settings: The resources of each kind of job.

    Returns:
        The jobs, in the order of the graph.

    Raises:
        UsageError: There is no `sbatch` on this machine.
        AutosegError: Slurm refused a job, or did not answer.
        WriteError: The folder of the logs cannot be written.
    """
    bash, sbatch = shutil.which("bash"), shutil.which("sbatch")
    if bash is None or sbatch is None:
        missing = "sbatch" if sbatch is None else "bash"
        raise UsageError(f"there is no {missing} here to submit jobs with", "run this on a machine of a Slurm cluster")
    script = render_slurm(graph, settings)
    try:
        graph.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot write {graph.folder}: {reason_of(error)}"
        raise WriteError(what, advise_writing(error)) from error
    answer = subprocess.run(  # noqa: S603 - the script quotes all that is not its own
        [bash, "-s"], input=script, capture_output=True, text=True, errors="surrogateescape", check=False
    )
    if answer.returncode:
        lines = [" ".join(line.split()) for line in answer.stderr.splitlines() if line.strip()]
        reason = lines[0].removeprefix("sbatch: ").removeprefix("error: ") if lines else "it gave no reason"
        what = f"Slurm did not take the jobs, and none is submitted: {reason}"
        raise AutosegError(what, "say in cluster.json what jobs ask for, or ask who runs the cluster")
    rows = [line.split() for line in answer.stdout.splitlines()]
    return [SubmittedJob(name=name, job_id=job_id) for job_id, name in rows]
