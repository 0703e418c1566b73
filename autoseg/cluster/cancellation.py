"""Ends jobs before their work is done: those that wait do not begin, and those that run are asked to end."""

import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from autoseg.cluster.graph import record_file
from autoseg.cluster.job_state import ACTIVE, JobState
from autoseg.cluster.queue import ASK_SECONDS, SlurmQueue
from autoseg.cluster.records import Submission, append_event, read_submission
from autoseg.cluster.training_jobs import name_fold_job
from autoseg.workspace import Fold

REMOVERS = {"slurm": "scancel", "pbs": "qdel"}
"""The program of each scheduler that removes a job."""


def find_fold_jobs(states: dict[str, JobState], configuration: str, held: Collection[Fold]) -> dict[Fold, JobState]:
    """Returns the jobs that wait to train a fold of a configuration, or run and have not begun with it.

    Args:
        states: The states of jobs by name, as `find_job_states` returns them.
        configuration: The configuration.
        held: Folds that are being trained. The job of such a fold ends with its training, which is asked otherwise.
    """
    prefix = name_fold_job(configuration, "")
    jobs: dict[Fold, JobState] = {}
    for name, state in states.items():
        suffix = name.removeprefix(prefix)
        if name.startswith(prefix) and state.state in ACTIVE:
            fold: Fold = int(suffix) if suffix.isdecimal() else suffix
            if state.state == "waiting" or fold not in held:
                jobs[fold] = state
    return jobs


def cancel_jobs(folder: Path, states: Sequence[JobState]) -> list[str]:
    """Cancels jobs that wait, and asks those that run to end by SIGTERM, upon which a training saves its state.

    Jobs that `--on local` runs are ended by the program that runs them, which reads their records; see `local`.

    Args:
        folder: Folder of the records of the jobs.
        states: Jobs that wait or run.

    Returns:
        A line for each job that could not be cancelled.

    Raises:
        WriteError: A record cannot be written.
    """
    submissions = [(state, read_submission(record_file(folder, state.name))) for state in states]
    known = [(state, submission) for state, submission in submissions if submission is not None]
    slurm = [submission for _, submission in known if submission.scheduler == "slurm"]
    refused = _cancel_in_slurm(slurm) if slurm else {}
    problems = []
    for state, submission in known:
        reason = refused.get(submission.job_id, "")
        if submission.scheduler not in ("slurm", "local"):
            reason = "autoseg removes no jobs from this scheduler"
        if reason:
            remover = REMOVERS.get(submission.scheduler, "its scheduler")
            problems.append(f"{state.name} is not cancelled: {reason}; end it by '{remover} {submission.job_id}'")
        else:
            append_event(record_file(folder, state.name), "cancelled", submission.job_id)
    return problems


def _cancel_in_slurm(submissions: Sequence[Submission]) -> dict[str, str]:
    """Cancels jobs of Slurm, and asks those to end that run; returns why not, by the id of the job.

    Waiting jobs go first: they would begin as soon as those end that run.
    """
    program = shutil.which("scancel")
    if program is None:
        return {submission.job_id: "there is no scancel on this machine" for submission in submissions}
    answer = _call(program, "--state=PENDING", *(submission.job_id for submission in submissions))
    queue = SlurmQueue([submission.job_id for submission in submissions])
    running = [name for entry in submissions for name in entry.job_ids if queue.find(name).state == "running"]
    if running:
        answer += _call(program, "--batch", "--signal=TERM", *running)
    unchanged = ("waiting", "unknown")
    return {
        submission.job_id: answer or "Slurm does not answer"
        for submission in submissions
        if any(queue.find(name).state in unchanged for name in submission.job_ids)
    }


def _call(program: str, *arguments: str) -> str:
    """Calls scancel, and returns what it says of errors, in a line."""
    try:
        answer = subprocess.run(  # noqa: S603 - the program was looked for, and there is no shell
            [program, *arguments], capture_output=True, text=True, timeout=ASK_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return "scancel does not answer"
    return " ".join(answer.stderr.split())
