"""A graph of jobs as data: commands, what each waits for, and the kind of machine it needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

JobKind = Literal["train", "find_best", "preprocess", "predict", "report"]
"""Kinds of jobs, which may need machines of different kinds; named as the commands that they run."""

WITHOUT_GPU: tuple[JobKind, ...] = ("preprocess", "report")
"""Kinds of jobs that calculate on the CPU."""

JOB_NAME = re.compile(r"^[A-Za-z]\w{0,120}\Z", re.ASCII)

EXIT_UNFINISHED = 75
"""Exit code of a job whose command ended without an error, but also without its result: 'autoseg stop' ended it.
Source: EX_TEMPFAIL of sysexits.h, "the user is invited to retry"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command, or an array of commands that do a part of the work each.

    Attributes:
        name: Name, unique in its graph, of letters, digits and underscores.
        kind: Which resources of the settings it gets.
        command: Program and arguments. They are passed on as they are, whatever characters they hold.
        after: Names of the jobs that must have ended well before this one begins.
        parts: Number of parts of an array; each gets `--part NUMBER/PARTS` as further arguments. None for one command.
        result: File that exists when the work is done; None if exit code 0 alone says so.
        gpus: Number of GPUs that the command uses; None for what the settings say.

    Raises:
        ValueError: The name has other characters, or there is no part.
    """

    name: str
    kind: JobKind
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    parts: int | None = None
    result: Path | None = None
    gpus: int | None = None

    def __post_init__(self) -> None:
        if not JOB_NAME.match(self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a job")
        if self.parts is not None and self.parts < 1:
            raise ValueError(f"{self.name} has {self.parts} parts")

    def part_command(self, part: int) -> tuple[str, ...]:
        """Returns the command of one part of an array, from 1.

        >>> Job(name="predict", kind="predict", command=("autoseg", "predict"), parts=4).part_command(2)
        ('autoseg', 'predict', '--part', '2/4')
        """
        return (*self.command, "--part", f"{part}/{self.parts}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGraph:
    """Jobs in an order in which they could run one after the other.

    Attributes:
        title: What they do together, in one line.
        folder: Folder of their logs and of the records of their states.
        jobs: The jobs; each comes after those that it waits for.

    Raises:
        ValueError: Two jobs have one name, or a job waits for one that does not come before it.

    Example:
        >>> train = Job(name="train", kind="train", command=("autoseg", "train"))
        >>> best = Job(name="find_best", kind="find_best", command=("autoseg", "find_best"), after=("train",))
        >>> JobGraph(title="a fold", folder=Path("jobs"), jobs=(train, best)).log(best).as_posix()
        'jobs/find_best.log'
    """

    title: str
    folder: Path
    jobs: tuple[Job, ...]

    def __post_init__(self) -> None:
        names: set[str] = set()
        for job in self.jobs:
            if job.name in names or not names.issuperset(job.after):
                raise ValueError(f"job {job.name} occurs twice or comes before a job that it waits for")
            names.add(job.name)

    def log(self, job: Job, part: int | None = None) -> Path:
        """Returns the path of the log of a job, or of a part of it."""
        return log_file(self.folder, job.name, part)

    @property
    def positions(self) -> Mapping[str, int]:
        """Name of each job, to its position in `jobs`."""
        return {job.name: position for position, job in enumerate(self.jobs)}


def log_file(folder: Path, name: str, part: int | None = None) -> Path:
    """Returns the path of the log of a job in the folder of its graph, or of a part of it."""
    return folder / (f"{name}.log" if part is None else f"{name}_{part}.log")


def record_file(folder: Path, name: str) -> Path:
    """Returns the path of the record of what happened to a job; see `records`."""
    return folder / f"{name}.record"
