"""A fold to train, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Split
from autoseg.models.checkpoint import Checkpoint, check_resumable, load_checkpoint
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.runtime.units import describe_duration
from autoseg.training.initial_weights import InitialWeightsRequest
from autoseg.training.monitoring.tracking import OpenTracker
from autoseg.training.ranks import ALONE, Ranks
from autoseg.workspace import DatasetFolders, Fold, ModelFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldJob:
    """A fold to train: on which cases, by which plan, on which device, and where its results go.

    Attributes:
        dataset: The raw dataset, whose labels judge the result.
        plan: The plan, with the length of training that was asked for.
        configuration_name: The configuration of the plan that is trained.
        fold: The fold that is trained.
        split: Training and validation cases of the fold.
        folders: Folders of the dataset: where its plan is, and where checkpoint and results go.
        cases_folder: Folder of the preprocessed cases.
        cascade_labels_folder: Folder of the labels that are joined with the coarse segmentations, of a cascade; None
            otherwise. See `dataloading.cascade_labels`.
        device: Device on which the network is trained.
        augment_on_device: Whether that device augments the training patches, and not the threads that read them.
        initial_weights: The weights that training begins with, and which of them stay frozen, as the user asked.
        restart: Whether an earlier training of the fold, and its scores, are deleted first.
        trackers: What opens each tracker that records the numbers of each epoch, by name.
        ranks: The processes that train the fold together.
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
    initial_weights: InitialWeightsRequest = field(default_factory=InitialWeightsRequest)
    restart: bool = False
    trackers: Mapping[str, OpenTracker] = field(default_factory=dict)
    ranks: Ranks = ALONE

    @property
    def configuration(self) -> Configuration:
        """The configuration that is trained."""
        return self.plan.configurations[self.configuration_name]

    @property
    def model(self) -> ModelFolder:
        """The folder of the checkpoint and the results."""
        return self.folders.model(self.configuration_name)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint of the fold, which exists if its training was begun."""
        return self.model.checkpoint(self.fold)

    @property
    def seed(self) -> int:
        """Seed of all random draws, which differs between folds; "all" counts as one more fold."""
        return self.plan.training.seed + (100 if self.fold == "all" else int(self.fold))

    def load_checkpoint(self, *, mapped: bool = False) -> Checkpoint | None:
        """Loads the checkpoint that an earlier run of this fold saved, or returns None if there is none.

        It may be of a model that was passed on without what training needs, if it is trained to its end.

        Args:
            mapped: Whether the tensors stay mapped to the file; see `models.checkpoint.load_checkpoint`.

        Raises:
            ModelError: The checkpoint is damaged, or training cannot go on from it.
        """
        if not self.checkpoint.is_file():
            return None
        checkpoint = load_checkpoint(self.checkpoint, mapped=mapped)
        if not checkpoint.finished:
            check_resumable(checkpoint, self.checkpoint)
        return checkpoint

    def describe(self) -> str:
        """Returns one line for people: which fold is trained on how many cases, how long, on which device."""
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
