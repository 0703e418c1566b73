"""Where each file lives. No other module builds a path inside the workspace.

raw/Dataset004_Name/                      what the user brings (see `dataset`)
preprocessed/Dataset004_Name/
    fingerprint.json  plan.json  splits.json
    fingerprint_parts/                    while the fingerprint is taken: what is known of each case (see `inspection`)
    3d_fullres/                           preprocessed cases (see `data.store`)
    NAME/plan.json  NAME/3d_fullres/      the same of a plan that was given a name
results/Dataset004_Name/
    best.json                             which of the configurations predict together (see `models.best_model`)
    NAME/3d_fullres/  NAME/best.json      the same of a plan that was given a name
    ensembles/2d+3d_fullres/              held-out cases segmented by two of them together, summary.json, summary.csv
results/Dataset004_Name/3d_fullres/       a model folder: all that prediction needs
    postprocessing.json  training_statistics.json  summary.json  summary.csv  mlflow/
    fold_0/
        checkpoint.pt  progress.csv  progress.jsonl  progress.png  tensorboard/
        stop                              asks the run that trains this fold to end
        validation/                       CASE.nii.gz, summary.json, summary.csv, overlay_*.png
models/NAME/                              an installed model (see `bundle`)
    MODEL_CARD.md  3d_fullres/            what it is; its model folders, and best.json if there are several
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.errors import DatasetError, UsageError
from autoseg.runtime.lock import FILE_NAME as LOCK_NAME

FOLDER_NAME = re.compile(r"^Dataset(\d{3})_([A-Za-z0-9][\w.-]*)\Z")

ENSEMBLES = "ensembles"
CHECKPOINT = "checkpoint.pt"
PLAN_NAME = re.compile(r"^[A-Za-z][\w-]{0,40}\Z", re.ASCII)
MODEL_NAME = re.compile(r"^[A-Za-z][\w-]{0,60}\Z", re.ASCII)

Fold = int | str
"""A fold's number, or "all" for a model that is trained on every case. Users may say "cv" for each number."""


def list_folds(folds: Fold | Sequence[Fold]) -> list[Fold]:
    """One fold, or several, as a list."""
    return [folds] if isinstance(folds, int | str) else list(folds)


def checkpoint_file(fold: Path) -> Path:
    """Returns the path of the checkpoint in the folder of a fold, wherever that folder is."""
    return fold / CHECKPOINT


