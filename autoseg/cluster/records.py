"""What happened to a job: lines that it, and what submitted it, append to a file; the scheduler keeps no history.

Each line is a word and what belongs to it, separated by spaces:

    submitted SCHEDULER ID PARTS    the scheduler knows the job, or the array of so many parts, by this id
    begun ID HOST                   it runs on this machine; the parts of an array have the ids ID_1, ID_2, ...
    requeued ID                     its time limit was near, and it waits again
    ended ID CODE                   with this exit code
    dropped ID                      it was not begun, because a job that it waited for did not end well
    cancelled ID                    'autoseg stop' asked it, or all parts of the array, to end or not to begin

A command that is no array has 0 parts.

A line is appended in one write, so that lines of several jobs do not mix.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoseg.errors import WriteError
from autoseg.runtime.os_errors import advise_writing, reason_of

Event = Literal["begun", "requeued", "ended", "dropped"]
EVENTS: tuple[Event, ...] = ("begun", "requeued", "ended", "dropped")
WORDS = {"submitted": 4, "begun": 3, "requeued": 2, "ended": 3, "dropped": 2, "cancelled": 2}
"""Number of words of each line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The last time that a job was submitted.

    Attributes:
        scheduler: "slurm", "pbs" or "local".
        job_id: Id of the job, or of the array.
        parts: Number of parts of an array; 0 for one command.
        events: What happened to it since: kind of the event, id, and host or exit code.
        is_cancelled: Whether it was asked to end, or not to begin.
    """

    scheduler: str
    job_id: str
    parts: int
    events: tuple[tuple[Event, str, str], ...]
    is_cancelled: bool = False

    @property
    def job_ids(self) -> Sequence[str]:
        """The id of the job, or of each part of the array."""
        return [f"{self.job_id}_{part}" for part in range(1, self.parts + 1)] or [self.job_id]

    def last_event(self, job_id: str) -> tuple[Event, str] | None:
        """Returns the last event of a job or of a part of an array, and its host or exit code; None if there is none.

        Example:
            >>> events = (("begun", "12_1", "node3"), ("begun", "12_2", "node4"), ("ended", "12_1", "0"))
            >>> Submission(scheduler="slurm", job_id="12", parts=2, events=events).last_event("12_1")
            ('ended', '0')
        """
        return next(((kind, detail) for kind, name, detail in reversed(self.events) if name == job_id), None)


def append_event(path: Path, *words: str) -> None:
    """Appends a line to the record of a job.

    Raises:
        WriteError: The disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(f"{' '.join(words)}\n".encode())
    except OSError as error:
        what = f"cannot write {path}: {reason_of(error)}"
        raise WriteError(what, advise_writing(error)) from error


def read_submission(path: Path) -> Submission | None:
    """Returns the last submission of a job; None if it was never submitted.

    A job may begin before the line of its submission is written, so events before that line count as well.

    Args:
        path: Path of the record.
    """
    lines = list(_read_lines(path))
    submitted = next((words for words in reversed(lines) if words[0] == "submitted"), None)
    if submitted is None:
        return None
    _, scheduler, job_id, parts = submitted
    events = tuple(
        (kind, words[1], words[2] if len(words) > 2 else "")
        for words in lines
        for kind in EVENTS
        if words[0] == kind and (words[1] == job_id or words[1].startswith(f"{job_id}_"))
    )
    return Submission(
        scheduler=scheduler,
        job_id=job_id,
        parts=int(parts),
        events=events,
        is_cancelled=["cancelled", job_id] in lines,
    )


def list_records(folder: Path) -> list[str]:
    """Returns the names of the jobs of a folder that have a record."""
    return sorted(path.stem for path in folder.glob("*.record"))


def _read_lines(path: Path) -> Iterator[list[str]]:
    """Yields the words of each line; a line that was cut off, or that something else wrote, is left out."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        words = line.split()
        is_whole = bool(words) and WORDS.get(words[0]) == len(words)
        if is_whole and (words[0] != "submitted" or words[3].isdecimal()):
            yield words


def last_line(log: Path, most_bytes: int = 65536) -> str:
    """Returns the last line of a log that says something; of several, the last error. Empty if there is none.

    Args:
        log: Path of the log.
        most_bytes: How many bytes before its end are searched.
    """
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in map(_printable, text.splitlines()) if line]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]


def _printable(line: str) -> str:
    """Returns a line without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in line).strip()
