"""What the steps of `run` share: the dataset, its options, the record of what was done, and where the results are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.cluster.submission import SubmittedJob
from autoseg.datasets.dataset import Dataset
from autoseg.errors import ArtifactError
from autoseg.evaluation.summary import summary_file
from autoseg.pipeline.run_record import RunRecord
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import choose_configurations, load_plan_and_splits
from autoseg.planning.worthwhile import choose_worthwhile
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, Fold, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What `run` did, or would do.

    Attributes:
        steps: Name of each step, and "done", or what would be done.
        model: The folder of the model that predicts; None if it is not chosen yet.
        reports: The pages that were written.
        submitted: Jobs that were submitted to a cluster.
    """

    steps: tuple[tuple[str, str], ...]
    model: Path | None = None
    reports: tuple[Path, ...] = ()
    submitted: tuple[SubmittedJob, ...] = ()


@dataclass(slots=True, kw_only=True)
class RunContext:
    """What all steps need.

    Attributes:
        number: Number of the dataset.
        workspace: The workspace.
        reporter: Shows progress.
        device: The device, as the user named it.
        gpus: Number of GPUs that train a fold together.
        where: Where folds are trained as jobs; None to train them here.
        record: What is remembered of the dataset.
        submitted: Jobs that were submitted.
    """

    number: int
    workspace: Workspace
    reporter: Reporter
    device: str
    gpus: int | None
    where: str | None
    record: RunRecord = field(default_factory=RunRecord)
    submitted: Sequence[SubmittedJob] = ()

    @property
    def is_imported(self) -> bool:
        """Whether the dataset is in the workspace."""
        return bool(self.workspace.names(self.number))

    @property
    def folders(self) -> DatasetFolders:
        """Folders of the dataset."""
        return self.workspace.dataset(self.number)

    @property
    def dataset(self) -> Dataset:
        """The dataset, without the cases that are left out."""
        return Dataset.open(self.folders.raw).without(self.record.options.skip)

    def remember(self, **changes: object) -> None:
        """Changes the record, and saves it."""
        self.record = self.record.model_copy(update=changes)
        self.record.save(self.workspace.run(self.number).record)

    def find_configurations(self, plan: Plan) -> list[ConfigurationName]:
        """Returns the configurations to train: a cascade after its coarser network, which it needs.

        Raises:
            UsageError: The plan has no configuration of a name that was asked for.
        """
        names = list(self.record.options.configurations)
        speed = _load_speed(self.folders)
        names = choose_configurations(plan, names) if names else choose_worthwhile(plan, speed)
        coarse = [previous for name in names if (previous := plan.configurations[name].previous) is not None]
        return list(dict.fromkeys([*coarse, *sorted(names, key=lambda name: name in _cascades(plan))]))

    def keep_configurations(self, plan: Plan) -> list[ConfigurationName]:
        """Returns the configurations to train, and remembers them, so that another machine trains the same."""
        names = self.find_configurations(plan)
        self.remember(options=self.record.options.model_copy(update={"configurations": tuple(names)}))
        return names

    def list_open_folds(self, name: ConfigurationName) -> list[Fold]:
        """Returns the folds of a configuration that are not trained and validated."""
        _, splits = load_plan_and_splits(self.number, self.folders)
        model = self.folders.model(name)
        return [fold for fold in range(len(splits.folds)) if not summary_file(model.validation(fold)).is_file()]

    def outcome(self, steps: Sequence[tuple[str, str]]) -> RunOutcome:
        """Returns what was done, and where the results are."""
        if not self.is_imported:
            return RunOutcome(steps=tuple(steps))
        folders = self.folders
        has_model = folders.best_model.is_file()
        reports = [page for page in list_pages(folders) if page.is_file()]
        return RunOutcome(
            steps=tuple(steps),
            model=folders.models if has_model else None,
            reports=tuple(reports),
            submitted=tuple(self.submitted),
        )


def list_pages(folders: DatasetFolders) -> list[Path]:
    """Returns the pages that a run writes."""
    return [folders.data_report, folders.model_report]


def _cascades(plan: Plan) -> list[ConfigurationName]:
    return [name for name, configuration in plan.configurations.items() if configuration.previous is not None]


def _load_speed(folders: DatasetFolders) -> MachineSpeed | None:
    """Returns the speed of the machine that the plan was made for, if it was measured."""
    try:
        return MachineSpeed.load(folders.machine_speed).rounded
    except (ArtifactError, OSError):
        return None
