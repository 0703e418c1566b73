"""cluster.json of a workspace: the resources that jobs ask a cluster for."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from autoseg.cluster.graph import WITHOUT_GPU, Job, JobKind
from autoseg.errors import UsageError
from autoseg.runtime.artifact import Artifact
from autoseg.runtime.units import parse_duration, parse_memory

WARNING_SECONDS = 120
"""How long before its time limit a job is asked to end. Decision: a training ends within ten seconds, and Slurm may
send the signal up to a minute early; a slow disk gets the rest to write the checkpoint."""


def _check_time(text: str) -> str:
    try:
        parse_duration(text)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return text


def _check_memory(text: str) -> str:
    try:
        parse_memory(text)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return text


def _check_word(text: str) -> str:
    if not text or not text.isprintable() or any(character.isspace() for character in text):
        raise ValueError("is not a word")
    return text


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("is not a line of text")
    return text


Word = Annotated[str, AfterValidator(_check_word)]
Line = Annotated[str, AfterValidator(_check_line)]


class JobSettings(BaseModel):
    """The resources of one kind of jobs; what is left out is as for all jobs.

    Attributes:
        partition: Partition of Slurm, or queue of PBS.
        account: Account, or project, that is charged.
        gpus: Number of GPUs of a job.
        cpus: Number of cores of a job.
        memory: Memory of a job, such as "32GB".
        time: Time limit of a job, such as "24h".
        options: Further options of sbatch or qsub, as on the command line.
        setup: Lines of bash before the command, such as "module load cuda".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: Word | None = None
    account: Word | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[str, AfterValidator(_check_memory)] | None = None
    time: Annotated[str, AfterValidator(_check_time)] | None = None
    options: tuple[Line, ...] | None = None
    setup: tuple[Line, ...] | None = None


class ClusterSettings(JobSettings, Artifact):
    """The content of cluster.json: the resources of all jobs, and what is different for a kind of them.

    Attributes:
        jobs: Kind of a job, to its own resources.

    Example:
        >>> settings = ClusterSettings.parse('{"time": "24h", "jobs": {"find_best": {"time": "2h"}}}', "cluster.json")
        >>> find_best = Job(name="find_best", kind="find_best", command=("autoseg", "find_best"))
        >>> resolve_resources(settings, find_best).time_seconds
        7200
    """

    jobs: dict[JobKind, JobSettings] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of one job.

    Attributes:
        partition: Partition or queue; None for the usual one.
        account: Account or project; None for the usual one.
        gpus: Number of GPUs.
        cpus: Number of cores; None for what the cluster gives.
        memory_mib: Memory in units of 2^20 bytes; None for what the cluster gives.
        time_seconds: Time limit; None for what the cluster gives.
        options: Further options of the scheduler.
        setup: Lines of bash before the command.
    """

    partition: str | None
    account: str | None
    gpus: int
    cpus: int | None
    memory_mib: int | None
    time_seconds: int | None
    options: tuple[str, ...]
    setup: tuple[str, ...]

    @property
    def warning_seconds(self) -> int:
        """How long before the time limit the job is asked to end; a quarter of a short limit."""
        if self.time_seconds is None:
            return WARNING_SECONDS
        return min(WARNING_SECONDS, max(1, self.time_seconds // 4))

    @property
    def time(self) -> str | None:
        """The time limit as hours, minutes and seconds, which Slurm and PBS read alike."""
        if self.time_seconds is None:
            return None
        hours, rest = divmod(self.time_seconds, 3600)
        return f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"


def load_settings(path: Path) -> ClusterSettings:
    """Reads cluster.json; without the file, everything is as the cluster has it, with a GPU for each job.

    Raises:
        ArtifactError: The file is damaged, or a field has an impossible value.
    """
    return ClusterSettings.load(path) if path.exists() else ClusterSettings()


def resolve_resources(settings: ClusterSettings, job: Job) -> Resources:
    """Returns the resources of a job.

    A job gets a GPU unless the settings say otherwise. Preprocessing and reports calculate on the CPU, so they get none
    unless their own settings say so.

    Args:
        settings: The settings of the workspace.
        job: The job, which may know how many GPUs its command uses.
    """
    own = settings.jobs.get(job.kind, JobSettings())
    chosen = {
        name: getattr(settings, name) if getattr(own, name) is None else getattr(own, name)
        for name in JobSettings.model_fields
    }
    gpus = own.gpus or 0 if job.kind in WITHOUT_GPU else chosen["gpus"]
    if job.gpus is not None:
        gpus = job.gpus
    memory, time = chosen["memory"], chosen["time"]
    return Resources(
        partition=chosen["partition"],
        account=chosen["account"],
        gpus=1 if gpus is None else gpus,
        cpus=chosen["cpus"],
        memory_mib=None if memory is None else math.ceil(parse_memory(memory) / 2**20),
        time_seconds=None if time is None else math.ceil(parse_duration(time)),
        options=chosen["options"] or (),
        setup=chosen["setup"] or (),
    )
