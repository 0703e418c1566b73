"""A graph of jobs as a Snakefile, for any place where Snakemake runs jobs."""

import math

from autoseg.cluster.graph import Job, JobGraph, log_file
from autoseg.cluster.quoting import quote, quote_command
from autoseg.cluster.settings import ClusterSettings, Resources, resolve_resources


def render_snakemake(graph: JobGraph, settings: ClusterSettings) -> str:
    """Returns a Snakefile with a rule for each job, and for each array.

    Its working directory is the folder of the logs, because Snakemake takes what is in braces for a wildcard wherever
    the path of a file has them. There, a file of each rule says that its job is done. Whoever wants a job to run again
    removes it.

    Args:
        graph: The jobs.
        settings: The resources of each kind of job.
    """
    waited_for = {name for job in graph.jobs for name in job.after}
    last = [file for job in graph.jobs if job.name not in waited_for for file in _list_done_files(job)]
    lines = [
        "# snakemake --snakefile THIS_FILE --cores all",
        f"workdir: {str(graph.folder.absolute())!r}",
        'shell.executable("/bin/bash")',
        "",
        "rule all:",
        f"    input: {last!r}",
    ]
    for job in graph.jobs:
        lines += ["", *_make_rule(graph, job, resolve_resources(settings, job))]
    return "\n".join(lines) + "\n"


def _make_rule(graph: JobGraph, job: Job, resources: Resources) -> list[str]:
    jobs = {other.name: other for other in graph.jobs}
    inputs = [file for name in job.after for file in _list_done_files(jobs[name])]
    part = "" if job.parts is None else "_{part}"
    values = {
        "mem_mib": resources.memory_mib,
        "runtime": None if resources.time_seconds is None else math.ceil(resources.time_seconds / 60),
        "gpu": resources.gpus or None,
        "slurm_partition": resources.partition,
        "slurm_account": resources.account,
        "slurm_extra": quote_command(resources.options) or None,
    }
    entries = [f"{name}={value!r}" for name, value in values.items() if value is not None]
    return [
        f"rule {job.name}:",
        *([f"    input: {inputs!r}"] if inputs else []),
        f"    output: touch('{job.name}{part}.done')",
        *([f"    threads: {resources.cpus}"] if resources.cpus else []),
        *([f"    resources: {', '.join(entries)}"] if entries else []),
        f"    shell: {_make_command(graph, job, resources)!r}",
    ]


def _make_command(graph: JobGraph, job: Job, resources: Resources) -> str:
    """Returns the command of a rule, in which Snakemake replaces what is in single braces."""
    log = quote(str(log_file(graph.folder.absolute(), job.name)).removesuffix(".log"))
    command, log = _escape(quote_command(job.command)), _escape(log)
    if job.parts is not None:
        command, log = f"{command} --part {{wildcards.part}}/{job.parts}", f"{log}_{{wildcards.part}}"
    steps = [*map(_escape, resources.setup), f"{command} >> {log}.log 2>&1"]
    if job.result is not None:
        steps.append(f"test -e {_escape(quote(str(job.result.absolute())))}")
    return " && ".join(steps)


def _list_done_files(job: Job) -> list[str]:
    """Returns the names of the files that say that a job, or each part of it, is done."""
    if job.parts is None:
        return [f"{job.name}.done"]
    return [f"{job.name}_{part}.done" for part in range(1, job.parts + 1)]


def _escape(text: str) -> str:
    """Returns a text as it is written where Snakemake replaces what is in braces."""
    return text.replace("{", "{{").replace("}", "}}")
