"""Export of a trained model, so that nnU-Net v2 predicts with it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from autoseg.errors import ModelError, UsageError
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.models.best_model import BestModel, MemberName, name_member, split_member
from autoseg.models.bundle_writing import find_content, write_files
from autoseg.models.checkpoint import Checkpoint, load_checkpoint
from autoseg.models.training_statistics import load_training_statistics
from autoseg.nnunet.export_plans import DEFAULT_ENDING, PLANS, READERS, REORIENTING_READERS, describe_plans
from autoseg.nnunet.model_folders import POOLED
from autoseg.nnunet.postprocessing_file import write_rules
from autoseg.nnunet.weight_names import export_weights
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.writable import check_place
from autoseg.workspace import Fold, ModelFolder

TRAINER = "nnUNetTrainer"


def export_nnunet(
    source: int | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> list[Path]:
    """Writes a trained model in the format of nnU-Net v2.

    A model of one configuration becomes a model folder, for ``nnUNetv2_predict_from_modelfolder -m FOLDER``. A model of
    several configurations, such as a cascade, becomes a folder with a model folder for each.

    Args:
        source: Number of a dataset, or path of a model; see `bundle.export_model`.
        folder: Folder to write; it must not exist, or be empty.
        configuration: Configuration to export; see `bundle.export_model`.
        folds: Folds to export; by default all that are trained to their end.
        plan_name: Name of the plan that was trained, if it is not the default plan.
        workspace: Path of the workspace; see `find_workspace`.
        reporter: Reports the features of the model that nnU-Net lacks.

    Returns:
        Paths of the model folders; the configurations that predict come first.

    Raises:
        ModelError: There is no such model, or nnU-Net has no such network; the text says which can be exported.
        UsageError: It is ambiguous which model is meant, or the folder is not empty.
        WriteError: The folder cannot be written.

    Example:
        The model that `find_best` chose for dataset 4, planned by ``--rules nnunet``::

            autoseg.export_nnunet(4, "nnUNetTrainer__nnUNetPlans__3d_fullres")
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", "give a new folder with -o")
    check_place(folder)
    content = find_content(source, configuration, folds, plan_name=plan_name, workspace=workspace)
    with TemporaryDirectory(prefix="autoseg_") as staging, atomic_folder(folder) as writing:
        root = ModelFolder(path=Path(staging))
        names = write_files(content, root)
        members = _load_members(root, names)
        subfolders = {name: "" if len(members) == 1 else _name_folder(name) for name in members}
        for name, member in members.items():
            for line in member.write(
                writing / subfolders[name], cases=content.cases, plan_members=_select_plan_members(name, members)
            ):
                reporter.say(line if len(members) == 1 else f"{name}: {line}")
        best_model = content.model.best_model
        if best_model is not None and len(names) > 1:
            reporter.say(
                f"nnU-Net joins {' and '.join(names)} by nnUNetv2_ensemble, from what each predicts with --npz"
            )
            for line in write_rules(best_model.rules, members[names[0]].first.info.targets, writing):
                reporter.say(line)
    return [folder / subfolders[name] for name in members]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One configuration of the model.

    Attributes:
        folds: Checkpoints of its folds, at least one.
        rules: Its postprocessing.
        orientation: Common orientation of the training cases; None if they had several, or if it is unknown.
    """

    folds: Sequence[Checkpoint]
    rules: PostprocessingRules
    orientation: str | None

    @classmethod
    def load(cls, folder: ModelFolder, rules: PostprocessingRules | None) -> "_Member":
        """Loads a configuration; rules that were chosen for it replace those of its folder."""
        folder_rules = PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES
        statistics = load_training_statistics(folder)
        return cls(
            folds=[load_checkpoint(folder.checkpoint(fold)) for fold in folder.trained_folds()],
            rules=folder_rules if rules is None else rules,
            orientation=None if statistics is None else statistics.orientation,
        )

    @property
    def first(self) -> Checkpoint:
        """Checkpoint of the first fold; those of other folds differ only in their weights."""
        return self.folds[0]

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes along which nnU-Net may flip. It does not swap labels, so the axis of left and right is left out."""
        settings = self.first.configuration.augmentation
        return tuple(axis for axis in settings.averaged_axes if axis != settings.swap_axis)

    def write(self, folder: Path, *, cases: int | None, plan_members: "PlanMembers") -> list[str]:
        """Writes a model folder.

        Args:
            folder: Path of the folder.
            cases: Number of training cases, if it is known.
            plan_members: The configurations in its plans.json.

        Returns:
            A line about each feature that nnU-Net lacks.
        """
        checkpoints = {name: member.first for name, member in plan_members.items()}
        orientation = next(iter(plan_members.values())).orientation
        plans, dataset = describe_plans(checkpoints, orientation), self._describe_dataset(cases)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "plans.json", plans)
        _write_json(folder / "dataset.json", dataset)
        for checkpoint in self.folds:
            path = folder / f"fold_{checkpoint.fold}" / "checkpoint_final.pth"
            path.parent.mkdir()
            torch.save(self._describe_checkpoint(checkpoint, plans, dataset), path)
        numbers = "_".join(str(checkpoint.fold) for checkpoint in self.folds)
        lost = write_rules(self.rules, self.first.info.targets, folder / f"{POOLED}{numbers}")
        return [*lost, *self._list_losses()]

    def _describe_checkpoint(self, checkpoint: Checkpoint, plans: object, dataset: object) -> dict[str, Any]:
        """Returns the content of checkpoint_final.pth."""
        architecture = checkpoint.configuration.architecture
        coarse_targets = None if checkpoint.configuration.previous is None else checkpoint.info.targets
        return {
            "network_weights": export_weights(checkpoint.weights, architecture, coarse_targets),
            "trainer_name": TRAINER,
            "init_args": {
                "plans": plans,
                "configuration": checkpoint.configuration_name,
                "fold": checkpoint.fold,
                "dataset_json": dataset,
            },
            "current_epoch": checkpoint.plan.training.epochs,
            "inference_allowed_mirroring_axes": self.mirror_axes or None,
        }

    def _describe_dataset(self, cases: int | None) -> dict[str, Any]:
        """Returns the content of dataset.json."""
        info = self.first.info
        order = info.regions_class_order
        return {
            "channel_names": dict(info.channel_names),
            "labels": {name: list(value) if isinstance(value, tuple) else value for name, value in info.labels.items()},
            **({} if order is None else {"regions_class_order": list(order)}),
            **({} if cases is None else {"numTraining": cases}),
            "file_ending": info.file_ending if info.file_ending in READERS else DEFAULT_ENDING,
        }

    def _list_losses(self) -> list[str]:
        """Returns a line about each feature of the configuration that nnU-Net lacks."""
        info, settings = self.first.info, self.first.configuration.augmentation
        lines = []
        if settings.swap_axis is not None:
            lines.append(
                f"lost: mirroring along axis {settings.swap_axis}, since nnU-Net cannot exchange left and right"
            )
        if info.file_ending not in READERS:
            lines.append(f"nnU-Net reads no {info.file_ending} files; give it {DEFAULT_ENDING}")
        if self.orientation is not None and self.orientation not in REORIENTING_READERS:
            lines.append(f"lost: nnU-Net turns no scans; the axes of each must lead {self.orientation}, as in training")
        return lines


