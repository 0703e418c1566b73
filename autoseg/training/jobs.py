"""The folds to train, from what a user asked of `train` and what is on disk; checked before the first one begins."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from autoseg.dataloading.augmentation_place import augments_on_device
from autoseg.dataloading.shapes import needs_shapes
from autoseg.datasets.revisions import list_revisions
from autoseg.datasets.splits import Splits
from autoseg.datasets.splitting import check_leaks
from autoseg.errors import ModelError, UsageError
from autoseg.models.checkpoint import Checkpoint, check_resumable
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import (
    choose_configurations,
    configurations_to_preprocess,
    load_plan_and_splits,
    open_planned_dataset,
)
from autoseg.preprocessing.cascade import write_cascade_labels
from autoseg.preprocessing.prepared_check import check_prepared
from autoseg.preprocessing.store import open_stored
from autoseg.runtime.device import resolve_device
from autoseg.runtime.machine import count_cores
from autoseg.runtime.reporting import Reporter
from autoseg.training.duration import LengthRequest, resolve_duration
from autoseg.training.fold_job import FoldJob
from autoseg.training.initial_weights import InitialWeights, InitialWeightsRequest
from autoseg.training.initialization import check_initial_weights, warm_up
from autoseg.training.memory_limit import describe_memory_limit
from autoseg.training.monitoring.tracking import find_trackers
from autoseg.training.plugin_checks import check_presence
from autoseg.training.ranks import check_shares, find_ranks
from autoseg.training.taught_cases import check_taught_cases
from autoseg.workspace import DatasetFolders, Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What a user asked of `train`, in one value that can be sent to other processes.

    Attributes:
        number: Number of the dataset.
        folders: Folders of the dataset, as the plan that was named sees them.
        configuration: The configuration to train.
        folds: Its folds to train; "cv" stands for each number.
        length: The length of training, and whether an earlier training is deleted first.
        initial_weights: The weights to begin with, and which of them stay frozen.
        device: The device, as the user named it.
        augment_on: Where patches are augmented: "auto", "cpu" or "device".
        trackers: Names of the trackers that record the numbers of each epoch as well.
    """

    number: int
    folders: DatasetFolders
    configuration: ConfigurationName
    folds: tuple[Fold, ...]
    length: LengthRequest = field(default_factory=LengthRequest)
    initial_weights: InitialWeightsRequest = field(default_factory=InitialWeightsRequest)
    device: str = "auto"
    augment_on: str = "auto"
    trackers: tuple[str, ...] = ()


