"""Bundles from anyone, unpacked only after every file of them was found sound and harmless; see `bundle_format`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from autoseg.errors import AutosegError, ModelError, ProblemsError, WriteError
from autoseg.models.best_model import BestModel, name_member, split_member
from autoseg.models.bundle_format import FROM_SOURCE, WEIGHTS, Manifest, unpack
from autoseg.models.fold_description import FoldDescription
from autoseg.models.fold_files import is_exported
from autoseg.models.model_facts import CardMetadata, gather_facts, load_description
from autoseg.models.onnx_checks import check_onnx
from autoseg.runtime.os_errors import advise_writing, reason_of
from autoseg.workspace import ModelFolder


@contextmanager
def opened_bundle(bundle: Path) -> Iterator[Path]:
    """Unpacks a bundle into a temporary folder, which is there until the context ends.

    Errors that are raised meanwhile name the bundle instead of that folder.

    Raises:
        ModelError: The bundle is not sound.
        WriteError: There is no room for its files.
    """
    with TemporaryDirectory(prefix="autoseg_") as name, _naming(bundle, Path(name)):
        try:
            unpack_checked(bundle, Path(name))
        except OSError as error:
            what = f"cannot unpack {bundle} into {name}: {reason_of(error)}"
            raise WriteError(what, f"{advise_writing(error)}, or let TMPDIR name another folder") from error
        yield Path(name)


def unpack_checked(bundle: Path, folder: Path) -> Manifest:
    """Unpacks a bundle, and makes sure that each file is what its name says.

    Args:
        bundle: A file from anyone.
        folder: An empty folder. What it holds after an error is of no use.

    Raises:
        ModelError: A file is not sound, or a configuration is missing; the text names the bundle.
    """
    manifest = unpack(bundle, folder)
    root = ModelFolder(path=folder)
    with _naming(bundle, folder):
        matches = [match for match in map(WEIGHTS.fullmatch, manifest.files) if match]
        needed = {*manifest.configurations}
        for match in matches:
            previous = _load_placed(folder / match[0]).configuration.previous
            needed |= set() if previous is None else {name_member(split_member(match[1])[0], previous)}
        missing = sorted(needed - {match[1] for match in matches})
        if missing:
            raise ModelError(f"{folder} lacks the weights of {missing[0]}", FROM_SOURCE)
        predicting = manifest.configurations[:1]
        if root.best_model.is_file():
            predicting = BestModel.load(root.best_model).configurations
        if predicting != manifest.configurations:
            raise ModelError(f"{folder} does not say how {' and '.join(manifest.configurations)} predict", FROM_SOURCE)
        gather_facts(root, manifest.configurations, CardMetadata(name=manifest.name))
    return manifest


def _load_placed(path: Path) -> FoldDescription:
    """Loads a fold, and makes sure that it is of the configuration and the number that its folders name.

    The network of an exported fold is checked as well.
    """
    folder, name = ModelFolder(path=path.parent.parent), path.parent.name.removeprefix("fold_")
    fold = int(name) if name.isdigit() else name
    described = load_description(folder, fold)
    if (described.configuration_name, described.fold) != (folder.path.name, fold):
        raise ModelError(f"{path} is of {described.configuration_name}/fold_{described.fold}", FROM_SOURCE)
    if is_exported(folder, fold):
        check_onnx(path)
    return described


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
