"""A fold to train, as a value, and how it goes on: everything is checked before anything is changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Split
from autoseg.errors import ModelError, UsageError
from autoseg.models.checkpoint import Checkpoint, check_resumable, load_checkpoint
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.preprocessing.store import open_stored
from autoseg.runtime.units import describe_duration
from autoseg.training.duration import LengthRequest, resolve_duration
from autoseg.training.initial_weights import (
    NOTHING_ASKED,
    InitialWeights,
    InitialWeightsRequest,
    NewFold,
    check_initial_weights,
)
from autoseg.training.monitoring.tracking import OpenTracker
from autoseg.training.plugin_checks import check_presence
from autoseg.training.ranks import ALONE, Ranks, check_shares
from autoseg.workspace import DatasetFolders, Fold, ModelFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldJob:
    """A fold to train: what, from which cases, where to, on which device.

    Attributes:
        dataset: The raw dataset, whose labels judge the result.
        plan: With the length of training that was asked for.
        configuration_name: Which configuration of the plan.
        fold: Which fold.
        split: Its cases.
        folders: Of the dataset: where its plan is, and where checkpoint and results go.
        cases_folder: The preprocessed cases.
        cascade_labels_folder: Of a cascade: where the former segmentations are; see `data.previous`.
        device: Where the network is trained.
        augment_on_device: Whether that device changes the training patches, and not the threads that read them.
        origin: What its weights begin with, and which of them stay as they are.
        restart: Whether what was trained and judged of it is forgotten.
        trackers: What keeps the numbers of each epoch as well, by name.
        ranks: The processes that train it together.
    """

    dataset: Dataset
    plan: Plan
    configuration_name: ConfigurationName
    fold: Fold
    split: Split
    folders: DatasetFolders
    cases_folder: Path
    device: torch.device
    cascade_labels_folder: Path | None = None
    augment_on_device: bool = False
    origin: InitialWeightsRequest = NOTHING_ASKED
    restart: bool = False
    trackers: Mapping[str, OpenTracker] = field(default_factory=dict)
    ranks: Ranks = ALONE

    @property
    def configuration(self) -> Configuration:
        """The configuration to train."""
        return self.plan.configurations[self.configuration_name]

    @property
    def model(self) -> ModelFolder:
        """Where checkpoint and results go."""
        return self.folders.model(self.configuration_name)

    @property
    def new_fold(self) -> NewFold:
        """The fold as whoever looks for its first weights sees it."""
        return NewFold(
            fold=self.fold,
            configuration=self.configuration,
            info=self.dataset.info,
            dataset=self.plan.dataset,
            cases=self.split.digest,
            checkpoint=self.model.checkpoint(self.fold),
        )

    @property
    def seed(self) -> int:
        """Differs between folds; "all" counts as one more."""
        return self.plan.training.seed + (100 if self.fold == "all" else int(self.fold))

    def load_saved(self) -> Checkpoint | None:
        """The checkpoint that an earlier run of this fold left, if there is one.

        It may have been brought from elsewhere without what training needs, if it is trained to its end.
        """
        path = self.model.checkpoint(self.fold)
        if not path.is_file():
            return None
        former = load_checkpoint(path)
        if not former.finished:
            check_resumable(former, path)
        return former

    def describe(self) -> str:
        """One line for people: how much is learned from what, on which device."""
        training = self.plan.training
        length = (
            f"for {describe_duration(training.budget_seconds)}"
            if training.budget_seconds is not None
            else f"for {training.epochs} epochs of {training.steps_per_epoch} steps"
        )
        held_out = f"{len(self.split.validation)} held out" if self.split.validation else "none held out"
        return (
            f"{self.configuration_name}, fold {self.fold}: {len(self.split.training)} cases, {held_out}, "
            f"{length} on {self.device}"
        )


def resolve_job(job: FoldJob, wanted: LengthRequest) -> FoldJob:
    """Finds out how a fold goes on, before anything is changed.

    Returns:
        The job, with the length of training that a begun fold was begun with, or is extended to.

    Raises:
        ModelError, UsageError: The fold was begun in another way, or its checkpoint is damaged; see
            `resolve_duration` and `check_initial_weights`. Or it is to be extended and not finished. Or the plan names
            what is not installed.
        ProblemsError: Preprocessed cases that it needs are damaged, each with its line.
    """
    check_presence(job.configuration, job.plan.training)
    open_stored(job.cases_folder, {*job.split.training, *job.split.validation})
    check_shares(job.ranks, job.configuration.batch_size)
    former = None if job.restart else job.load_saved()
    if wanted.extend is not None:
        if former is None or not former.finished:
            what = f"fold {job.fold} of {job.configuration_name} is not trained to its end, so it cannot be extended"
            raise UsageError(what, "leave out --extend to train it to its end first")
        check_resumable(former, job.model.checkpoint(job.fold))
    check_initial_weights(job.origin, job.new_fold, None if former is None else InitialWeights.of(former))
    if former is None:
        return job
    if former.cases != job.split.digest:
        what = f"fold {job.fold} of {job.configuration_name} was begun with other cases than splits.json gives it now"
        raise ModelError(what, "restore splits.json, or add --restart to train the fold anew")
    plan = resolve_duration(job.plan, former, job.configuration_name, length_was_given=wanted.is_given)
    if wanted.extend is not None:
        done = former.training
        plan = wanted.extend_from(plan, step=done["step"], elapsed_seconds=done["elapsed_seconds"])
    return replace(job, plan=plan)
