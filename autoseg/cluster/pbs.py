"""A graph of jobs as a bash script of `qsub` commands, for PBS Professional and OpenPBS."""

from autoseg.cluster.graph import Job, JobGraph, log_file
from autoseg.cluster.job_script import Dialect, make_job_script
from autoseg.cluster.quoting import quote_command
from autoseg.cluster.settings import ClusterSettings, Resources, resolve_resources
from autoseg.cluster.submission_script import make_submission_script

DIALECT = Dialect(
    identify=("id=${PBS_JOBID%%.*}", "id=${id%%\\[*}"),
    part="PBS_ARRAY_INDEX",
    cores="NCPUS",
    warning=None,
    go_on=(),
)

SUBMIT = """\
submit() {  # the name of a job, its number of parts, and options of qsub; its script is the standard input
    local name=$1 parts=$2 id
    shift 2
    id=$(qsub -N "$name" "$@")
    ids+=("$id")
    id=${id%%.*}  # behind a point, qsub writes the name of the server
    printf 'submitted pbs %s %s\\n' "${id%%\\[*}" "$parts" >> "$folder/$name.record"
    printf '%s %s\\n' "$id" "$name"
}"""


def render_pbs(graph: JobGraph, settings: ClusterSettings) -> str:
    """Returns the script that submits all jobs of a graph to PBS, or none of them if one is refused.

    PBS sends no signal before its time limit, so the command runs under `timeout`, and users may not requeue a job.
    A job that ended itself in time counts as failed; submitted again, it goes on.

    Args:
        graph: The jobs.
        settings: The resources of each kind of job.
    """
    entries = []
    for job in graph.jobs:
        resources = resolve_resources(settings, job)
        limit = resources.time_seconds
        script = make_job_script(
            graph,
            job,
            DIALECT,
            setup=_setup(graph, job, resources),
            clock_seconds=None if limit is None else limit - resources.warning_seconds,
        )
        entries.append((_options(graph, job, resources), script))
    return make_submission_script(graph, SUBMIT, "qdel", entries)


def _setup(graph: JobGraph, job: Job, resources: Resources) -> list[str]:
    """Returns the lines before the command: PBS writes output when a job has ended, so the script writes it itself."""
    log = log_file(graph.folder.absolute(), job.name)
    stem = quote_command([str(log).removesuffix(".log")])
    suffix = '"_${PBS_ARRAY_INDEX:-1}".log' if job.parts is not None else ".log"
    return [f"exec >> {stem}{suffix} 2>&1", 'cd "$PBS_O_WORKDIR"', *resources.setup]


def _options(graph: JobGraph, job: Job, resources: Resources) -> str:
    """Returns name and parts of a job and the options of qsub, as a part of a command line of bash."""
    chunk = [
        "select=1",
        *([f"ncpus={resources.cpus}"] if resources.cpus else []),
        *([f"ngpus={resources.gpus}"] if resources.gpus else []),
        *([f"mem={resources.memory_mib}mb"] if resources.memory_mib else []),
    ]
    options = ["-V", "-j", "oe", "-o", "/dev/null", "-l", ":".join(chunk)]
    values = {
        "-q": resources.partition,
        "-A": resources.account,
        "-J": None if job.parts is None or job.parts == 1 else f"1-{job.parts}",
    }
    for name, value in values.items():
        options += [] if value is None else [name, value]
    if resources.time is not None:
        options += ["-l", f"walltime={resources.time}"]
    text = quote_command([job.name, str(job.parts or 0), *options, *resources.options])
    if job.after:
        positions = graph.positions
        ids = ":".join(f"${{ids[{positions[name]}]}}" for name in job.after)
        text += f' -W "depend=afterok:{ids}"'
    return text
