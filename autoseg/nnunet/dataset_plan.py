"""Check that a model of nnU-Net was trained on a dataset of the workspace, and conversion of its plan."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.splits import Splits
from autoseg.datasets.splitting import SplitRequest, check_leaks, resolve_splits
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.targets import Targets
from autoseg.models.checkpoint import NAMELESS, Checkpoint
from autoseg.nnunet.held_out import read_held_out
from autoseg.nnunet.install import Models
from autoseg.nnunet.models import NnunetModel, make_checkpoints
from autoseg.planning.memory import training_bytes
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.plan_file import list_planned_cases
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.runtime.json_text import first_mistake
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import DatasetFolders

APART = "install it without -d"
READER = '"overwrite_image_reader_writer": "NibabelIOWithReorient"'


def check_agreement(model: NnunetModel, dataset: Dataset, folders: DatasetFolders) -> None:
    """Checks that a model was trained on the channels and labels of a dataset, and that its folds are complete.

    Raises:
        UsageError: It was not, or a fold is not trained to its end or lies in the folder of another fold.
        ArtifactError: The fingerprint is damaged.
    """
    path, name = model.folder.path, dataset.name
    for of_dataset, of_model, what in (
        (_name_channels(dataset.info), _name_channels(model.info), "channels"),
        (_name_labels(dataset.info.targets), _name_labels(model.info.targets), "labels"),
    ):
        if of_dataset != of_model:
            raise UsageError(f"{path} was trained on the {what} {of_model}, and {name} has {of_dataset}", APART)
    if model.orientation != dataset.info.orientation and not _are_all_oriented(folders, model.orientation):
        turning = (
            "turns scans before it sees them, as {} does not" if model.orientation else "turns no scans, as {} does"
        )
        what = f"{path} {turning.format(name)}"
        raise UsageError(what, f"{'write' if model.orientation else 'remove'} {READER} in its dataset.json, or {APART}")
    if model.folder.unfinished:
        what = (
            f"{model.folder.unfinished[0]} is no fold that nnU-Net trained to its end (it lacks checkpoint_final.pth)"
        )
        raise UsageError(what, f"let nnU-Net finish it, remove the folder, or {APART}")
    for fold, checkpoint in model.checkpoints.items():
        if checkpoint.fold not in (None, fold):
            what = f"{model.folder.checkpoints[fold]} is of fold {checkpoint.fold}"
            raise UsageError(what, f"put it where it belongs, or {APART}")


def _are_all_oriented(folders: DatasetFolders, orientation: str | None) -> bool:
    """Tells from the fingerprint whether all cases have an orientation, so that reorienting changes nothing."""
    if orientation is None or not folders.fingerprint.is_file():
        return False
    return all(case.orientation == orientation for case in Fingerprint.load(folders.fingerprint).cases)


def _name_channels(info: DatasetInfo) -> str:
    """Names the channels for messages."""
    return ", ".join(info.channel_names.values())


def _name_labels(targets: Targets) -> str:
    """Names the labels and their numbers for messages.

    >>> _name_labels(Targets.of_labels({"liver": 1, "tumour": 2}))
    'liver 1, tumour 2'
    """
    names = [f"{name} {'+'.join(map(str, numbers))}" for name, numbers in targets.structures.items()]
    region_class_order = (
        [f"written in the order {' '.join(map(str, targets.region_class_order))}"] if targets.region_class_order else []
    )
    ignored = [] if targets.ignore is None else [f"ignore {targets.ignore}"]
    return ", ".join([*names, *ignored, *region_class_order])


def resolve_nnunet_folds(
    models: Models, dataset: Dataset, folders: DatasetFolders, source: Path | None, reporter: Reporter
) -> Splits:
    """Finds the folds of a dataset and checks that the models were trained by them. Nothing is written.

    The folds are those of splits.json. If there is none, they are found or assigned by `resolve_splits`, in the same
    way as nnU-Net assigns them.

    Args:
        models: The models.
        dataset: Their dataset.
        folders: Folders of the dataset.
        source: A file of folds, or None.
        reporter: Reports where the folds were found.

    Raises:
        UsageError: A fold held out other cases, or does not exist, or `source` contradicts splits.json.
        ArtifactError: A file of folds is damaged.
    """
    names, info, request = list_planned_cases(folders), dataset.info, SplitRequest(source=source)
    if folders.splits.is_file():
        splits, origin = Splits.load(folders.splits), str(folders.splits)
        check_leaks(splits, folders, info)
        if source is not None and splits != resolve_splits(names, folders, info, SILENT, request):
            what = f"{folders.splits} holds other folds than {source}"
            raise UsageError(what, f"leave --splits out, remove splits.json if nothing is trained by it, or {APART}")
        fix = f"{APART}; or, if nothing is trained here, remove splits.json, and give nnU-Net's folds with --splits"
    else:
        splits = resolve_splits(names, folders, info, reporter, request)
        origin = f"the folds that were found or dealt for {dataset.name}" if source is None else str(source)
        fix = f"give nnU-Net's splits_final.json with --splits, or {APART}"
    for model in models.values():
        _check_folds(model, splits, origin, fix)
    return splits


def _check_folds(model: NnunetModel, splits: Splits, origin: str, fix: str) -> None:
    """Checks that each fold of a model held out the cases of the splits.

    Args:
        model: The model.
        splits: The splits.
        origin: Where the splits come from, for errors.
        fix: What to do about an error.
    """
    path = model.folder.path
    for fold in model.checkpoints:
        if not isinstance(fold, int):
            continue
        if fold >= len(splits.folds):
            raise UsageError(f"{path} has a fold {fold}, which is none of {origin}", fix)
        held_out = read_held_out(path, fold, model.info.file_ending)
        stray = held_out.find_stray(frozenset(splits.folds[fold].validation))
        if stray is not None:
            raise UsageError(f"fold {fold} of {path} held out other cases than in {origin}, such as {stray!r}", fix)


def convert_plan(
    models: Models, dataset: Dataset, splits: Splits, folders: DatasetFolders
) -> tuple[Plan, dict[ConfigurationName, list[Checkpoint]]]:
    """Converts nnU-Net's plan to a plan of a dataset, and its checkpoints to checkpoints of that plan.

    An existing plan of that name keeps its other configurations and its training settings. A cascade uses the
    preprocessed cases of "3d_fullres", which is added to the plan if it was not trained.

    Args:
        models: The models.
        dataset: Their dataset.
        splits: The splits of the dataset.
        folders: Folders of the dataset, as the plan of the models sees them.

    Returns:
        The plan, and each configuration with the checkpoints of its folds.

    Raises:
        ModelError: The configurations do not belong together, or weights do not fit.
        UsageError: The existing plan has another order of image axes.
        ArtifactError: The existing plan is damaged.
    """
    standalone = make_checkpoints(models)
    nnunet_plan = standalone[0].plan
    plan = _join(nnunet_plan.model_copy(update={"dataset": dataset.name}), folders)
    plan = _with_full_resolution(plan)
    _check_cascades(plan, dataset.info)
    checkpoints: dict[ConfigurationName, list[Checkpoint]] = {name: [] for name in models}
    for checkpoint in standalone:
        checkpoints[checkpoint.configuration_name].append(
            replace(
                checkpoint,
                plan=plan,
                info=dataset.info.model_copy(update=NAMELESS),
                cases=splits.fold(checkpoint.fold).digest,
            )
        )
    return plan, checkpoints


def _join(nnunet_plan: Plan, folders: DatasetFolders) -> Plan:
    """Joins nnU-Net's plan with the existing plan of its name, if there is one."""
    if not folders.plan.is_file():
        return nnunet_plan
    existing = Plan.load(folders.plan)
    if existing.axis_order != nnunet_plan.axis_order:
        what = f"{folders.plan} puts the axes of images into the order {existing.axis_order}, the model into "
        raise UsageError(f"{what}{nnunet_plan.axis_order}", "choose another plan with --plan NAME")
    return _validate(
        nnunet_plan.model_copy(
            update={
                "training": existing.training,
                "why": tuple(dict.fromkeys((*existing.why, *nnunet_plan.why))),
                "configurations": {**existing.configurations, **nnunet_plan.configurations},
            }
        ),
        str(folders.plan),
    )


