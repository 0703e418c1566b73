"""Conversion of a trained configuration of nnU-Net: plan, labels, weights, postprocessing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.models.checkpoint import Checkpoint
from autoseg.nnunet.checkpoint_file import NnunetCheckpoint, read_nnunet_checkpoint
from autoseg.nnunet.configurations import read_configuration
from autoseg.nnunet.model_folders import NnunetFolder
from autoseg.nnunet.plans import CANNOT, NnunetPlans
from autoseg.nnunet.postprocessing_file import read_rules
from autoseg.nnunet.trainers import is_known
from autoseg.nnunet.weight_names import import_weights
from autoseg.planning.plan import (
    CONFIGURATION_NAMES,
    Configuration,
    ConfigurationName,
    Plan,
    PresetName,
)
from autoseg.planning.presets import PRESETS, REFERENCE_TRAINING
from autoseg.runtime.json_text import first_mistake, read_json_text
from autoseg.workspace import Fold

REORIENTING = "NibabelIOWithReorient"
"""The reader class of nnU-Net that reorients images: x to the right, y to anterior, z to superior."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetModel:
    """A trained configuration of nnU-Net that this package can represent.

    Attributes:
        folder: Its model folder.
        nnunet_name: nnU-Net's name of the configuration.
        nnunet_previous: nnU-Net's name of the first stage, for the second stage of a cascade.
        configuration: The converted configuration. In a cascade its `previous` is "3d_lowres", whatever name the first
            stage gets; the plan of the installed model names it.
        plans: The content of plans.json.
        info: Channels and labels.
        checkpoints: Fold to the content of its checkpoint.
        rules: Its postprocessing; None if it has none.
    """

    folder: NnunetFolder
    nnunet_name: str
    nnunet_previous: str | None
    configuration: Configuration
    plans: NnunetPlans
    info: DatasetInfo
    checkpoints: Mapping[Fold, NnunetCheckpoint]
    rules: PostprocessingRules | None

    @property
    def first(self) -> NnunetCheckpoint:
        """Checkpoint of the first fold, whose settings nnU-Net uses for all folds."""
        return next(iter(self.checkpoints.values()))

    @property
    def coarse_targets(self) -> Targets | None:
        """Structures of the coarse segmentation, for the second stage of a cascade."""
        return self.info.targets if self.nnunet_previous is not None else None

    @property
    def orientation(self) -> str | None:
        """Orientation to which every image is reoriented; None if images are not reoriented."""
        return "SAR" if self.plans.image_reader_writer == REORIENTING else None

    def list_remarks(self) -> list[str]:
        """Lists what users should know about the model, a line each."""
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
    """Reads a trained configuration and checks that this package can represent it.

    Raises:
        ModelError: It is damaged or malicious, or uses a feature that this package lacks.
        ArtifactError: plans.json or dataset.json is missing.
        DatasetError: dataset.json is invalid.
    """
    plans = NnunetPlans.load(folder.path / "plans.json")
    info = _read_info(folder.path / "dataset.json")
    checkpoints = {fold: read_nnunet_checkpoint(path) for fold, path in folder.checkpoints.items()}
    names = {(checkpoint.configuration, checkpoint.trainer) for checkpoint in checkpoints.values()}
    if len(names) > 1:
        raise ModelError(f"the folds of {folder.path} are of different configurations", "give those of one")
    first = next(iter(checkpoints.values()))
    configuration_plan = plans.configuration(first.configuration)
    configuration = read_configuration(configuration_plan, first, plans, info)
    pooled = folder.pooled
    return NnunetModel(
        folder=folder,
        nnunet_name=first.configuration,
        nnunet_previous=configuration_plan.previous_stage,
        configuration=configuration,
        plans=plans,
        info=info,
        checkpoints=checkpoints,
        rules=None if pooled is None else read_rules(pooled, info.targets),
    )


def name_models(models: Sequence[NnunetModel]) -> dict[ConfigurationName, NnunetModel]:
    """Names models by the configurations of this package.

    nnU-Net's configurations may have any name; those with other names than the four defaults get the name of the
    default configuration that they resemble.

    Raises:
        ModelError: Two models would have the same name.
    """
    named: dict[ConfigurationName, NnunetModel] = {}
    for model in models:
        name = _name_configuration(model)
        if name in named:
            what = f"{named[name].nnunet_name!r} and {model.nnunet_name!r} would both be {name!r} here"
            raise ModelError(what, "install them one by one, by their folders")
        named[name] = model
    return named


def _name_configuration(model: NnunetModel) -> ConfigurationName:
    """Returns the configuration of this package that a model is, or resembles."""
    for name in CONFIGURATION_NAMES:
        if name == model.nnunet_name:
            return name
    if model.configuration.architecture.dimensions == 2:
        return "2d"
    return "3d_fullres" if model.nnunet_previous is None else "3d_cascade_fullres"


def make_checkpoints(models: Mapping[ConfigurationName, NnunetModel]) -> list[Checkpoint]:
    """Converts the checkpoints of the configurations of one dataset, with one plan for all of them.

    Raises:
        ModelError: The configurations do not belong together, a cascade lacks its first stage, or weights do not fit.
    """
    plan = _make_plan(models)
    return [
        Checkpoint(
            plan=plan,
            info=model.info,
            configuration_name=name,
            fold=fold,
            cases="",
            weights=import_weights(checkpoint.weights, model.configuration.architecture, model.coarse_targets),
            finished=True,
            training={},
        )
        for name, model in models.items()
        for fold, checkpoint in model.checkpoints.items()
    ]


def _make_plan(models: Mapping[ConfigurationName, NnunetModel]) -> Plan:
    """Makes one plan of the configurations of one dataset."""
    first = next(iter(models.values()))
    orders = {
        (model.plans.transpose_forward, model.plans.dataset_name, model.info.targets.names) for model in models.values()
    }
    if len(orders) > 1:
        raise ModelError(
            f"{first.folder.path.parent} holds configurations of different plans", "install them one by one"
        )
    preset = _find_preset(first)
    names = {model.nnunet_name: name for name, model in models.items()}
    configurations = {}
    for name, model in models.items():
        first_stage = model.nnunet_previous
        if first_stage is not None and first_stage not in names:
            what = f"{model.folder.path} is a cascade, which needs the model of {first_stage} beside it"
            raise ModelError(what, "give the folder that holds both")
        update = {} if first_stage is None else {"previous": names[first_stage]}
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
    """Explains the origin of a configuration in a line of the plan."""
    epochs = "" if model.first.epochs is None else f" for {model.first.epochs} epochs"
    return (
        f"{name} was trained by nnU-Net's {model.first.trainer}{epochs}, as {model.nnunet_name} of "
        f"{model.plans.plans_name}; the settings of training are nnU-Net's usual ones, and not known of this model."
    )


def _find_preset(model: NnunetModel) -> PresetName:
    """Returns the preset whose plans have networks like this one."""
    if model.configuration.architecture.residual == "none":
        return "plain"
    sizes: dict[str, PresetName] = {"ResEncUNetXL": "resenc_xl", "ResEncUNetL": "resenc_l"}
    return next((preset for name, preset in sizes.items() if name in model.plans.plans_name), "resenc_m")


def _read_info(path: Path) -> DatasetInfo:
    """Reads channels and labels, without the paths of cases, which nnU-Net may store."""
    text = read_json_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        text = json.dumps({key: value for key, value in content.items() if key not in ("dataset", "training", "test")})
    return DatasetInfo.parse(text, source=str(path))
