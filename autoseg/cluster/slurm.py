"""A graph of jobs as a bash script of plain `sbatch` commands. It needs neither Slurm's accounting nor any package."""

from autoseg.cluster.graph import Job, JobGraph, log_file
from autoseg.cluster.job_script import Dialect, make_job_script
from autoseg.cluster.quoting import quote_command
from autoseg.cluster.settings import ClusterSettings, Resources, resolve_resources
from autoseg.cluster.submission_script import make_submission_script
from autoseg.errors import UsageError

DIALECT = Dialect(
    identify=("id=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}",),
    part="SLURM_ARRAY_TASK_ID",
    cores="SLURM_CPUS_PER_TASK",
    warning="USR1",
    go_on=(
        'note requeued "$id"',
        'if scontrol requeue "$SLURM_JOB_ID"; then exit "$code"; fi',
        "echo 'Slurm does not requeue this job; submit it again to go on'",
    ),
)

SUBMIT = """\
submit() {  # the name of a job, its number of parts, and options of sbatch; its script is the standard input
    local name=$1 parts=$2 id
    shift 2
    id=$(sbatch --parsable --job-name="$name" "$@")
    id=${id%%;*}  # behind a semicolon, sbatch writes the name of the cluster
    ids+=("$id")
    printf 'submitted slurm %s %s\\n' "$id" "$parts" >> "$folder/$name.record"
    printf '%s %s\\n' "$id" "$name"
}"""


def render_slurm(graph: JobGraph, settings: ClusterSettings) -> str:
    """Returns the script that submits all jobs of a graph to Slurm, or none of them if one is refused.

    Shortly before its time limit a job gets SIGUSR1, ends itself and is requeued; jobs that wait for it go on waiting.
    A job that waits for one that failed is cancelled.

    Args:
        graph: The jobs.
        settings: The resources of each kind of job.

    Raises:
        UsageError: Slurm cannot write logs into the folder.
    """
    if "\\" in str(graph.folder.absolute()):
        what = f"Slurm writes no logs into {graph.folder.absolute()}, whose name has a backslash"
        raise UsageError(what, "choose a workspace without one")
    entries = []
    for job in graph.jobs:
        resources = resolve_resources(settings, job)
        script = make_job_script(graph, job, DIALECT, setup=resources.setup)
        entries.append((_options(graph, job, resources), script))
    return make_submission_script(graph, SUBMIT, "scancel", entries)


def _options(graph: JobGraph, job: Job, resources: Resources) -> str:
    """Returns name and parts of a job and the options of sbatch, as a part of a command line of bash."""
    log = log_file(graph.folder.absolute(), job.name)
    pattern = str(log).replace("%", "%%")  # Slurm replaces %j and the like
    if job.parts is not None:
        pattern = pattern.removesuffix(".log") + "_%a.log"
    options = [
        f"--output={pattern}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{resources.warning_seconds}",
        "--nodes=1",
        "--ntasks=1",
    ]
    if job.parts is not None:
        options.append(f"--array=1-{job.parts}")
    if resources.gpus:
        options.append(f"--gres=gpu:{resources.gpus}")
    values = {
        "partition": resources.partition,
        "account": resources.account,
        "cpus-per-task": resources.cpus,
        "mem": None if resources.memory_mib is None else f"{resources.memory_mib}M",
        "time": resources.time,
    }
    options += [f"--{name}={value}" for name, value in values.items() if value is not None]
    text = quote_command([job.name, str(job.parts or 0), *options, *resources.options])
    if job.after:
        positions = graph.positions
        ids = ":".join(f"${{ids[{positions[name]}]}}" for name in job.after)
        text += f' "--dependency=afterok:{ids}" --kill-on-invalid-dep=yes'
    return text
