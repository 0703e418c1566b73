"""The state of every fold of a dataset, and of its other jobs: from what is on disk, and what the scheduler says."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoseg.cluster.job_state import ACTIVE, JobState, find_job_states
from autoseg.cluster.training_jobs import name_fold_job
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.planning.plan import CONFIGURATION_NAMES
from autoseg.runtime.lock import find_holder
from autoseg.workspace import DatasetFolders, Fold, ModelFolder

Progress = Literal["done", "running", "waiting", "stopped", "failed", "not begun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkState:
    """The state of a fold, or of another job.

    Attributes:
        name: "3d_fullres, fold 0", or the name of the job.
        state: "done"; "running"; "waiting" in a queue; "stopped" before its end, to go on by the same command;
            "failed"; or "not begun".
        where: The machine and the process, or the job of the scheduler; may be empty.
        detail: How far a training is, its mean Dice, why a job waits, or the last line of one that failed.
    """

    name: str
    state: Progress
    where: str = ""
    detail: str = ""


def describe_dataset(folders: DatasetFolders, jobs_folder: Path, folds: int) -> list[WorkState]:
    """Returns the state of every fold of each configuration that was begun or submitted, and of all other jobs.

    Args:
        folders: Folders of the dataset, as the plan sees them that is asked about.
        jobs_folder: Folder of the logs and records of its jobs.
        folds: Number of folds of a cross-validation.
    """
    jobs = find_job_states(jobs_folder)
    states = []
    for configuration in CONFIGURATION_NAMES:
        model = folders.model(configuration)
        every: list[Fold] = [*range(folds), "all"]
        submitted = {fold: jobs.pop(name_fold_job(configuration, fold), None) for fold in every}
        begun = {fold for fold in every if model.fold(fold).is_dir()}
        if not begun and not any(submitted.values()):
            continue
        for fold in every:
            if fold != "all" or fold in begun or submitted[fold] is not None:
                states.append(describe_fold(model, fold, submitted[fold]))
    return [*states, *describe_jobs(jobs)]


def describe_jobs(jobs: dict[str, JobState]) -> Iterator[WorkState]:
    """Yields the states of jobs that train no fold."""
    for job in jobs.values():
        yield WorkState(name=job.name, state=job.state, where=job.where, detail=job.detail)


def describe_fold(model: ModelFolder, fold: Fold, job: JobState | None) -> WorkState:
    """Returns the state of a fold: whoever holds its folder trains it; else its results, then its job, tell.

    Args:
        model: Folder of the configuration.
        fold: The fold.
        job: The state of the job that was submitted for it, if any.
    """
    name, epochs = f"{model.path.name}, fold {fold}", _describe_epochs(model, fold)
    holder = find_holder(model.fold(fold))
    if holder is not None:
        where = f"{job.job}, {holder}" if job is not None and job.state in ACTIVE else holder
        return WorkState(name=name, state="running", where=where, detail=epochs)
    summary = summary_file(model.validation(fold))
    if summary.is_file():
        dice = Summary.load(summary).foreground_mean.dice
        return WorkState(name=name, state="done", detail=f"mean Dice {dice:.4f}")
    if fold == "all" and _is_finished(model.checkpoint(fold)):
        return WorkState(name=name, state="done", detail=epochs)
    if job is not None and job.state != "done":
        detail = "; ".join(filter(None, [job.detail, epochs]))
        return WorkState(name=name, state=job.state, where=job.where, detail=detail)
    if model.checkpoint(fold).is_file():
        return WorkState(name=name, state="stopped", detail=epochs or "no epoch is done")
    return WorkState(name=name, state="not begun")


def _describe_epochs(model: ModelFolder, fold: Fold) -> str:
    """Returns how many epochs of a fold are done; empty if none is."""
    try:
        lines = model.progress(fold, "jsonl").read_bytes().count(b"\n")
    except OSError:
        return ""
    return "" if lines == 0 else f"{lines} {'epoch' if lines == 1 else 'epochs'} done"


def _is_finished(checkpoint: Path) -> bool:
    """Returns whether a fold that holds nothing out is trained to its end."""
    from autoseg.models.checkpoint import load_checkpoint  # noqa: PLC0415 - torch takes a second to load

    return checkpoint.is_file() and load_checkpoint(checkpoint, mapped=True).finished
