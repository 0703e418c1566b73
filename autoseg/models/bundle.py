"""Models that are passed on: packed into one file, opened from it without any workspace, or installed in one.

    export_model    a model folder, or what `find_best` chose   -> model.zip
    opened_model    model.zip, or any folder of a model         -> the folder to predict with, while it is open
    install_model   model.zip                                   -> models/NAME in the workspace

What a bundle holds stands in `bundle_files`, which also says why one from a stranger can do no harm.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from autoseg._version import __version__
from autoseg.errors import AutosegError, ModelError, ProblemsError, UsageError, WriteError
from autoseg.models.best_model import BestModel, MemberName, name_member, split_member
from autoseg.models.bundle_format import (
    CARD,
    CHECKPOINT,
    FROM_SOURCE,
    MANIFEST,
    BundledFile,
    Manifest,
    pack,
    read_manifest,
    unpack,
)
from autoseg.models.bundle_source import find_source, stage
from autoseg.models.checkpoint import Checkpoint, load_checkpoint
from autoseg.models.model_card import write_card
from autoseg.models.model_facts import CardNotes, look_at
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.artifact import atomic_file, atomic_folder
from autoseg.workspace import MODEL_NAME, Fold, ModelFolder, find_workspace

ModelPath = str | os.PathLike[str]


def export_model(
    source: int | ModelPath,
    file: ModelPath,
    *,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    licence: str = "",
    about: str = "",
    plan_name: str | None = None,
    workspace: ModelPath | None = None,
) -> Path:
    """Packs a trained model into one file, to be passed on.

    It holds what prediction needs, mean scores, and a card that explains the model. It does not hold the names of
    cases, pictures or segmentations of them, nor what training would need to go on.

    Args:
        source: A model folder; the folder of several with a best.json; the name of an installed model; or the number
            of a dataset: what `find_best` chose for it, else its only trained configuration.
        file: The bundle, named .zip.
        configuration: Which one, if several are trained, instead of what was chosen.
        folds: Which to pack; by default all that are trained to their end.
        licence: Under which others may use it, for the card.
        about: What they should know, for the card: authors, paper, what it is for.
        plan_name: Of the plan that was trained, if it is not the usual one.
        workspace: See `find_workspace`.

    Returns:
        The file.

    Raises:
        ModelError: There is no such model, or a fold of it is missing, damaged or not trained to its end.
        UsageError: It is not clear which model is meant.
        WriteError: The file cannot be written.
    """
    file = Path(file)
    if file.suffix != ".zip":
        raise UsageError(f"{file} is no name of a bundle", "give one that ends in .zip")
    meant = source if isinstance(source, int) else locate_model(source, workspace)
    found = find_source(meant, configuration, folds, plan_name=plan_name, workspace=workspace)
    with atomic_file(file) as writing, TemporaryDirectory(prefix=".writing_", dir=file.parent) as folder:
        root = ModelFolder(path=Path(folder))
        names = stage(found, root)
        name = file.stem if MODEL_NAME.match(file.stem) else "model"
        notes = CardNotes(name=name, cases=found.cases, licence=licence, about=about)
        pack(root.path, add_card(root, names, notes), writing)
    return file


def add_card(root: ModelFolder, names: Sequence[MemberName], notes: "CardNotes") -> Manifest:
    """Writes the card of a model into its folder, and says which files are there.

    Args:
        root: The folder of a whole model.
        names: The configurations that predict.
        notes: See there.
    """
    (root.path / CARD).write_text(write_card(look_at(root, names, notes)), encoding="utf-8", newline="\n")
    files = sorted(path for path in root.path.rglob("*") if path.is_file())
    return Manifest(
        autoseg=__version__,
        name=notes.name,
        configurations=tuple(names),
        files={path.relative_to(root.path).as_posix(): BundledFile.of(path) for path in files},
    )


def install_model(
    file: ModelPath, workspace: ModelPath | None = None, *, name: str | None = None, replace: bool = False
) -> Path:
    """Puts a bundle into the workspace, after every file of it was found sound and harmless.

    Args:
        file: The bundle, from anyone.
        workspace: See `find_workspace`.
        name: By which `predict` finds it; by default the bundle's own.
        replace: Whether a model of that name may be replaced.

    Returns:
        Its folder, models/NAME in the workspace.

    Raises:
        ModelError: The file is no sound bundle; see `bundle_files`.
        UsageError: There is a model of that name, or the name cannot be one.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    file = _find_file(Path(file))
    manifest = read_manifest(file)
    target = find_workspace(workspace).installed(name or manifest.name)
    with installing(target, replace=replace) as folder:
        _unpack_sound(file, folder)
    return target