def overlay_name(rank: str) -> str:
    """Returns the file name of the picture of the "worst" or of the "median" held-out case."""
    return f"overlay_{rank}.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """The folder of one trained configuration, in a workspace or copied anywhere else; or the folder of several.

    In the folder of several, best.json says which of them predict.
    """

    path: Path

    @property
    def best_model(self) -> Path:
        """In a folder of several configurations: which of them predict together."""
        return self.path / "best.json"

    def member(self, configuration: str) -> "ModelFolder":
        """In a folder of several configurations: the folder of one."""
        return ModelFolder(path=self.path / configuration)

    @property
    def postprocessing(self) -> Path:
        """The rules that were found on the held-out cases."""
        return self.path / "postprocessing.json"

    @property
    def training_statistics(self) -> Path:
        """The ranges of the training cases, which images to segment are compared with."""
        return self.path / "training_statistics.json"

    @property
    def old_training_statistics(self) -> Path:
        """The same file by the name that version 0.1 gave it; read, and written no more."""
        return self.path / "expectation.json"

    def fold(self, fold: Fold) -> Path:
        """The folder of one fold."""
        return self.path / f"fold_{fold}"

    def checkpoint(self, fold: Fold) -> Path:
        """Weights and all that rebuilds them."""
        return checkpoint_file(self.fold(fold))

    def progress(self, fold: Fold, ending: str) -> Path:
        """The record of a training run: "csv" and "jsonl" for tools, "png" for eyes."""
        return self.fold(fold) / f"progress.{ending}"

    def stop_file(self, fold: Fold) -> Path:
        """What, once it is there, asks the run that trains this fold to end."""
        return self.fold(fold) / "stop"

    def tensorboard(self, fold: Fold) -> Path:
        """What TensorBoard reads, if it was asked for."""
        return self.fold(fold) / "tensorboard"

    def mlflow_run(self, fold: Fold) -> Path:
        """Under which id MLflow knows this fold, if it was asked for."""
        return self.fold(fold) / "mlflow_run.txt"

    @property
    def mlflow(self) -> Path:
        """What MLflow stores of all folds, if it was asked for and has no server."""
        return self.path / "mlflow"

    def validation(self, fold: Fold) -> Path:
        """Segmentations of the held-out cases, their summary and pictures."""
        return self.fold(fold) / "validation"

    def overlay(self, fold: Fold, rank: str) -> Path:
        """Returns the path of the picture of the "worst" or of the "median" held-out case of a fold."""
        return self.validation(fold) / overlay_name(rank)

    def trained_folds(self) -> list[Fold]:
        """Folds that have a checkpoint: numbers in order, then "all"."""
        return self._folds_with(CHECKPOINT)

    def running_folds(self) -> list[Fold]:
        """Folds that a run holds; after `kill -9` also the one that it held. See `lock`."""
        return self._folds_with(LOCK_NAME)

    def _folds_with(self, file: str) -> list[Fold]:
        names = [path.parent.name.removeprefix("fold_") for path in self.path.glob(f"fold_*/{file}")]
        numbers: list[Fold] = sorted(int(name) for name in names if name.isdigit())
        return numbers + [name for name in names if name == "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFolders:
    """The three places of one dataset, as one of its plans sees them.

    Attributes:
        raw: What the user brings.
        preprocessed: Facts and splits, which all plans share, and what was decided and prepared.
        results: Trained models.
        plan_name: Of a plan that stands beside the usual one, and keeps its cases and models in folders of its name.
    """

    raw: Path
    preprocessed: Path
    results: Path
    plan_name: str | None = None

    @property
    def fingerprint(self) -> Path:
        """What the data look like."""
        return self.preprocessed / "fingerprint.json"

    @property
    def nnunet_fingerprint(self) -> Path:
        """The same, as nnU-Net found it."""
        return self.preprocessed / "dataset_fingerprint.json"

    @property
    def fingerprint_parts(self) -> Path:
        """What is known of each case until the fingerprint is complete."""
        return self.preprocessed / "fingerprint_parts"

    def fingerprint_part(self, case: str) -> Path:
        """Returns the path of what is known of one case until the fingerprint is complete."""
        return self.fingerprint_parts / f"{case}.npz"

    @property
    def crash_log(self) -> Path:
        """Which cases are being prepared; see `runtime.crash_log`."""
        return self.preprocessed / ".in_work"

    @property
    def plan(self) -> Path:
        """What was decided."""
        return self.preprocessed / (self.plan_name or "") / "plan.json"

    @property
    def replaced_plan(self) -> Path:
        """The plan that the present one replaced."""
        return self.plan.with_name("plan_before.json")

    @property
    def splits(self) -> Path:
        """Which cases are held out in which fold."""
        return self.preprocessed / "splits.json"

    @property
    def plan_option(self) -> str:
        """What a command that is advised must add to mean the same plan: " --plan NAME", or nothing."""
        return "" if self.plan_name is None else f" --plan {self.plan_name}"

    @property
    def models(self) -> Path:
        """The trained configurations."""
        return self.results / (self.plan_name or "")

    @property
    def best_model(self) -> Path:
        """Which of the trained configurations predict together."""
        return ModelFolder(path=self.models).best_model

    def ensemble(self, name: str) -> Path:
        """Held-out cases, segmented by several configurations together, and their summary.

        Args:
            name: "2d+3d_fullres", or "2d+NAME/3d_fullres" if one is of a plan with a name, whose folder has a dot
                for the slash.
        """
        return self.models / ENSEMBLES / name.replace("/", ".")

    @property
    def named_plans(self) -> list[str]:
        """The plans that stand beside the usual one."""
        paths = self.preprocessed.glob("*/plan.json")
        return sorted(path.parent.name for path in paths if PLAN_NAME.match(path.parent.name))

    def with_plan(self, name: str | None) -> "DatasetFolders":
        """The folders as the plan of this name sees them; None for the usual plan.

        Raises:
            UsageError: The name cannot be one of a folder, or is taken.
        """
        if name is not None and (not PLAN_NAME.match(name) or name in (self.fingerprint_parts.name, ENSEMBLES)):
            raise UsageError(
                f"{name!r} cannot be the name of a plan",
                "take a letter, followed by at most 40 letters, digits, '_' and '-'",
            )
        return replace(self, plan_name=name)

    def cases(self, configuration: str) -> Path:
        """The preprocessed cases of one configuration."""
        return self.preprocessed / (self.plan_name or "") / configuration

    def model(self, configuration: str) -> ModelFolder:
        """The trained folds of one configuration."""
        return ModelFolder(path=self.models / configuration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A folder with raw data, preprocessed data and results."""

    root: Path

    @property
    def raw(self) -> Path:
        """All raw datasets."""
        return self.root / "raw"

    @property
    def preprocessed(self) -> Path:
        """What was found, decided and prepared, per dataset."""
        return self.root / "preprocessed"

    @property
    def results(self) -> Path:
        """All trained models."""
        return self.root / "results"

    @property
    def models(self) -> Path:
        """All models that others passed on."""
        return self.root / "models"

    def installed(self, name: str) -> Path:
        """The place of an installed model, whether it is there or not.

        Raises:
            UsageError: The name cannot be one of a folder.
        """
        if not MODEL_NAME.match(name):
            raise UsageError(
                f"{name!r} cannot be the name of a model",
                "take a letter, followed by at most 60 letters, digits, '_' and '-'",
            )
        return self.models / name

    def dataset(self, number: int, plan: str | None = None) -> DatasetFolders:
        """The folders of the dataset with this number, as the plan of this name sees them.

        Raises:
            DatasetError: There is none, or there are several.
            UsageError: There can be no plan of this name.
        """
        names = self.names(number)
        if not names:
            present = ", ".join(sorted(path.name for path in self.raw.glob("Dataset*_*"))) or "no dataset at all"
            raise DatasetError(
                f"no dataset {number} in {self.raw} (there: {present})",
                f"make one with 'autoseg import SOURCE -d {number}', or point to another workspace with -w",
            )
        if len(names) > 1:
            raise DatasetError(f"{self.raw} holds {' and '.join(names)}", "rename or remove all but one")
        return self.folders(names[0]).with_plan(plan)

    def names(self, number: int) -> list[str]:
        """Names of the raw datasets with this number."""
        if not self.raw.is_dir():
            return []
        matches = ((path.name, FOLDER_NAME.match(path.name)) for path in self.raw.iterdir() if path.is_dir())
        return sorted(name for name, match in matches if match and int(match[1]) == number)

    def folders(self, name: str) -> DatasetFolders:
        """The folders of a dataset by its full name, whether they exist or not."""
        return DatasetFolders(raw=self.raw / name, preprocessed=self.preprocessed / name, results=self.results / name)


