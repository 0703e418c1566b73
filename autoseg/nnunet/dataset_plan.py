"""Whether a model of nnU-Net's belongs to a dataset of the workspace, and its plan, made a plan of that dataset."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.splits import Splits
from autoseg.datasets.splitting import check_leaks, resolve_splits
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.targets import Targets
from autoseg.models.checkpoint import NAMELESS, Checkpoint
from autoseg.nnunet.held_out import read_held_out
from autoseg.nnunet.install import Models
from autoseg.nnunet.models import NnunetModel, make_checkpoints
from autoseg.planning.memory import training_bytes
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.plan_file import list_cases
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.runtime.artifact import first_mistake
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import DatasetFolders

APART = "install it without -d"
READER = '"overwrite_image_reader_writer": "NibabelIOWithReorient"'


def check_agreement(model: NnunetModel, dataset: Dataset, folders: DatasetFolders) -> None:
    """Makes sure that a model learned the channels and labels of a dataset, and that its folds are whole.

    Raises:
        UsageError: It did not, or a fold is not trained to its end or lies in another's folder; one line.
        ArtifactError: The fingerprint is damaged.
    """
    path, name = model.folder.path, dataset.name
    for here, theirs, what in (
        (_name_channels(dataset.info), _name_channels(model.info), "channels"),
        (_name_labels(dataset.info.targets), _name_labels(model.info.targets), "labels"),
    ):
        if here != theirs:
            raise UsageError(f"{path} was trained on the {what} {theirs}, and {name} has {here}", APART)
    if model.orientation != dataset.info.orientation and not _all_lie(folders, model.orientation):
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
    for fold, found in model.checkpoints.items():
        if found.fold not in (None, fold):
            what = f"{model.folder.checkpoints[fold]} is of fold {found.fold}"
            raise UsageError(what, f"put it where it belongs, or {APART}")


def _all_lie(folders: DatasetFolders, orientation: str | None) -> bool:
    """Whether turning to an orientation changes nothing, since all cases lie so; known from their fingerprint."""
    if orientation is None or not folders.fingerprint.is_file():
        return False
    return all(case.orientation == orientation for case in Fingerprint.load(folders.fingerprint).cases)


def _name_channels(info: DatasetInfo) -> str:
    return ", ".join(info.channel_names.values())


def _name_labels(targets: Targets) -> str:
    names = [f"{name} {'+'.join(map(str, numbers))}" for name, numbers in targets.structures.items()]
    region_class_order = (
        [f"written in the order {' '.join(map(str, targets.region_class_order))}"] if targets.region_class_order else []
    )
    ignored = [] if targets.ignore is None else [f"ignore {targets.ignore}"]
    return ", ".join([*names, *ignored, *region_class_order])


def resolve_nnunet_folds(
    models: Models, dataset: Dataset, folders: DatasetFolders, source: Path | None, reporter: Reporter
) -> Splits:
    """The folds of a dataset, by which the models that are taken over were trained. Nothing is written.

    They are those of splits.json; if there is none, those that `resolve_splits` finds or deals, as nnU-Net dealt them.

    Raises:
        UsageError: A fold held out other cases, or is none of them, or `source` contradicts splits.json.
        ArtifactError: A file of folds is damaged.
    """
    names, info = list_cases(folders), dataset.info
    if folders.splits.is_file():
        splits, told = Splits.load(folders.splits), str(folders.splits)
        check_leaks(splits, folders, info)
        if source is not None and splits != resolve_splits(names, folders, info, SILENT, source=source):
            what = f"{folders.splits} holds other folds than {source}"
            raise UsageError(what, f"leave --splits out, remove splits.json if nothing is trained by it, or {APART}")
        fix = f"{APART}; or, if nothing is trained here, remove splits.json, and give nnU-Net's folds with --splits"
    else:
        splits = resolve_splits(names, folders, info, reporter, source=source)
        told = f"the folds that were found or dealt for {dataset.name}" if source is None else str(source)
        fix = f"give nnU-Net's splits_final.json with --splits, or {APART}"
    for model in models.values():
        _check_folds(model, splits, told, fix)
    return splits


def _check_folds(model: NnunetModel, splits: Splits, told: str, fix: str) -> None:
    """Makes sure that each fold held out the cases that it is said to."""
    path = model.folder.path
    for fold in model.checkpoints:
        if not isinstance(fold, int):
            continue
        if fold >= len(splits.folds):
            raise UsageError(f"{path} has a fold {fold}, which is none of {told}", fix)
        held_out = read_held_out(path, fold, model.info.file_ending)
        stray = held_out.find_stray(frozenset(splits.folds[fold].validation))
        if stray is not None:
            raise UsageError(f"fold {fold} of {path} held out other cases than in {told}, such as {stray!r}", fix)


def convert_plan(
    models: Models, dataset: Dataset, splits: Splits, folders: DatasetFolders
) -> tuple[Plan, dict[ConfigurationName, list[Checkpoint]]]:
    """nnU-Net's plan as one of a dataset, and the folds that follow it.

    A plan of that name that is there already keeps its other configurations and its settings of training. A cascade
    sees the cases of "3d_fullres", which is added if it was not trained.

    Raises:
        ModelError: The configurations do not belong together, or weights do not fit.
        UsageError: The plan that is there orders the axes of images in another way.
        ArtifactError: It is damaged.
    """
    loose = make_checkpoints(models)
    theirs = loose[0].plan
    plan = _join(theirs.model_copy(update={"dataset": dataset.name}), folders)
    plan = _with_full_resolution(plan)
    _check_cascades(plan, dataset.info)
    checkpoints: dict[ConfigurationName, list[Checkpoint]] = {name: [] for name in models}
    for one in loose:
        checkpoints[one.configuration_name].append(
            replace(
                one,
                plan=plan,
                info=dataset.info.model_copy(update=NAMELESS),
                cases=splits.fold(one.fold).digest,
            )
        )
    return plan, checkpoints


def _join(theirs: Plan, folders: DatasetFolders) -> Plan:
    """The plan with what the one of its name has besides."""
    if not folders.plan.is_file():
        return theirs
    former = Plan.load(folders.plan)
    if former.axis_order != theirs.axis_order:
        what = f"{folders.plan} puts the axes of images into the order {former.axis_order}, the model into "
        raise UsageError(f"{what}{theirs.axis_order}", "choose another plan with --plan NAME")
    return _checked(
        theirs.model_copy(
            update={
                "training": former.training,
                "why": tuple(dict.fromkeys((*former.why, *theirs.why))),
                "configurations": {**former.configurations, **theirs.configurations},
            }
        ),
        str(folders.plan),
    )


def _checked(plan: Plan, source: str) -> Plan:
    try:
        return Plan.model_validate(plan.model_dump())
    except ValidationError as error:
        raise UsageError(f"{source}: {first_mistake(error)}", "choose another plan with --plan NAME") from error


def _with_full_resolution(plan: Plan) -> Plan:
    """The plan with "3d_fullres", if it has a cascade, which sees the cases of that."""
    cascades = [one for one in plan.configurations.values() if one.previous is not None]
    if not cascades or "3d_fullres" in plan.configurations:
        return plan
    alone = _without_previous(cascades[0])
    line = "3d_fullres is the cascade without its first part, whose cases it sees; it was not trained."
    return plan.model_copy(
        update={"configurations": {**plan.configurations, "3d_fullres": alone}, "why": (*plan.why, line)}
    )


def _without_previous(cascade: Configuration) -> Configuration:
    architecture = cascade.architecture.model_copy(update={"in_channels": cascade.image_channels})
    return cascade.model_copy(
        update={
            "previous": None,
            "architecture": architecture,
            "estimated_bytes": training_bytes(architecture, cascade.patch_size, cascade.batch_size),
        }
    )


def _check_cascades(plan: Plan, info: DatasetInfo) -> None:
    """A cascade sees the prepared cases of "3d_fullres", and so must want the same voxels."""
    for name in _list_cascades(plan):
        if PreprocessingSettings.of(plan, name, info) != PreprocessingSettings.of(plan, "3d_fullres", info):
            raise ModelError(f"{name} sees other voxels than 3d_fullres of the same plan", APART)


def _list_cascades(plan: Plan) -> Sequence[ConfigurationName]:
    return [name for name, one in plan.configurations.items() if one.previous is not None]
