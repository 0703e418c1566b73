"""The jobs that train folds: one for each fold, a cascade after its coarser network, `find_best`, a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.cluster.command_lines import PROGRAM, OptionValue, count_gpus, list_options
from autoseg.cluster.graph import Job, JobGraph
from autoseg.datasets.splits import Splits
from autoseg.errors import UsageError
from autoseg.evaluation.summary import summary_file
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.workspace import DatasetFolders, Fold, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobsRequest:
    """What a user asked of `train`, for jobs.

    Attributes:
        number: Number of the dataset.
        workspace: Folder of the workspace.
        configurations: Configurations to train.
        folds: Their folds; "cv" stands for each number.
        options: Further options of `train`, as `list_options` takes them.
        device: The device, as the user named it; `find_best` gets it too.
        gpus: Number of GPUs that train a fold together, as the user named it.
    """

    number: int
    workspace: Path
    configurations: tuple[ConfigurationName, ...]
    folds: tuple[Fold, ...]
    options: Mapping[str, OptionValue]
    device: str = "auto"
    gpus: int | None = None


def name_fold_job(configuration: str, fold: Fold) -> str:
    """Returns the name of the job that trains a fold.

    >>> name_fold_job("3d_fullres", 0)
    'train_3d_fullres_fold_0'
    """
    return f"train_{configuration}_fold_{fold}"


def make_training_graph(
    request: TrainingJobsRequest, folders: DatasetFolders, plan: Plan, splits: Splits, reporter: Reporter
) -> JobGraph:
    """Returns the jobs that train what was asked for. Folds that are trained and validated are left out.

    `find_best` follows if all folds of a cross-validation are asked for: it compares nothing else. The page that shows
    the models comes after it.

    Args:
        request: What the user asked for.
        folders: Folders of the dataset, as its plan sees them.
        plan: The plan.
        splits: The folds.
        reporter: Told which folds are left out.

    Raises:
        UsageError: There is no such fold, or a cascade lacks folds of its coarser network.
    """
    folds = splits.expand(request.folds)
    for fold in folds:
        splits.fold(fold)
    cross_validation: list[Fold] = list(range(len(splits.folds)))
    jobs: list[Job] = []
    coarse_first = sorted(request.configurations, key=lambda name: plan.configurations[name].previous is not None)
    for name in dict.fromkeys(coarse_first):
        done = [fold for fold in folds if is_validated(folders, name, fold)]
        if done:
            reporter.say(f"{name}: trained and validated already: fold {list_names(done)}")
        after = _find_coarse_jobs(folders, plan, name, jobs, cross_validation)
        jobs += [_make_fold_job(request, folders, name, fold, after) for fold in folds if fold not in done]
    if set(cross_validation) <= set(folds):
        jobs.append(_make_find_best_job(request, folders, tuple(job.name for job in jobs if job.result is not None)))
        jobs.append(_make_report_job(request, folders))
    if not jobs:
        raise UsageError("all of these folds are trained and validated", "name others with -c and -f")
    title = f"training of {', '.join(request.configurations)} on {folders.raw.name}"
    return JobGraph(title=title, folder=_jobs_folder(request, folders), jobs=tuple(jobs))


def is_validated(folders: DatasetFolders, configuration: ConfigurationName, fold: Fold) -> bool:
    """Returns whether the held-out cases of a fold are scored, which is the last thing that its training does."""
    return summary_file(folders.model(configuration).validation(fold)).is_file()


def _find_coarse_jobs(
    folders: DatasetFolders,
    plan: Plan,
    name: ConfigurationName,
    jobs: Sequence[Job],
    cross_validation: Sequence[Fold],
) -> tuple[str, ...]:
    """Returns the names of the jobs whose segmentations a cascade needs; none for another configuration."""
    previous = plan.configurations[name].previous
    if previous is None:
        return ()
    waiting = {job.name for job in jobs}
    needed = {fold: name_fold_job(previous, fold) for fold in cross_validation}
    missing = [fold for fold, job in needed.items() if job not in waiting and not is_validated(folders, previous, fold)]
    if missing:
        what = f"{name} needs all folds of {previous}, and fold {list_names(missing)} is not trained"
        raise UsageError(what, f"add {previous} to -c, with -f cv")
    return tuple(job for job in needed.values() if job in waiting)


def _make_fold_job(
    request: TrainingJobsRequest, folders: DatasetFolders, name: ConfigurationName, fold: Fold, after: tuple[str, ...]
) -> Job:
    options = {**request.options, "--device": request.device, "--gpus": request.gpus}
    command = (*PROGRAM, "train", "-d", str(request.number), "-c", name, "-f", str(fold), *list_options(options))
    return Job(
        name=name_fold_job(name, fold),
        kind="train",
        command=(*command, *_place(request, folders)),
        after=after,
        result=None if fold == "all" else summary_file(folders.model(name).validation(fold)),
        gpus=count_gpus(request.device, request.gpus),
    )


def _make_find_best_job(request: TrainingJobsRequest, folders: DatasetFolders, after: tuple[str, ...]) -> Job:
    command = (*PROGRAM, "find_best", "-d", str(request.number), f"--device={request.device}")
    return Job(
        name="find_best",
        kind="find_best",
        command=(*command, *_place(request, folders)),
        after=after,
        gpus=count_gpus(request.device, None),
    )


def _make_report_job(request: TrainingJobsRequest, folders: DatasetFolders) -> Job:
    command = (*PROGRAM, "report", "model", "-d", str(request.number), *_place(request, folders))
    return Job(name="report", kind="report", command=command, after=("find_best",), gpus=0)


def _place(request: TrainingJobsRequest, folders: DatasetFolders) -> tuple[str, ...]:
    """Returns the arguments that name workspace and plan, wherever the job begins."""
    return list_options({"--plan": folders.plan_name, "--workspace": request.workspace.absolute()})


def _jobs_folder(request: TrainingJobsRequest, folders: DatasetFolders) -> Path:
    return Workspace(root=request.workspace.absolute()).jobs(folders.raw.name, folders.plan_name)
