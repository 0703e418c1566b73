"""Which model a user means, which of its configurations predict, and which folds of each.

    find_model       the number of a dataset, a folder, a bundle, or the name of an installed model   -> where it is
    opened_model     where it is -> the configurations that predict and their folds, while a bundle is unpacked
    select_folds     a configuration and the folds that were asked for -> folds that are trained

Prediction, `load_model` and export all ask here, so that a name means the same model everywhere.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.errors import ModelError, UsageError
from autoseg.models.best_model import BestModel, MemberName
from autoseg.models.bundle_format import MANIFEST, Manifest
from autoseg.models.bundle_reading import opened_bundle
from autoseg.workspace import MODEL_NAME, DatasetFolders, Fold, ModelFolder, find_workspace, list_folds

ModelPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMember:
    """One configuration of a model, which predicts alone or together with others.

    Attributes:
        folder: The folder of its folds.
        folds: The folds that were asked for, or those that best.json names; empty if none were named.
        name: Its name in best.json; None for a model of one configuration.
        weight_digests: Fold to the digest that its weights had when best.json was written; see `digest_weights`.
    """

    folder: ModelFolder
    folds: tuple[Fold, ...] = ()
    name: MemberName | None = None
    weight_digests: Mapping[Fold, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """A model on disk: a configuration, or several that predict together.

    Attributes:
        folder: The folder of the configuration, or of several and their best.json.
        members: The configurations that predict, at least one.
        best_model: The content of best.json, if the folder has one.
    """

    folder: ModelFolder
    members: tuple[ModelMember, ...]
    best_model: BestModel | None = None


def choose_source(
    model: ModelPath | None, number: int | None, configuration: str | None, plan_name: str | None
) -> int | ModelPath:
    """Returns the one way in which a user named a model: its path or installed name, or the number of its dataset.

    Args:
        model: Path or installed name.
        number: Number of the dataset.
        configuration: Configuration that was asked for beside it.
        plan_name: Plan that was asked for beside it.

    Raises:
        UsageError: The model was named in both ways or in none; or a configuration or a plan was named beside a path.
    """
    if model is None and number is not None:
        return number
    if model is None or number is not None:
        raise UsageError("a model is named by its folder or by its dataset", "give either -m FOLDER or -d NUMBER")
    if configuration is not None or plan_name is not None:
        what = "a model folder holds one configuration of one plan"
        raise UsageError(what, "leave out -c and --plan, or give -d instead of -m")
    return model


def find_model(
    source: int | ModelPath,
    configuration: str | None = None,
    *,
    plan_name: str | None = None,
    with_best_model: bool = True,
    default: str | None = None,
    workspace: ModelPath | None = None,
) -> Path:
    """Finds the model that a user means.

    Of a dataset it is the configuration that was named; else what `find_best` chose; else the only configuration that
    is trained.

    Args:
        source: The number of a dataset; a model folder; the folder of several configurations with a best.json; a
            bundle; or the name of an installed model. What lies at a path comes before an installed model of that name.
        configuration: Which one of several.
        plan_name: Plan of the dataset, if it is not the usual one.
        with_best_model: Whether what `find_best` chose for a dataset may be taken.
        default: Configuration of a dataset to take if several are trained or none is. Without it this is an error.
        workspace: See `find_workspace`.

    Returns:
        The path of a folder or a bundle for `opened_model`. There need not be anything, if a path was given.

    Raises:
        UsageError: It is not clear which configuration or plan is meant, a plan was named beside a path, or the source
            is neither a number nor a path.
        ModelError: No configuration of the dataset is trained.
        DatasetError: There is no such dataset.
    """
    if isinstance(source, int):
        folders = find_workspace(workspace).dataset(source, plan_name)
        return _find_trained(folders, source, configuration, with_best_model=with_best_model, default=default).path
    if plan_name is not None:
        raise UsageError("a model folder holds one plan", "leave out --plan, or give -d instead")
    try:
        path = Path(source)
    except TypeError as error:
        what = f"an object of type {type(source).__name__} names no model"
        fix = "give the path of a model folder or a bundle, or the name of an installed model"
        raise UsageError(what, fix) from error
    if not path.exists() and MODEL_NAME.match(str(source)):
        installed = find_workspace(workspace).installed(str(source))
        path = installed if installed.is_dir() else path
    return path if configuration is None else path / configuration


@contextmanager
def opened_model(path: Path, folds: Fold | Sequence[Fold] | None = None) -> Iterator[ResolvedModel]:
    """Gives the configurations of a model that predict, and the folds of each.

    Args:
        path: A model folder, the folder of several configurations with a best.json, the folder of an installed model,
            or a bundle from anyone, which is unpacked into a temporary folder until the context ends.
        folds: Which folds were asked for, if any.

    Raises:
        ModelError: The bundle is not sound (see `bundle_format`), or a configuration that best.json names is missing.
        ArtifactError: best.json or manifest.json is damaged.
        UsageError: Folds were asked for, although best.json names them.
        WriteError: There is no room for the files of the bundle.
    """
    if path.is_file():
        with opened_bundle(path) as folder:
            yield resolve_members(folder, folds)
    else:
        yield resolve_members(path, folds)


def resolve_members(path: Path, folds: Fold | Sequence[Fold] | None = None) -> ResolvedModel:
    """Finds the configurations in a folder that predict; for arguments and errors see `opened_model`."""
    folder = ModelFolder(path=path)
    if (path / MANIFEST).is_file():
        folder = Manifest.load(path / MANIFEST).find_member(folder)
    asked = () if folds is None else tuple(list_folds(folds))
    if not folder.best_model.is_file():
        return ResolvedModel(folder=folder, members=(ModelMember(folder=folder, folds=asked),))
    if asked:
        what = f"{folder.best_model} says which folds predict"
        raise UsageError(what, "leave out -f, or choose a configuration as well, with -c or by its folder")
    best_model = BestModel.load(folder.best_model)
    missing = [name for name in best_model.configurations if not folder.member(name).trained_folds()]
    if missing:
        what = (
            f"{folder.best_model} chose {best_model.name}, but {folder.member(missing[0]).path} holds no trained fold"
        )
        raise ModelError(what, "restore it, run 'autoseg find_best' again, or choose another with -c")
    members = []
    for name in best_model.configurations:
        digests: dict[Fold, str] = {chosen.fold: chosen.weights for chosen in best_model.folds[name]}
        members.append(ModelMember(folder=folder.member(name), folds=tuple(digests), name=name, weight_digests=digests))
    return ResolvedModel(folder=folder, members=tuple(members), best_model=best_model)


def select_folds(folder: ModelFolder, asked: Sequence[Fold] = ()) -> list[Fold]:
    """Returns the folds of a configuration that are meant, all of which are trained.

    Args:
        folder: The folder of the configuration.
        asked: Folds by number or "all"; "cv" stands for all numbers, or for "all" where no other fold is trained.
            Empty means "cv".

    Raises:
        ModelError: No fold is trained, or not each that was asked for.
    """
    trained = folder.trained_folds()
    if not trained:
        fix = "train one with 'autoseg train', or check the path"
        if inside := [path for path in sorted(folder.path.glob("*/")) if ModelFolder(path=path).trained_folds()]:
            fix = f"give the configuration, such as {inside[0]}, or choose the best one with 'autoseg find_best'"
        raise ModelError(f"{folder.path} holds no trained fold", fix)
    numbers = [fold for fold in trained if fold != "all"] or trained
    selected = list(dict.fromkeys(fold for name in asked or ["cv"] for fold in (numbers if name == "cv" else [name])))
    missing = [fold for fold in selected if fold not in trained]
    if missing:
        present = ", ".join(map(str, trained))
        raise ModelError(f"fold {missing[0]} of {folder.path} is not trained (there: {present})", "choose with -f")
    return selected


def _find_trained(
    folders: DatasetFolders, number: int, configuration: str | None, *, with_best_model: bool, default: str | None
) -> ModelFolder:
    """Finds what is trained on a dataset; see `find_model`."""
    if configuration is None and with_best_model and folders.best_model.is_file():
        return ModelFolder(path=folders.models)
    trained = _list_trained(folders)
    if configuration is None and len(trained) == 1:
        return folders.model(trained[0])
    if not trained and folders.plan_name is None:
        _refuse_if_other_plan_is_trained(folders, number)
    if configuration is not None or default is not None:
        return folders.model(configuration or default or "")
    if not trained:
        what = f"{folders.models} holds no trained configuration"
        raise ModelError(what, f"train one with 'autoseg train -d {number}{folders.plan_option}'")
    what = f"{folders.models} holds {' and '.join(trained)}"
    find_best = f"autoseg find_best -d {number}{folders.plan_option}"
    raise UsageError(what, f"choose one with -c, or let '{find_best}' choose")


def _refuse_if_other_plan_is_trained(folders: DatasetFolders, number: int) -> None:
    plans = [name for name in folders.named_plans if _list_trained(folders.with_plan(name))]
    if plans:
        what = f"nothing is trained by the usual plan of {folders.raw.name}, but by {' and '.join(plans)}"
        raise UsageError(what, f"add --plan {plans[0]}, or let 'autoseg find_best -d {number}' choose")


def _list_trained(folders: DatasetFolders) -> list[str]:
    """Returns the configurations of a plan of which at least one fold is trained."""
    return [path.name for path in sorted(folders.models.glob("*")) if folders.model(path.name).trained_folds()]
