"""Writing a trained model so that nnU-Net v2 predicts with it."""

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
from autoseg.nnunet.architectures import describe_architecture
from autoseg.nnunet.folders import POOLED
from autoseg.nnunet.models import REORIENTING
from autoseg.nnunet.names import export_weights
from autoseg.nnunet.plans import LABELLER, PREPROCESSOR, RESAMPLER, RESAMPLING, SCHEMES
from autoseg.nnunet.postprocessing_file import write_rules
from autoseg.planning.plan import Configuration, ConfigurationName, Normalization
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold, ModelFolder

TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"

READERS = {
    ".nii.gz": "SimpleITKIO",
    ".nrrd": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".gipl": "SimpleITKIO",
    ".nii": "NibabelIO",
    ".png": "NaturalImage2DIO",
    ".bmp": "NaturalImage2DIO",
    ".tif": "NaturalImage2DIO",
}
"""Which of nnU-Net's readers takes which files."""

USUAL_ENDING = ".nii.gz"

_TURNED_BY = {"SAR": REORIENTING}


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
    """Writes a trained model as nnU-Net v2 writes its own.

    A model of one configuration becomes a model folder, for ``nnUNetv2_predict_from_modelfolder -m FOLDER``; one of
    several, such as a cascade, a folder with one for each.

    Args:
        source: See `bundle.export_model`, here and in the next.
        folder: Where to write; it must not be there, or be empty.
        configuration: Which one.
        folds: Which; by default all that are trained to their end.
        plan_name: Of the plan that was trained, if it is not the usual one.
        workspace: See `find_workspace`.
        reporter: Is told what nnU-Net cannot do as this model does.

    Returns:
        The model folders, that which predicts first.

    Raises:
        ModelError: There is no such model, or nnU-Net has no such network; the text says which can be exported.
        UsageError: It is not clear which model is meant, or the folder is not empty.
        WriteError: The folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", "give a new folder with -o")
    content = find_content(source, configuration, folds, plan_name=plan_name, workspace=workspace)
    with TemporaryDirectory(prefix="autoseg_") as staging, atomic_folder(folder) as writing:
        root = ModelFolder(path=Path(staging))
        names = write_files(content, root)
        members = _load_members(root, names)
        places = {name: "" if len(members) == 1 else _name_folder(name) for name in members}
        for name, member in members.items():
            for line in member.write(writing / places[name], cases=content.cases, all_members=_of_plan(name, members)):
                reporter.say(line if len(members) == 1 else f"{name}: {line}")
        best_model = content.model.best_model
        if best_model is not None and len(names) > 1:
            reporter.say(
                f"nnU-Net joins {' and '.join(names)} by nnUNetv2_ensemble, from what each predicts with --npz"
            )
            for line in write_rules(best_model.rules, members[names[0]].first.info.targets, writing):
                reporter.say(line)
    return [folder / places[name] for name in members]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One configuration, as it was staged.

    Attributes:
        folds: At least one.
        rules: Its postprocessing.
        orientation: Where the axes of each training case led, if that is known.
    """

    folds: Sequence[Checkpoint]
    rules: PostprocessingRules
    orientation: str | None

    @classmethod
    def load(cls, folder: ModelFolder, rules: PostprocessingRules | None) -> "_Member":
        """Reads its folder; rules that were chosen for it take the place of its own."""
        own = PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES
        statistics = load_training_statistics(folder)
        return cls(
            folds=[load_checkpoint(folder.checkpoint(fold)) for fold in folder.trained_folds()],
            rules=own if rules is None else rules,
            orientation=None if statistics is None else statistics.orientation,
        )

    @property
    def first(self) -> Checkpoint:
        """That of the first fold; the others differ in their weights alone."""
        return self.folds[0]

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Those along which nnU-Net, which keeps every label as it is, may flip."""
        settings = self.first.configuration.augmentation
        return tuple(axis for axis in settings.mirror_axes if axis != settings.swap_axis)

    def write(self, folder: Path, *, cases: int | None, all_members: "PlanMembers") -> list[str]:
        """Writes a model folder.

        Args:
            folder: Where.
            cases: Of its dataset, if that is known.
            all_members: What its plans.json describes.

        Returns:
            A line about each thing that nnU-Net cannot do.
        """
        plans, dataset = _describe_plans(all_members), self._describe_dataset(cases)
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
        architecture = checkpoint.configuration.architecture
        seen = None if checkpoint.configuration.previous is None else checkpoint.info.targets
        return {
            "network_weights": export_weights(checkpoint.weights, architecture, seen),
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
        info = self.first.info
        order = info.regions_class_order
        return {
            "channel_names": dict(info.channel_names),
            "labels": {name: list(value) if isinstance(value, tuple) else value for name, value in info.labels.items()},
            **({} if order is None else {"regions_class_order": list(order)}),
            **({} if cases is None else {"numTraining": cases}),
            "file_ending": info.file_ending if info.file_ending in READERS else USUAL_ENDING,
        }

    def _list_losses(self) -> list[str]:
        info, settings = self.first.info, self.first.configuration.augmentation
        lines = []
        if settings.swap_axis is not None:
            lines.append(
                f"lost: mirroring along axis {settings.swap_axis}, since nnU-Net cannot exchange left and right"
            )
        if info.file_ending not in READERS:
            lines.append(f"nnU-Net reads no {info.file_ending} files; give it {USUAL_ENDING}")
        if self.orientation is not None and self.orientation not in _TURNED_BY:
            lines.append(f"lost: nnU-Net turns no scans; the axes of each must lead {self.orientation}, as in training")
        return lines


Members = Mapping[MemberName, _Member]
PlanMembers = Mapping[ConfigurationName, _Member]


def _name_folder(name: MemberName) -> str:
    """As nnU-Net calls it; a plan that has a name here keeps it there, where the usual one has that of nnU-Net's."""
    plan_name, configuration = split_member(name)
    return "__".join((TRAINER, plan_name or PLANS, configuration))


