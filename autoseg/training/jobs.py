"""From what a user asked of `train` to the folds that are to be trained, all checked before the first one begins."""

from dataclasses import dataclass

from autoseg.dataloading.device_augmentation import augments_on_device
from autoseg.datasets.splitting import check_leaks
from autoseg.errors import UsageError
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import choose_configurations, load_decisions, open_planned, with_own_cases
from autoseg.preprocessing.cascade import prepare_cascade_labels
from autoseg.preprocessing.dataset import check_prepared
from autoseg.runtime.device import resolve_device
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.training.duration import LengthRequest
from autoseg.training.fold_job import FoldJob, resolve_job
from autoseg.training.initial_weights import InitialWeightsRequest
from autoseg.training.memory_limit import warn_of_memory
from autoseg.training.monitoring.tracking import find_trackers
from autoseg.training.ranks import init_ranks
from autoseg.workspace import DatasetFolders, Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What a user asked of `train`, in one value that other processes can be given too.

    Attributes:
        number: Of the dataset.
        folders: Of the dataset, as the plan that was named sees them.
        configuration: What to train.
        folds: Which of its folds; "cv" stands for each number.
        length: How long, and whether what was trained before is forgotten.
        origin: What the weights begin with, and which of them stay as they are.
        device: As the user named it.
        augment_on: "auto", "cpu" or "device": where patches are changed at random.
        trackers: Names of those that keep the numbers of each epoch as well.
    """

    number: int
    folders: DatasetFolders
    configuration: ConfigurationName
    folds: tuple[Fold, ...]
    length: LengthRequest
    origin: InitialWeightsRequest
    device: str
    augment_on: str
    trackers: tuple[str, ...]


def make_jobs(request: TrainingRequest, reporter: Reporter) -> list[FoldJob]:
    """Reads what was decided, makes sure that it can be trained, and joins the other processes, if there are some.

    Of a cascade, the segmentations that it looks at are prepared.

    Args:
        request: What to train.
        reporter: Told what is not as usual, by the process that leads.

    Returns:
        A job for each fold, of which nothing is trained yet.

    Raises:
        UsageError, DatasetError, ArtifactError, ProblemsError, ModelError: See `pipeline.train`.
    """
    trackers = find_trackers(request.trackers)
    number, folders = request.number, request.folders
    plan, splits = load_decisions(number, folders)
    plan = request.length.apply(plan)
    [name] = choose_configurations(plan, [request.configuration])
    [owner] = with_own_cases(plan, [name])
    dataset = open_planned(number, folders, plan, splits)
    check_prepared(dataset, plan, owner, folders, number)
    check_leaks(splits, folders, dataset.info)
    folds = [(fold, splits.fold(fold)) for fold in splits.expand(request.folds)]
    if not folds:
        raise UsageError("no fold was named", "name one or several, 'cv' or 'all'")
    ranks, device = init_ranks(resolve_device(request.device))
    reporter = reporter if ranks.is_main else SILENT
    if ranks.is_main:
        prepare_cascade_labels(dataset, plan, name, folders, number, reporter)
    ranks.wait()
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
            augment_on_device=augments_on_device(
                request.augment_on, device, plan.configurations[name].augmentation.custom
            ),
            origin=request.origin,
            restart=request.length.restart,
            trackers=trackers,
            ranks=ranks,
        )
        for fold, split in folds
    ]
    jobs = [resolve_job(job, request.length) for job in jobs]
    if plan.preset != "small" and device.type == "cpu":
        reporter.say("this plan is made for a GPU; on a CPU, plan_and_preprocess with --preset small learns far sooner")
    warn_of_memory(jobs[0], reporter)
    return jobs