Members = Mapping[MemberName, _Member]
PlanMembers = Mapping[ConfigurationName, _Member]


def _name_folder(name: MemberName) -> str:
    """Returns the name of the model folder of a configuration; a named plan keeps its name.

    >>> _name_folder("3d_fullres"), _name_folder("large/2d")
    ('nnUNetTrainer__nnUNetPlans__3d_fullres', 'nnUNetTrainer__large__2d')
    """
    plan_name, configuration = split_member(name)
    return "__".join((TRAINER, plan_name or PLANS, configuration))


def _select_plan_members(name: MemberName, members: Members) -> dict[ConfigurationName, _Member]:
    """Selects the configurations of the same plan as one of them."""
    plan_name, _ = split_member(name)
    return {split_member(other)[1]: member for other, member in members.items() if split_member(other)[0] == plan_name}


def _load_members(root: ModelFolder, names: Sequence[MemberName]) -> dict[MemberName, _Member]:
    """Loads the configurations that predict, then the first stages of cascades among them.

    Raises:
        ModelError: nnU-Net cannot represent one of them.
    """
    rules = BestModel.load(root.best_model).rules if root.best_model.is_file() and len(names) == 1 else None
    members = {name: _Member.load(root.member(name), rules) for name in names}
    for name, member in list(members.items()):
        previous = member.first.configuration.previous
        first_stage = None if previous is None else name_member(split_member(name)[0], previous)
        if first_stage is not None and first_stage not in members:
            members[first_stage] = _Member.load(root.member(first_stage), None)
    for name, member in members.items():
        _check(name, member.first)
    return members


def _check(name: str, checkpoint: Checkpoint) -> None:
    """Refuses configurations that nnU-Net cannot represent."""
    network = checkpoint.configuration.network
    if network is not None:
        raise ModelError(f"{name} has the network {network.name!r}, which nnU-Net lacks", "export without --format")
    if checkpoint.configuration.image_channels > len(checkpoint.configuration.normalization):
        what = f"{name} has several windows of one channel, and nnU-Net one normalization for each channel"
        raise ModelError(what, "export without --format")
    if checkpoint.configuration.neighbouring_slices:
        what = f"{name} sees neighbouring slices as channels, and nnU-Net each slice on its own"
        raise ModelError(what, "export without --format")
    if checkpoint.info.masks:
        what = f"{name} writes a mask for each structure, and nnU-Net one label map"
        raise ModelError(what, "export without --format")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8", newline="\n")
