"""Jobs for many machines: run here, submitted, or printed."""

import os

from autoseg.cluster.graph import JobGraph
from autoseg.cluster.job_state import ACTIVE, find_job_states
from autoseg.cluster.pbs import render_pbs
from autoseg.cluster.settings import load_settings
from autoseg.cluster.slurm import render_slurm
from autoseg.cluster.snakemake import render_snakemake
from autoseg.cluster.submission import SubmittedJob, submit_to_slurm
from autoseg.errors import Stopped, UsageError
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import find_workspace

FilePath = str | os.PathLike[str]

PLACES = ("local", "slurm")
"""Where jobs run by `run_jobs`."""

RENDERERS = {"slurm": render_slurm, "pbs": render_pbs, "snakemake": render_snakemake}
"""What `print_jobs` writes scripts for."""


def run_jobs(
    graph: JobGraph,
    where: str,
    *,
    device: str = "auto",
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> list[SubmittedJob]:
    """Runs jobs on this machine and waits for their end, or submits them to Slurm and returns.

    Args:
        graph: The jobs.
        where: "local" or "slurm".
        device: The device of the jobs, if they run here: with "auto" and "cuda", each CUDA GPU gets a job of its own.
        workspace: The workspace, whose cluster.json has the resources.
        reporter: Told when a job begins and ends here.

    Returns:
        The jobs that were submitted; none if they ran here.

    Raises:
        UsageError: There is no such place, Slurm is not there, or jobs of the same name wait or run already.
        AutosegError: Slurm refused a job.
        ProblemsError: Jobs that ran here failed, with a line for each.
        ArtifactError: cluster.json is damaged, or the folder of the logs cannot be written.
        Stopped: The run was asked to stop.
        KeyboardInterrupt: Likewise, by Ctrl-C.

    Example:
        On the GPUs of this machine, or on its CPU one after the other::

            autoseg.run_jobs(autoseg.make_training_jobs(4, ["3d_fullres"], "cv"), "local")
    """
    if where not in PLACES:
        raise UsageError(f"jobs cannot be run on {where!r}", f"choose --on {' or '.join(PLACES)}; or --print them")
    states = find_job_states(graph.folder)
    for job in graph.jobs:
        state = states.get(job.name)
        if state is not None and state.state in ACTIVE:
            what = f"{job.name} is {state.state} already ({state.where})"
            raise UsageError(what, "wait until it has ended, or cancel it")
    if where == "slurm":
        return submit_to_slurm(graph, load_settings(find_workspace(workspace).cluster_settings))
    _run_here(graph, device, reporter)
    return []


def print_jobs(graph: JobGraph, scheduler: str, *, workspace: FilePath | None = None) -> str:
    """Returns the script that submits jobs to "slurm" or "pbs", or that "snakemake" runs; nothing is run or submitted.

    Args:
        graph: The jobs.
        scheduler: What the script is for.
        workspace: The workspace, whose cluster.json has the resources.

    Raises:
        UsageError: There is no such scheduler.
        ArtifactError: cluster.json is damaged.

    Example:
        A script for bash, or for whoever wants to see what would be submitted::

            print(autoseg.print_jobs(autoseg.make_training_jobs(4, ["2d"], "cv"), "pbs"))
    """
    if scheduler not in RENDERERS:
        raise UsageError(f"jobs cannot be printed for {scheduler!r}", f"choose --print {', '.join(RENDERERS)}")
    return RENDERERS[scheduler](graph, load_settings(find_workspace(workspace).cluster_settings))


def _run_here(graph: JobGraph, device: str, reporter: Reporter) -> None:
    from autoseg.cluster.local import list_gpus, run_locally
    from autoseg.training.stopping import EXIT_INTERRUPTED

    try:
        run_locally(graph, list_gpus(graph, device), reporter)
    except Stopped as stopped:
        if stopped.exit_code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt(str(stopped)) from None
        raise