def make_jobs(request: TrainingRequest) -> list[FoldJob]:
    """Reads plan and splits, and makes sure that the folds can be trained. Changes nothing.

    Args:
        request: The request of the user.

    Returns:
        A job for each fold, whose plan has the length of training that the fold was begun with, or is extended to.

    Raises:
        UsageError, DatasetError, ArtifactError, ProblemsError, ModelError: See `pipeline.train`.
    """
    trackers = find_trackers(request.trackers)
    number, folders = request.number, request.folders
    plan, splits = load_plan_and_splits(number, folders)
    plan = request.length.apply(plan)
    [name] = choose_configurations(plan, [request.configuration])
    [owner] = configurations_to_preprocess(plan, [name])
    dataset = open_planned_dataset(number, folders, plan, splits)
    check_prepared(dataset, plan, owner, folders, number)
    check_leaks(splits, folders, dataset.info)
    folds = [(fold, splits.fold(fold)) for fold in splits.expand(request.folds)]
    if not folds:
        raise UsageError("no fold was named", "name one or several, 'cv' or 'all'")
    ranks, device = find_ranks(resolve_device(request.device))
    configuration = plan.configurations[name]
    on_device = augments_on_device(
        request.augment_on,
        device,
        configuration.augmentation.custom,
        shapes=needs_shapes(plan.training.loss) or plan.training.distillation is not None,
        voxels=configuration.step_voxels,
        cores=max(1, count_cores() // ranks.local_size),
    )
    jobs = [
        FoldJob(
            dataset=dataset,
            plan=plan,
            configuration_name=name,
            fold=fold,
            split=split,
            folders=folders,
            cases_folder=folders.cases(owner),
            cascade_labels_folder=folders.cases(name) if owner != name else None,
            device=device,
            augment_on_device=on_device,
            initial_weights=request.initial_weights,
            restart=request.length.restart,
            trackers=trackers,
            ranks=ranks,
        )
        for fold, split in folds
    ]
    for job in jobs:
        check_taught_cases(job, number)
    return [resolve_job(job, request.length) for job in jobs]


def resolve_job(job: FoldJob, length: LengthRequest) -> FoldJob:
    """Makes sure that a fold can begin, go on or be extended as asked. Changes nothing.

    Args:
        job: The fold, with the plan as it stands now.
        length: The length of training that the user asked for, which is applied to the plan already.

    Returns:
        The job, with the length of training that the fold was begun with, or is extended to.

    Raises:
        ModelError, UsageError: The fold was begun in another way, or its checkpoint is damaged; see
            `resolve_duration` and `check_initial_weights`. Or it is to be extended and not finished. Or the plan names
            a network, loss or transform that is not installed.
        ProblemsError: Preprocessed cases that it needs are damaged, each with its line.
    """
    check_presence(job.configuration, job.plan.training)
    open_stored(job.cases_folder, {*job.split.training, *job.split.validation})
    check_shares(job.ranks, job.configuration.batch_size)
    checkpoint = None if job.restart else job.load_checkpoint(mapped=True)
    if length.extend is not None:
        if checkpoint is None or not checkpoint.finished:
            what = f"fold {job.fold} of {job.configuration_name} is not trained to its end, so it cannot be extended"
            raise UsageError(what, "leave out --extend to train it to its end first")
        check_resumable(checkpoint, job.checkpoint)
    begun = None if checkpoint is None else InitialWeights.of(checkpoint)
    check_initial_weights(job, begun)
    job = warm_up(job, begun)
    if checkpoint is None:
        return job
    if checkpoint.cases != job.split.digest:
        what = f"fold {job.fold} of {job.configuration_name} was begun with other cases than splits.json gives it now"
        raise ModelError(what, _advise_on_other_cases(job, checkpoint))
    plan = resolve_duration(job.plan, checkpoint, job.configuration_name, length_was_given=length.is_given)
    if length.extend is not None:
        training = checkpoint.training
        plan = length.extend_from(plan, step=training["step"], elapsed_seconds=training["elapsed_seconds"])
    return replace(job, plan=plan)


def _advise_on_other_cases(job: FoldJob, checkpoint: Checkpoint) -> str:
    """Returns what helps a fold whose cases have changed: to refine it, if they changed by the last revision."""
    folders, numbers = job.folders, [revision.number for revision in list_revisions(job.folders.raw)]
    if checkpoint.finished and numbers and folders.splits_before(numbers[-1]).is_file():
        before = Splits.load(folders.splits_before(numbers[-1])).fold(job.fold)
        if before.digest == checkpoint.cases:
            command = f"refine -d {folders.number}{folders.plan_option} -c {job.configuration_name} -f {job.fold}"
            return f"let it learn from revision {numbers[-1]} with 'autoseg {command}', or train it anew with --restart"
    return "restore splits.json, or add --restart to train the fold anew"


def prepare_cascade_labels(job: FoldJob, number: int, reporter: Reporter) -> None:
    """Writes what a cascade reads besides its images: the labels, joined with the coarse segmentations of all cases.

    Those of an earlier run are kept where the segmentation has not changed. If several ranks train, the main one writes
    and the others wait; a configuration that is no cascade has nothing to prepare.

    Args:
        job: Any fold of the configuration.
        number: Number of the dataset.
        reporter: Shows progress.

    Raises:
        UsageError: Cases have no such segmentation.
        ProblemsError: A segmentation cannot be read, or has another grid than its image; each has its line.
    """
    if job.ranks.is_main:
        write_cascade_labels(job.dataset, job.plan, job.configuration_name, job.folders, number, reporter)
    job.ranks.barrier()


def describe_concerns(job: FoldJob) -> Iterator[str]:
    """Yields a line for each thing that makes the training of a configuration slow, or may end it for lack of memory.

    Args:
        job: Any fold of the configuration.
    """
    if job.plan.preset != "small" and job.device.type == "cpu":
        yield (
            "this plan is made for a GPU; on a CPU, plan_and_preprocess with --preset small learns far sooner, and is "
            "the default where there is no GPU"
        )
    yield from describe_memory_limit(job)
