"""A trained configuration of nnU-Net's as one of ours: plan, labels, weights, postprocessing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.models.checkpoint import Checkpoint
from autoseg.networks.architecture import Axes, count_weights
from autoseg.nnunet.architectures import read_architecture
from autoseg.nnunet.checkpoint_file import NnunetCheckpoint, read_nnunet_checkpoint
from autoseg.nnunet.folders import NnunetFolder
from autoseg.nnunet.names import take_weights
from autoseg.nnunet.plans import CANNOT, SCHEMES, ConfigurationPlan, NnunetPlans
from autoseg.nnunet.postprocessing_file import read_rules
from autoseg.nnunet.trainers import is_known
from autoseg.planning.memory import training_bytes
from autoseg.planning.plan import (
    CONFIGURATION_NAMES,
    Configuration,
    ConfigurationName,
    Normalization,
    Plan,
    PresetName,
    Spacing,
)
from autoseg.planning.planner import choose_augmentation
from autoseg.planning.presets import PRESETS, REFERENCE_TRAINING
from autoseg.planning.settings import AugmentationSettings
from autoseg.runtime.artifact import first_mistake, read_text
from autoseg.workspace import Fold

REORIENTING = "NibabelIOWithReorient"
"""The one of nnU-Net's readers that turns images: x to the right, y to the front, z to the head."""

LARGEST_GROWTH = 2
"""How many times the weights that were found a network may have before it is refused unbuilt; as in `checkpoint`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetModel:
    """A trained configuration that this program can hold.

    Attributes:
        folder: Where it is.
        their_name: What nnU-Net calls the configuration.
        their_previous: What it calls the one that this one follows, if it does.
        configuration: Ours, `previous` left open.
        plans: All of plans.json.
        info: Channels and labels.
        checkpoints: Fold to what is used of its file.
        rules: Its postprocessing.
    """

    folder: NnunetFolder
    their_name: str
    their_previous: str | None
    configuration: Configuration
    plans: NnunetPlans
    info: DatasetInfo
    checkpoints: Mapping[Fold, NnunetCheckpoint]
    rules: PostprocessingRules | None

    @property
    def first(self) -> NnunetCheckpoint:
        """That of the first fold, by which nnU-Net goes."""
        return next(iter(self.checkpoints.values()))

    @property
    def seen(self) -> Targets | None:
        """What the former segmentation shows to a network that sees one."""
        return self.info.targets if self.their_previous is not None else None

    @property
    def orientation(self) -> str | None:
        """Where the axes of every image are made to lead; None if they are left as they are."""
        return "SAR" if self.plans.image_reader_writer == REORIENTING else None

    def list_remarks(self) -> list[str]:
        """What people should know, a line each."""
        lines = []
        trainer = self.first.trainer
        if not is_known(trainer):
            what = f"mind that {trainer!r}, which trained this model, is no trainer of nnU-Net's"
            lines.append(f"{what}: what it changed in code is not known here, and it may predict otherwise there")
        stopped = [str(fold) for fold, path in self.folder.checkpoints.items() if path.name != "checkpoint_final.pth"]
        if stopped:
            lines.append(f"of fold {', '.join(stopped)} the best checkpoint is taken, since there is no last one")
        return lines


def read_model(folder: NnunetFolder) -> NnunetModel:
    """Reads a trained configuration and makes sure that our network can hold it.

    Raises:
        ModelError: It is damaged, was made to do harm, or does something that this program does not; one line.
        ArtifactError: plans.json or dataset.json is missing.
        DatasetError: dataset.json is not as it must be.
    """
    plans = NnunetPlans.load(folder.path / "plans.json")
    info = _read_info(folder.path / "dataset.json")
    checkpoints = {fold: read_nnunet_checkpoint(path) for fold, path in folder.checkpoints.items()}
    names = {(one.configuration, one.trainer) for one in checkpoints.values()}
    if len(names) > 1:
        raise ModelError(f"the folds of {folder.path} are of different configurations", "give those of one")
    first = next(iter(checkpoints.values()))
    found = plans.configuration(first.configuration)
    configuration = _read_configuration(found, first, plans, info)
    pooled = folder.pooled
    return NnunetModel(
        folder=folder,
        their_name=first.configuration,
        their_previous=found.previous_stage,
        configuration=configuration,
        plans=plans,
        info=info,
        checkpoints=checkpoints,
        rules=None if pooled is None else read_rules(pooled, info.targets),
    )


def name_models(models: Sequence[NnunetModel]) -> dict[ConfigurationName, NnunetModel]:
    """Models by our names of their configurations.

    nnU-Net's configurations may have any name; those of another one than its usual four become the one that they are
    like.

    Raises:
        ModelError: Two would have the same name, or one that a cascade follows is missing.
    """
    named: dict[ConfigurationName, NnunetModel] = {}
    for model in models:
        name = _our_name(model)
        if name in named:
            what = f"{named[name].their_name!r} and {model.their_name!r} would both be {name!r} here"
            raise ModelError(what, "install them one by one, by their folders")
        named[name] = model
    return named


def _our_name(model: NnunetModel) -> ConfigurationName:
    for name in CONFIGURATION_NAMES:
        if name == model.their_name:
            return name
    if model.configuration.architecture.dimensions == 2:
        return "2d"
    return "3d_fullres" if model.their_previous is None else "3d_cascade_fullres"


def make_checkpoints(models: Mapping[ConfigurationName, NnunetModel]) -> list[Checkpoint]:
    """The folds of some configurations of a dataset, by one plan.

    Raises:
        ModelError: The configurations do not belong together, a cascade lacks what it follows, or weights do not fit.
    """
    plan = _make_plan(models)
    return [
        Checkpoint(
            plan=plan,
            info=model.info,
            configuration_name=name,
            fold=fold,
            cases="",
            weights=take_weights(found.weights, model.configuration.architecture, model.seen),
            finished=True,
            training={},
        )
        for name, model in models.items()
        for fold, found in model.checkpoints.items()
    ]


def _make_plan(models: Mapping[ConfigurationName, NnunetModel]) -> Plan:
    first = next(iter(models.values()))
    orders = {
        (model.plans.transpose_forward, model.plans.dataset_name, model.info.targets.names) for model in models.values()
    }
    if len(orders) > 1:
        raise ModelError(
            f"{first.folder.path.parent} holds configurations of different plans", "install them one by one"
        )
    preset = _find_preset(first)
    names = {model.their_name: name for name, model in models.items()}
    configurations = {}
    for name, model in models.items():
        former = model.their_previous
        if former is not None and former not in names:
            what = f"{model.folder.path} is a cascade, which needs the model of {former} beside it"
            raise ModelError(what, "give the folder that holds both")
        update = {} if former is None else {"previous": names[former]}
        configurations[name] = model.configuration.model_copy(update=update)
    try:
        return Plan(
            dataset=first.plans.dataset_name,
            rules="nnunet",
            preset=preset,
            memory_budget_bytes=PRESETS[preset].memory_bytes,
            why=tuple(_explain(name, model) for name, model in models.items()),
            axis_order=first.plans.transpose_forward,
            training=REFERENCE_TRAINING,
            configurations=configurations,
        )
    except ValidationError as error:
        raise ModelError(f"{first.plans.source}: {first_mistake(error)}", CANNOT) from error


def _explain(name: ConfigurationName, model: NnunetModel) -> str:
    epochs = "" if model.first.epochs is None else f" for {model.first.epochs} epochs"
    return (
        f"{name} was trained by nnU-Net's {model.first.trainer}{epochs}, as {model.their_name} of "
        f"{model.plans.plans_name}; the settings of training are nnU-Net's usual ones, and not known of this model."
    )


def _find_preset(model: NnunetModel) -> PresetName:
    """The preset that plans networks like this one."""
    if model.configuration.architecture.residual == "none":
        return "plain"
    sizes: dict[str, PresetName] = {"ResEncUNetXL": "resenc_xl", "ResEncUNetL": "resenc_l"}
    return next((preset for name, preset in sizes.items() if name in model.plans.plans_name), "resenc_m")


def _read_info(path: Path) -> DatasetInfo:
    """Channels and labels; where the cases of the dataset were, which nnU-Net may note, is nobody's business here."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        text = json.dumps({key: value for key, value in content.items() if key not in ("dataset", "training", "test")})
    return DatasetInfo.parse(text, source=str(path))