def dataset_of(model: Path) -> DatasetFolders | None:
    """The folders of the dataset whose results a folder is among; None if it was copied elsewhere."""
    for folder in (model.resolve(), *model.resolve().parents):
        if FOLDER_NAME.match(folder.name) and folder.parent.name == "results":
            return Workspace(root=folder.parent.parent).folders(folder.name)
    return None


def dataset_folder_name(number: int, name: str) -> str:
    """The folder name of a dataset: "Dataset004_Hippocampus" for 4 and "Hippocampus".

    Raises:
        UsageError: The number or the name cannot be part of a folder name.

    Example:
        >>> dataset_folder_name(4, "Hippocampus")
        'Dataset004_Hippocampus'
    """
    folder = f"Dataset{number:03d}_{name}"
    if not 0 < number < 1000 or not FOLDER_NAME.match(folder):
        raise UsageError(
            f"number {number} and name {name!r} do not make a dataset name",
            "take a number from 1 to 999 and a name of letters, digits, '_' and '-'",
        )
    return folder


def find_workspace(path: str | os.PathLike[str] | None = None) -> Workspace:
    """The workspace that a user means: the path given, else AUTOSEG_WORKSPACE, else the current folder."""
    return Workspace(root=Path(path or os.environ.get("AUTOSEG_WORKSPACE") or Path.cwd()))