@contextmanager
def installing(target: Path, *, replace: bool) -> Iterator[Path]:
    """Gives an empty folder, which becomes an installed model; after an error nothing is left of it.

    Raises:
        UsageError: There is a model of that name, and it is not to be replaced.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    if target.exists() and not replace:
        raise UsageError(f"{target} exists", "choose another name with --name, or add --replace")
    try:
        with atomic_folder(target) as folder:
            yield folder
    except AutosegError:
        for empty in (target.parent, target.parent.parent):  # made for this; others are not empty
            with suppress(OSError):
                empty.rmdir()
        raise


def describe_installed(folder: Path) -> list[tuple[str, str]]:
    """What there is to know at a glance about an installed model: title and value."""
    names = Manifest.load(folder / MANIFEST).configurations
    return look_at(ModelFolder(path=folder), names, CardNotes(name=folder.name)).rows()


def describe_bundle(file: Path) -> list[tuple[str, str]]:
    """The same of a bundle."""
    with TemporaryDirectory(prefix="autoseg_") as folder:
        names = _unpack_sound(file, Path(folder)).configurations
        return look_at(ModelFolder(path=Path(folder)), names, CardNotes(name=file.stem)).rows()


def locate_model(model: ModelPath, workspace: ModelPath | None = None) -> Path:
    """Where a model is that was named by its folder, its bundle, or the name by which it is installed.

    What lies at the path comes first. A path at which nothing is, and which is no installed name, is given back.
    """
    path = Path(model)
    if path.exists() or not MODEL_NAME.match(str(model)):
        return path
    installed = find_workspace(workspace).installed(str(model))
    return installed if installed.is_dir() else path


@contextmanager
def opened_model(path: Path) -> Iterator[ModelFolder]:
    """Gives the folder to predict with: of a configuration, or of several and a best.json.

    Args:
        path: Such a folder, that of an installed model, or a bundle from anyone, which is unpacked into a temporary
            folder until the context ends.

    Raises:
        ModelError: The bundle is not sound; see `bundle_files`.
        WriteError: There is no room for it.
    """
    if path.is_file():
        with TemporaryDirectory(prefix="autoseg_") as folder, _naming(path, Path(folder)):
            try:
                manifest = _unpack_sound(path, Path(folder))
            except OSError as error:
                what = f"cannot unpack {path} into {folder}: {error.strerror or error}"
                raise WriteError(what, "free some space, or let TMPDIR name a folder with more") from error
            yield manifest.find_member(ModelFolder(path=Path(folder)))
    elif (path / MANIFEST).is_file():
        yield Manifest.load(path / MANIFEST).find_member(ModelFolder(path=path))
    else:
        yield ModelFolder(path=path)


def _find_file(file: Path) -> Path:
    if not file.is_file():
        raise ModelError(f"{file} does not exist" if not file.exists() else f"{file} is no file", "check the path")
    return file


def _unpack_sound(bundle: Path, folder: Path) -> Manifest:
    """Unpacks a bundle and makes sure that each file is what its name says.

    Raises:
        ModelError: Some are not; the text names the bundle.
    """
    manifest = unpack(bundle, folder)
    root = ModelFolder(path=folder)
    with _naming(bundle, folder):
        found = [match for match in map(CHECKPOINT.fullmatch, manifest.files) if match]
        needed = {*manifest.configurations}
        for match in found:
            former = _load_placed(folder / match[0]).configuration.previous
            needed |= set() if former is None else {name_member(split_member(match[1])[0], former)}
        missing = sorted(needed - {match[1] for match in found})
        if missing:
            raise ModelError(f"{folder} lacks the weights of {missing[0]}", FROM_SOURCE)
        chosen = BestModel.load(root.choice).configurations if root.choice.is_file() else manifest.configurations[:1]
        if chosen != manifest.configurations:
            raise ModelError(f"{folder} does not say how {' and '.join(manifest.configurations)} predict", FROM_SOURCE)
        look_at(root, manifest.configurations, CardNotes(name=manifest.name))
    return manifest


def _load_placed(path: Path) -> Checkpoint:
    """A checkpoint that is of the configuration and the fold that its folders say."""
    checkpoint = load_checkpoint(path)
    place = f"{checkpoint.configuration_name}/fold_{checkpoint.fold}"
    if not path.as_posix().endswith(f"/{place}/{path.name}"):
        raise ModelError(f"{path} is of {place}", FROM_SOURCE)
    return checkpoint


@contextmanager
def _naming(bundle: Path, folder: Path) -> Iterator[None]:
    """Lets errors name the bundle, and not the folder that it was unpacked into, which is gone when they are read."""
    try:
        yield
    except ProblemsError:
        raise
    except AutosegError as error:
        fix = FROM_SOURCE if isinstance(error, ModelError) and "--restart" in error.fix else error.fix
        raise type(error)(error.what.replace(str(folder), str(bundle)), fix) from error
