"""The command that shows the states of jobs, and what the commands share that run as jobs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, PlanName, WorkspacePath
from autoseg.cli.reports import Port
from autoseg.errors import UsageError

if TYPE_CHECKING:
    from autoseg.cluster.graph import JobGraph
    from autoseg.runtime.reporting import Reporter

Where = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Run as jobs: on local, this machine's GPUs, or its CPU, one after the other; or on slurm.",
        metavar="PLACE",
    ),
]
PrintFor = Annotated[
    str | None,
    typer.Option("--print", help="Print the jobs for slurm, pbs or snakemake, and run nothing.", metavar="SCHEDULER"),
]
Parts = Annotated[
    int | None,
    typer.Option("--parts", min=1, help="With --on or --print: how many jobs share the work.", metavar="COUNT"),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        help="For several machines: 2/4 does the second of four parts of the work, any what no other run has.",
        metavar="NUMBER/COUNT",
    ),
]


def wants_jobs(where: str | None, print_for: str | None, only_with_jobs: dict[str, object]) -> bool:
    """Returns whether the work is to be done by jobs.

    Args:
        where: The place to run them.
        print_for: The scheduler to print them for.
        only_with_jobs: Options, with their values, that make sense for jobs alone.

    Raises:
        UsageError: Both were given, or one of these options and neither.
    """
    if where is not None and print_for is not None:
        raise UsageError("--on runs jobs and --print only shows them", "give one of them")
    if where is None and print_for is None:
        given = [name for name, value in only_with_jobs.items() if value is not None]
        if given:
            raise UsageError(f"{given[0]} is for jobs", f"add --on or --print, or leave out {given[0]}")
        return False
    return True


def refuse_with_jobs(options: dict[str, object]) -> None:
    """Refuses options that would be followed anew each time that a job goes on after its time limit.

    Raises:
        UsageError: One of them is given.
    """
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        what = f"{given[0]} does not go together with jobs"
        raise UsageError(what, f"leave out {given[0]}, or --on and --print")


def make_remarks(print_for: str | None) -> "Reporter":
    """Returns the reporter of remarks about a graph: silent if the script is the output."""
    from autoseg.cli.terminal import Terminal
    from autoseg.runtime.reporting import SILENT

    return Terminal() if print_for is None else SILENT


def start_jobs(
    graph: "JobGraph", where: str | None, print_for: str | None, *, device: str, workspace: Path | None, hint: str
) -> None:
    """Runs, submits or prints jobs.

    Args:
        graph: The jobs.
        where: Where they run.
        print_for: What they are printed for, if they are not run.
        device: The device of the jobs, if they run here.
        workspace: The workspace.
        hint: The command that shows their states.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import print_jobs, run_jobs

    if print_for is not None:
        script = print_jobs(graph, print_for, workspace=workspace)
        sys.stdout.buffer.write(script.encode(errors="surrogateescape"))
        return
    submitted = run_jobs(graph, where or "", device=device, workspace=workspace, reporter=Terminal())
    for job in submitted:
        console.print(f"job {job.job_id}: {job.name}")
    console.print(f"{len(submitted)} submitted; {hint} shows them" if submitted else f"{graph.title}: done")


def watch(
    number: DatasetNumber,
    configurations: Annotated[
        list[str] | None,
        typer.Option("-c", "--configuration", help="Which to show. [default: all]", metavar="NAME..."),
    ] = None,
    plan: PlanName = None,
    port: Port = 0,
    workspace: WorkspacePath = None,
) -> None:
    """Shows trainings in a browser of this machine while they go on, until Ctrl-C.

    Serves the page of 'autoseg report model', which changes with each epoch, and what 'autoseg status' tells. Folds may
    be trained anywhere, on all machines that share the workspace: only files are read, and only while the page is open.
    """
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import watch

    watch(
        number,
        configurations=cast("Any", configurations),
        plan=plan,
        port=port,
        workspace=workspace,
        reporter=Terminal(),
    )


def status(
    number: Annotated[
        int | None,
        typer.Option(
            "-d",
            "--dataset",
            min=1,
            max=999,
            help="Number of the dataset. [default: predictions by models that were named with -m]",
            metavar="NUMBER",
        ),
    ] = None,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Shows the state of every fold and of other jobs.

    Each is done, running (where), waiting, stopped, failed (with the last line of its log) or not begun. Trainings
    that were begun by hand, here or on another machine that shares the workspace, are shown as well.
    """
    from autoseg.cli.terminal import console, print_table
    from autoseg.pipeline import status

    states = status(number, plan_name=plan_name, workspace=workspace)
    if not states:
        console.print("nothing is trained, and no job was submitted")
        return
    rows = [[entry.name, entry.state, entry.where, entry.detail] for entry in states]
    print_table("jobs" if number is None else f"dataset {number}", ["work", "state", "where", "detail"], rows)
