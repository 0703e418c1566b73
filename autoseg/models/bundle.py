"""Model bundles: a trained model in one file, which others open without a workspace or install in theirs.

    export_model    a model folder, or what `find_best` chose   -> model.zip
    install_model   model.zip                                   -> models/NAME in the workspace

`model_source.opened_model` predicts with a bundle as it is. The module `bundle_format` lists the files of a bundle, and
says why one from a stranger can do no harm.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from autoseg._version import __version__
from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.models.best_model import MemberName
from autoseg.models.bundle_format import CARD, MANIFEST, BundledFile, Manifest, pack, read_manifest
from autoseg.models.bundle_reading import unpack_checked
from autoseg.models.model_card import write_card
from autoseg.models.model_facts import CardMetadata, gather_facts
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.artifact import atomic_file, atomic_folder
from autoseg.runtime.writable import check_place
from autoseg.workspace import MODEL_NAME, Fold, ModelFolder, find_workspace

if TYPE_CHECKING:
    from autoseg.models.bundle_writing import FoldQuantizer

ModelPath = str | os.PathLike[str]

EXPORTS = ("torch", "onnx")
"""What networks are packed for; OpenVINO reads those for ONNX Runtime."""


def export_model(
    source: int | ModelPath,
    file: ModelPath,
    *,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    licence: str = "",
    about: str = "",
    runtime: str = "torch",
    quantizer: "FoldQuantizer | None" = None,
    plan_name: str | None = None,
    workspace: ModelPath | None = None,
) -> Path:
    """Packs a trained model into one file; see `pipeline.export_model`, which offers int8 as well.

    Args:
        source: See there.
        file: See there.
        configuration: See there.
        folds: See there.
        licence: See there.
        about: See there.
        runtime: See there.
        quantizer: What brings exported networks to int8; None leaves them in float32.
        plan_name: See there.
        workspace: See there.

    Returns:
        Path of the bundle.
    """
    file = Path(file)
    check_bundle_name(file)
    if runtime not in EXPORTS:
        raise UsageError(f"models are not packed for a runtime {runtime!r}", f"choose from {', '.join(EXPORTS)}")
    from autoseg.models.bundle_writing import find_content, write_files  # noqa: PLC0415 - it needs torch

    content = find_content(source, configuration, folds, plan_name=plan_name, workspace=workspace)
    with atomic_file(file) as writing, TemporaryDirectory(prefix=".writing_", dir=file.parent) as folder:
        root = ModelFolder(path=Path(folder))
        names = write_files(content, root, exported=runtime == "onnx", quantizer=quantizer)
        name = file.stem if MODEL_NAME.match(file.stem) else "model"
        metadata = CardMetadata(name=name, cases=content.cases, licence=licence, about=about)
        pack(root.path, add_card(root, names, metadata), writing)
    return file


def check_bundle_name(file: Path) -> None:
    """Finds out before the work whether a bundle can be written to a file.

    Raises:
        UsageError: Its name does not end in .zip.
        WriteError: It cannot be written.
    """
    if file.suffix.lower() != ".zip":
        raise UsageError(f"{file} is no name of a bundle", "give one that ends in .zip")
    check_place(file)


def add_card(root: ModelFolder, names: Sequence[MemberName], metadata: CardMetadata) -> Manifest:
    """Writes the card of a model into its folder.

    Args:
        root: The folder of a whole model.
        names: The configurations that predict.
        metadata: What the card states beside the facts in the files.

    Returns:
        A manifest of all files in the folder.
    """
    (root.path / CARD).write_text(write_card(gather_facts(root, names, metadata)), encoding="utf-8", newline="\n")
    files = sorted(path for path in root.path.rglob("*") if path.is_file())
    return Manifest(
        autoseg=__version__,
        name=metadata.name,
        configurations=tuple(names),
        files={path.relative_to(root.path).as_posix(): BundledFile.of(path) for path in files},
    )


def install_model(
    file: ModelPath, workspace: ModelPath | None = None, *, name: str | None = None, replace: bool = False
) -> Path:
    """Installs a bundle in the workspace, after every file of it was found sound and harmless.

    Args:
        file: Path of a bundle from anyone.
        workspace: See `find_workspace`.
        name: Name by which `predict` finds the model; by default the bundle's own.
        replace: Whether a model of that name may be replaced.

    Returns:
        The folder of the model, models/NAME in the workspace.

    Raises:
        ModelError: The file is no sound bundle; see `bundle_format`.
        UsageError: There is a model of that name, or the name cannot be one.
        WriteError: The disk is full, or the workspace cannot be written.

    Example:
        From a file, into models/Hippocampus of the workspace::

            autoseg.install_model("Hippocampus.zip")
            model = autoseg.load_model("Hippocampus")
    """
    file = _find_file(Path(file))
    manifest = read_manifest(file)
    target = find_workspace(workspace).installed(name or manifest.name)
    with installing(target, replace=replace) as folder:
        unpack_checked(file, folder)
    return target


@contextmanager
def installing(target: Path, *, replace: bool) -> Iterator[Path]:
    """Gives an empty folder, which becomes an installed model; after an error nothing is left of it.

    Args:
        target: Folder of the installed model.
        replace: Whether a model that is there may be replaced.

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
        for parent in (
            target.parent,
            target.parent.parent,
        ):  # removed if they were made for it, since others are not empty
            with suppress(OSError):
                parent.rmdir()
        raise


def describe_installed(folder: Path) -> list[tuple[str, str]]:
    """Returns the main facts of an installed model as rows of title and value."""
    names = Manifest.load(folder / MANIFEST).configurations
    return gather_facts(ModelFolder(path=folder), names, CardMetadata(name=folder.name)).rows()


def describe_bundle(file: Path) -> list[tuple[str, str]]:
    """Returns the main facts of a bundle as rows of title and value."""
    with TemporaryDirectory(prefix="autoseg_") as folder:
        names = unpack_checked(file, Path(folder)).configurations
        return gather_facts(ModelFolder(path=Path(folder)), names, CardMetadata(name=file.stem)).rows()


def _find_file(file: Path) -> Path:
    if not file.is_file():
        raise ModelError(f"{file} does not exist" if not file.exists() else f"{file} is no file", "check the path")
    return file