def _validate(plan: Plan, source: str) -> Plan:
    try:
        return Plan.model_validate(plan.model_dump())
    except ValidationError as error:
        raise UsageError(f"{source}: {first_mistake(error)}", "choose another plan with --plan NAME") from error


def _with_full_resolution(plan: Plan) -> Plan:
    """Adds "3d_fullres" to a plan with a cascade, which uses the preprocessed cases of that configuration."""
    cascades = [plan.configurations[name] for name in _list_cascades(plan)]
    if not cascades or "3d_fullres" in plan.configurations:
        return plan
    full_resolution = _without_previous(cascades[0])
    line = "3d_fullres is the cascade without its first part, whose cases it sees; it was not trained."
    return plan.model_copy(
        update={"configurations": {**plan.configurations, "3d_fullres": full_resolution}, "why": (*plan.why, line)}
    )


def _without_previous(cascade: Configuration) -> Configuration:
    """Returns the second stage of a cascade as a configuration without coarse segmentation."""
    architecture = cascade.architecture.model_copy(update={"in_channels": cascade.image_channels})
    return cascade.model_copy(
        update={
            "previous": None,
            "architecture": architecture,
            "estimated_bytes": training_bytes(architecture, cascade.patch_size, cascade.batch_size),
        }
    )


def _check_cascades(plan: Plan, info: DatasetInfo) -> None:
    """Checks that cascades need the same voxels as "3d_fullres", whose preprocessed cases they use."""
    for name in _list_cascades(plan):
        if PreprocessingSettings.of(plan, name, info) != PreprocessingSettings.of(plan, "3d_fullres", info):
            raise ModelError(f"{name} sees other voxels than 3d_fullres of the same plan", APART)


def _list_cascades(plan: Plan) -> Sequence[ConfigurationName]:
    return [name for name, configuration in plan.configurations.items() if configuration.previous is not None]
