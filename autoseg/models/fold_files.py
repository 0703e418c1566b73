"""Trained folds on disk whose networks were exported for runtimes other than torch."""

from collections.abc import Sequence

from autoseg.errors import ArtifactError, ModelError
from autoseg.models.fold_description import ExportedFold
from autoseg.workspace import Fold, ModelFolder


def is_exported(folder: ModelFolder, fold: Fold) -> bool:
    """Returns whether a fold has a network for runtimes other than torch, and no checkpoint."""
    return folder.exported_network(fold).is_file() and not folder.checkpoint(fold).is_file()


def load_exported(folder: ModelFolder, fold: Fold) -> ExportedFold:
    """Reads the description of an exported fold.

    Raises:
        ModelError: It is missing or damaged.
    """
    try:
        return ExportedFold.load(folder.exported_fold(fold))
    except ArtifactError as error:
        raise ModelError(error.what, "get a sound copy of the model") from error


def load_exports(folder: ModelFolder, folds: Sequence[Fold]) -> list[ExportedFold]:
    """Reads the descriptions of exported folds; those with a checkpoint are left out."""
    return [load_exported(folder, fold) for fold in folds if is_exported(folder, fold)]