def _read_configuration(
    found: ConfigurationPlan, checkpoint: NnunetCheckpoint, plans: NnunetPlans, info: DatasetInfo
) -> Configuration:
    where = f"{plans.source}, {checkpoint.configuration}"
    patch, targets = _axes(found.patch_size), info.targets
    seen = len(targets.structures) if found.previous_stage is not None else 0
    channels = info.channels + seen, targets.outputs
    architecture = read_architecture(found.architecture, channels, len(patch), where)
    held = sum(value.numel() for value in checkpoint.weights.values())
    if count_weights(architecture) > LARGEST_GROWTH * held:
        raise ModelError(f"{where}: the network has more weights than the {held} of its checkpoint", CANNOT)
    try:
        return Configuration(
            spacing_mm=_spacing(found.spacing),
            patch_size=patch,
            batch_size=found.batch_size,
            median_shape=_axes([max(1, ceil(size)) for size in found.median_image_size_in_voxels]),
            normalization=tuple(_read_normalization(found, plans, info)),
            batch_dice=found.batch_dice,
            architecture=architecture,
            estimated_bytes=training_bytes(architecture, patch, found.batch_size),
            previous=None if found.previous_stage is None else "3d_lowres",
            augmentation=_read_augmentation(patch, checkpoint.mirror_axes),
        )
    except ValidationError as error:
        raise ModelError(f"{where}: {first_mistake(error)}", CANNOT) from error


def _read_augmentation(patch: Axes, mirror_axes: Sequence[int]) -> AugmentationSettings:
    """nnU-Net's usual one; what is mirrored in prediction was mirrored in training."""
    usual: dict[str, Any] = choose_augmentation(patch).model_dump()
    return AugmentationSettings(**{**usual, "mirror_axes": tuple(mirror_axes)})


def _read_normalization(found: ConfigurationPlan, plans: NnunetPlans, info: DatasetInfo) -> list[Normalization]:
    where = f"{plans.source}: normalization_schemes"
    if len(found.normalization_schemes) != info.channels:
        raise ModelError(f"{where} has {len(found.normalization_schemes)} entries for {info.channels} channels", CANNOT)
    channels = []
    for number, (name, masked) in enumerate(zip(found.normalization_schemes, found.use_mask_for_norm, strict=True)):
        scheme, known = SCHEMES[name], plans.foreground_intensity_properties_per_channel.get(str(number))
        if scheme == "ct" and known is None:
            raise ModelError(f"{where} has CT for channel {number}, of which no intensities are known", CANNOT)
        measured = {}
        if scheme == "ct" and known is not None:
            measured = {
                "lower": known.percentile_00_5, "upper": known.percentile_99_5, "mean": known.mean, "std": known.std
            }  # fmt: skip
        channels.append(Normalization(scheme=scheme, only_nonzero=scheme == "zscore" and masked, **measured))
    return channels


def _axes(sizes: Sequence[int]) -> Axes:
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def _spacing(values: Sequence[float]) -> Spacing:
    return (values[0], values[1]) if len(values) == 2 else (values[0], values[1], values[2])
