"""The state of a submitted job: what it recorded itself, completed by what the scheduler says at this moment."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoseg.cluster.graph import EXIT_UNFINISHED, log_file, record_file
from autoseg.cluster.queue import UNKNOWN, QueueEntry, SlurmQueue, find_local
from autoseg.cluster.records import Submission, last_line, list_records, read_submission
from autoseg.runtime.reporting import list_names

State = Literal["done", "running", "waiting", "stopped", "failed"]
"""States of jobs: "stopped" ended before its work was done because it was asked to, and can go on."""

ORDER: tuple[State, ...] = ("running", "waiting", "failed", "stopped", "done")
"""The state of an array is the first of these that a part of it has."""

ACTIVE: tuple[State, ...] = ("running", "waiting")
"""States of jobs that are not over."""

STOPPED = "ended by a request to stop; submit it again to go on"
CANCELLED = "cancelled before it began; submit it again to go on"

REASONS = {
    "Dependency": "for the jobs before it",
    "Resources": "for a free machine",
    "Priority": "for jobs of higher priority",
    "BeginTime": "for a moment, because it was requeued",
}
"""Slurm's usual reasons to let a job wait, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The state of a job.

    Attributes:
        name: Name of the job.
        state: The state.
        job: Scheduler and id of the job: "slurm job 12".
        host: The machines on which it runs; empty if it does not.
        detail: Why it waits or how it failed, with the last line of its log; may be empty.
    """

    name: str
    state: State
    job: str
    host: str = ""
    detail: str = ""

    @property
    def where(self) -> str:
        """The job, and the machines on which it runs."""
        return self.job + (f" on {self.host}" if self.host else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The state of one command: a job, or a part of an array.

    Attributes:
        state: The state.
        host: The machine on which it runs, or ran; empty if it has not begun.
        detail: Why it waits or how it failed.
    """

    state: State
    host: str = ""
    detail: str = ""


def find_job_states(folder: Path) -> dict[str, JobState]:
    """Returns the state of each job whose log is, or will be, in a folder, by name.

    Slurm is asked once, and only about jobs whose record does not end with their end.

    Args:
        folder: The folder of a graph; it need not exist.
    """
    submissions = {name: read_submission(record_file(folder, name)) for name in list_records(folder)}
    found = {name: submission for name, submission in submissions.items() if submission is not None}
    queue = SlurmQueue([entry.job_id for entry in found.values() if entry.scheduler == "slurm" and _is_open(entry)])
    return {name: _find_state(folder, name, submission, queue) for name, submission in found.items()}


def _is_open(submission: Submission) -> bool:
    """Returns whether the job, or a part of it, has not recorded its end."""
    events = [submission.last_event(job_id) for job_id in submission.job_ids]
    return any(event is None or event[0] not in ("ended", "dropped") for event in events)


def _find_state(folder: Path, name: str, submission: Submission, queue: SlurmQueue) -> JobState:
    parts = [_find_part(folder, name, submission, position, queue) for position in range(len(submission.job_ids))]
    [state, *_] = sorted((part.state for part in parts), key=ORDER.index)
    hosts = list_names(dict.fromkeys(part.host for part in parts if part.state == "running" and part.host), most=3)
    detail = parts[0].detail if submission.parts == 0 else _count_parts(parts)
    return JobState(name=name, state=state, job=_name_job(submission), host=hosts, detail=detail)


def _name_job(submission: Submission) -> str:
    if submission.scheduler == "local":
        return f"process {submission.job_id.split('.')[0]}"
    return f"{submission.scheduler} job {submission.job_id}"


def _count_parts(parts: list[_Part]) -> str:
    """Returns how many parts of an array are in which state, and the first failure."""
    counts = Counter(part.state for part in parts)
    text = f"{counts['done']} of {len(parts)} parts done"
    text += "".join(f", {counts[state]} {state}" for state in ORDER if state != "done" and counts[state])
    failed = next((number for number, part in enumerate(parts, start=1) if part.state == "failed"), None)
    return text if failed is None else f"{text}; part {failed}: {parts[failed - 1].detail}"


def _find_part(folder: Path, name: str, submission: Submission, position: int, queue: SlurmQueue) -> _Part:
    """Returns the state of one command, from its last event and from the queue."""
    job_id = submission.job_ids[position]
    log = log_file(folder, name, position + 1 if submission.parts else None)
    event, detail = submission.last_event(job_id) or ("", "")
    if submission.scheduler == "local":
        entry = find_local(submission.job_id)
    else:
        entry = queue.find(job_id) if submission.scheduler == "slurm" else UNKNOWN
    is_over = event in ("ended", "dropped") or entry.state == "gone"
    if submission.is_cancelled and is_over and entry.state not in ACTIVE and (event, detail) != ("ended", "0"):
        return _Part(state="stopped", detail=CANCELLED if event in ("", "dropped") else STOPPED)
    if event == "ended" and entry.state not in ACTIVE:
        return _describe_end(int(detail) if detail.isdecimal() else 1, log)
    if event == "dropped":
        return _Part(state="failed", detail="not begun, because a job that it waited for did not end well")
    if entry.state == "gone":
        return _describe_loss(event, entry, log)
    is_running = event == "begun" if entry.state == "unknown" else entry.state == "running"
    if is_running:
        return _Part(state="running", host=detail if event == "begun" else entry.detail)
    return _Part(state="waiting", detail=REASONS.get(entry.detail, entry.detail))


def _describe_end(code: int, log: Path) -> _Part:
    if code == 0:
        return _Part(state="done")
    if code == EXIT_UNFINISHED:
        return _Part(state="stopped", detail=STOPPED)
    return _Part(state="failed", detail=f"exit code {code}: {last_line(log) or 'it said nothing'}")


def _describe_loss(event: str, entry: QueueEntry, log: Path) -> _Part:
    """Returns the state of a job that is in no queue, although it has not recorded its end."""
    ended = f" ({entry.detail})" if entry.detail else ""
    if event == "begun":
        line = last_line(log)
        return _Part(state="failed", detail=f"ended without a word{ended}{line and f', after: {line}'}")
    how = "after it was requeued" if event == "requeued" else "without having begun"
    return _Part(state="failed", detail=f"left the queue {how}{ended}")