def _of_plan(name: MemberName, members: Members) -> dict[ConfigurationName, _Member]:
    """The configurations of the plan that one of them has."""
    plan_name, _ = split_member(name)
    return {split_member(one)[1]: member for one, member in members.items() if split_member(one)[0] == plan_name}


def _load_members(root: ModelFolder, names: Sequence[MemberName]) -> dict[MemberName, _Member]:
    """The configurations that predict, then those that they follow.

    Raises:
        ModelError: nnU-Net cannot hold one of them.
    """
    rules = BestModel.load(root.best_model).rules if root.best_model.is_file() and len(names) == 1 else None
    members = {name: _Member.load(root.member(name), rules) for name in names}
    for name, member in list(members.items()):
        former = member.first.configuration.previous
        followed = None if former is None else name_member(split_member(name)[0], former)
        if followed is not None and followed not in members:
            members[followed] = _Member.load(root.member(followed), None)
    for name, member in members.items():
        _check(name, member.first)
    return members


def _check(name: str, checkpoint: Checkpoint) -> None:
    own = checkpoint.configuration.network
    if own is not None:
        raise ModelError(f"{name} has the network {own.name!r}, which nnU-Net lacks", "export without --format")
    if checkpoint.info.masks:
        what = f"{name} writes a mask for each structure, and nnU-Net one label map"
        raise ModelError(what, "export without --format")


def _describe_plans(members: PlanMembers) -> dict[str, Any]:
    """plans.json, with all configurations that are written."""
    first = next(iter(members.values())).first
    plan, one, order = first.plan, first.configuration, first.plan.axis_order
    orientation = next(iter(members.values())).orientation
    ending = first.info.file_ending
    return {
        "dataset_name": plan.dataset,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": list(one.spacing_mm),
        "original_median_shape_after_transp": list(one.median_shape),
        "image_reader_writer": _TURNED_BY.get(orientation or "", READERS.get(ending, READERS[USUAL_ENDING])),
        "transpose_forward": list(order),
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {name: _describe_configuration(name, members) for name in members},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": LABELLER,
        "foreground_intensity_properties_per_channel": {
            str(number): _describe_intensities(channel) for number, channel in enumerate(one.normalization)
        },
    }


def _describe_configuration(name: ConfigurationName, members: PlanMembers) -> dict[str, Any]:
    one: Configuration = members[name].first.configuration
    followers = [other for other, member in members.items() if member.first.configuration.previous == name]
    names = {ours: theirs for theirs, ours in SCHEMES.items()}
    return {
        "data_identifier": f"{PLANS}_{name}",
        "preprocessor_name": PREPROCESSOR,
        "batch_size": one.batch_size,
        "patch_size": list(one.patch_size),
        "median_image_size_in_voxels": list(one.median_shape),
        "spacing": list(one.spacing_mm),
        "normalization_schemes": [names[channel.scheme] for channel in one.normalization],
        "use_mask_for_norm": [channel.only_nonzero for channel in one.normalization],
        **dict.fromkeys(RESAMPLING, RESAMPLER),
        **{f"{key}_kwargs": dict(options) for key, options in RESAMPLING.items()},
        "architecture": describe_architecture(one.architecture),
        "batch_dice": one.batch_dice,
        **({} if one.previous is None else {"previous_stage": one.previous}),
        **({"next_stage": followers[0]} if followers else {}),
    }


def _describe_intensities(channel: Normalization) -> dict[str, float]:
    """What is known of a channel; what is not, since the plan does not need it, is a number that changes nothing."""
    known = (channel.mean, channel.std, channel.lower, channel.upper)
    mean, std, lower, upper = (0.0 if value is None else value for value in known)
    return {"mean": mean, "std": std, "percentile_00_5": lower, "percentile_99_5": upper}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8", newline="\n")
