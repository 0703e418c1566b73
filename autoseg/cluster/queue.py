"""What a scheduler knows of a job at this moment; a job that ended long ago is not known any more."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

ASK_SECONDS = 20.0
"""How long `squeue` may take to answer; afterwards the queue counts as unknown."""

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING")
"""States of Slurm's jobs that are not over. Source: the manual of squeue."""

UNKNOWN_JOB = "Invalid job id"
"""What `squeue` says of jobs that ended long ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """What the scheduler says about a job.

    Attributes:
        state: "waiting", "running", "gone" if it has ended or left the queue, or "unknown" if nobody can be asked.
        detail: The reason for which a job waits, the machine on which it runs, or how it ended; may be empty.
    """

    state: Literal["waiting", "running", "gone", "unknown"]
    detail: str = ""


UNKNOWN = QueueEntry(state="unknown")
GONE = QueueEntry(state="gone")


class SlurmQueue:
    """Slurm's queue, as it was when it was asked for these jobs.

    Args:
        job_ids: Ids of jobs and of arrays; Slurm is not asked if there are none.
    """

    def __init__(self, job_ids: Sequence[str]) -> None:
        self._entries = _ask_squeue(job_ids) if job_ids else {}

    def find(self, job_id: str) -> QueueEntry:
        """Returns the entry of a job, or of a part of an array: "12_3"."""
        return UNKNOWN if self._entries is None else self._entries.get(job_id, GONE)


def _ask_squeue(job_ids: Sequence[str]) -> Mapping[str, QueueEntry] | None:
    """Returns the entries of jobs, each part of an array by itself; None if Slurm does not answer."""
    program = shutil.which("squeue")
    if program is None:
        return None
    options = ["--all", "--array", "--states=all", "--noheader", f"--jobs={','.join(job_ids)}"]
    try:
        answer = subprocess.run(  # noqa: S603 - the program is found above, and there is no shell
            [program, *options, "--format=%i|%T|%r|%N"],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if answer.returncode:
        return {} if UNKNOWN_JOB in answer.stderr else None
    rows = [line.strip().split("|") for line in answer.stdout.splitlines()]
    return {row[0]: _make_entry(*row[1:]) for row in rows if len(row) == 4}


def _make_entry(state: str, reason: str, node: str) -> QueueEntry:
    if state in WAITING:
        return QueueEntry(state="waiting", detail="" if reason == "None" else reason)
    if state in RUNNING:
        return QueueEntry(state="running", detail=node)
    return QueueEntry(state="gone", detail=state.lower().replace("_", " "))


def make_local_id(process: int, seconds: float) -> str:
    """Returns the id of the jobs that a program of this machine runs.

    Args:
        process: Number of its process.
        seconds: When it began, so that no two programs have one id.
    """
    return f"{process}.{int(seconds)}@{'-'.join(platform.node().split()) or 'localhost'}"


def find_local(job_id: str) -> QueueEntry:
    """Returns what this machine knows of a job that `--on local` runs, or ran.

    Args:
        job_id: The id, from `make_local_id`.

    Returns:
        "gone" if the program has ended that runs the jobs; else "unknown", since the record says more.
    """
    process, _, host = job_id.partition("@")
    if sys.platform == "win32" or host != make_local_id(0, 0).partition("@")[2]:
        return UNKNOWN  # on Windows, os.kill would end the program
    try:
        os.kill(int(process.split(".")[0]), 0)
    except (ProcessLookupError, ValueError):
        return GONE
    except OSError:
        return UNKNOWN  # it runs, and belongs to somebody else
    return UNKNOWN
