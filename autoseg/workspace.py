"""The paths of all files in a workspace; no other module builds a path inside it.

raw/Dataset004_Name/                      the user's data (see `datasets.dataset`)
preprocessed/Dataset004_Name/
    fingerprint.json  plan.json  splits.json  data.html
    fingerprint_parts/                    measurements of each case until fingerprint.json is complete
    3d_fullres/                           prepared cases (see `preprocessing.store`)
    NAME/plan.json  NAME/3d_fullres/      the same for a plan that has a name
    NAME/soft_predictions/fold_0/         what a student learns (see `preprocessing.soft_predictions`); NAME/unlabelled/
results/Dataset004_Name/
    best.json                             the configurations that predict together (see `models.best_model`)
    model.html                            a page that shows how good they are (see `report.model_report`)
    NAME/3d_fullres/  NAME/best.json      the same for a plan that has a name
    ensembles/2d+3d_fullres/              held-out cases segmented by both together, summary.json, summary.csv
results/Dataset004_Name/3d_fullres/       a model folder: all that prediction needs
    postprocessing.json  training_statistics.json  calibration.json  quality_costs.json
    summary.json  summary.csv  mlflow/
    unlabelled/                           scans without labels, segmented by all folds
    fold_0/
        network.onnx  network.json        in place of checkpoint.pt, in models that were exported for other runtimes
        checkpoint.pt  progress.csv  progress.jsonl  progress.png  tensorboard/
        stop                              asks the run that trains this fold to end
        .validating/                      held-out cases that are segmented so far, until all of them are
        validation/                       CASE.nii.gz, summary.json, summary.csv, overlay_*.png, calibration_voxels/
jobs/Dataset004_Name/                     of each job that was run by --on: its log, and a record of what happened to it
    NAME/                                 the same for a plan that has a name
jobs/predictions/                         the same for predictions by a model that is named by --model
cluster.json                              the resources that jobs ask a cluster for (see `cluster.settings`)
runs/Dataset004/                          what `autoseg run` remembers of the dataset with this number
    run.json  stop                        its options (see `pipeline.run_record`); asks it to end
models/NAME/                              an installed model (see `models.bundle`)
    MODEL_CARD.md  3d_fullres/            its description; its model folders, and best.json if there are several

Files that also occur in folders of the user, such as dataset.json and summary.json, have a function for their path in
the module that reads and writes them.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from autoseg.errors import DatasetError, UsageError
from autoseg.runtime.lock import FILE_NAME as LOCK_NAME
from autoseg.runtime.paths import as_path

FOLDER_NAME = re.compile(r"^Dataset(\d{3})_([A-Za-z0-9][\w.-]*)\Z")

ENSEMBLES = "ensembles"
CHECKPOINT = "checkpoint.pt"
EXPORTED_NETWORK = "network.onnx"
EXPORTED_FOLD = "network.json"
PLAN_NAME = re.compile(r"^[A-Za-z][\w-]{0,40}\Z", re.ASCII)
MODEL_NAME = re.compile(r"^[A-Za-z][\w-]{0,60}\Z", re.ASCII)

Fold = int | str
"""Number of a fold, or "all" for a model that is trained on every case; "cv" stands for each number in options."""


def list_folds(folds: Fold | Sequence[Fold]) -> list[Fold]:
    """Returns one fold, or several, as a list.

    Raises:
        UsageError: They are neither numbers nor names.
    """
    try:
        return [folds] if isinstance(folds, int | str) else list(folds)
    except TypeError as error:
        raise UsageError(f"{folds!r} is no fold", "take numbers such as 0, 'cv' for all of them, or 'all'") from error


def checkpoint_file(fold: Path) -> Path:
    """Returns the path of the checkpoint in the folder of a fold, wherever that folder is."""
    return fold / CHECKPOINT


def overlay_name(rank: str) -> str:
    """Returns the file name of the picture of the "worst" or of the "median" held-out case."""
    return f"overlay_{rank}.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """The folder of one trained configuration, in a workspace or anywhere else; or the folder of several.

    In the folder of several, best.json states which of them predict.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def best_model(self) -> Path:
        """The file best.json of a folder of several configurations: states which of them predict together."""
        return self.path / "best.json"

    def member(self, configuration: str) -> "ModelFolder":
        """Returns the folder of one configuration in a folder of several."""
        return ModelFolder(path=self.path / configuration)

    @property
    def postprocessing(self) -> Path:
        """The file of the postprocessing rules that improve the held-out cases."""
        return self.path / "postprocessing.json"

    @property
    def unlabelled(self) -> Path:
        """The folder of segmentations of scans without labels, by all folds; see `model_selection.unlabelled_scans`."""
        return self.path / "unlabelled"

    @property
    def training_statistics(self) -> Path:
        """The file of statistics of the training cases, which new images are compared with."""
        return self.path / "training_statistics.json"

    @property
    def calibration(self) -> Path:
        """The file of the temperatures by which the logits of probabilities are divided; see `models.calibration`."""
        return self.path / "calibration.json"

    @property
    def quality_costs(self) -> Path:
        """The file of what each quality of prediction costs, if it was measured; see `models.quality_costs`."""
        return self.path / "quality_costs.json"

    @property
    def old_training_statistics(self) -> Path:
        """The name of this file in version 0.1; it is read, but no longer written."""
        return self.path / "expectation.json"

    def fold(self, fold: Fold) -> Path:
        """Returns the folder of one fold."""
        return self.path / f"fold_{fold}"

    def checkpoint(self, fold: Fold) -> Path:
        """Returns the path of the checkpoint of one fold: its weights, and all that is needed to use them."""
        return checkpoint_file(self.fold(fold))

    def progress(self, fold: Fold, ending: str) -> Path:
        """Returns the path of the training log of one fold: "csv" and "jsonl" for programs, "png" for people."""
        return self.fold(fold) / f"progress.{ending}"

    def stop_file(self, fold: Fold) -> Path:
        """Returns the path of the file whose presence asks the run that trains this fold to end."""
        return self.fold(fold) / "stop"

    def tensorboard(self, fold: Fold) -> Path:
        """Returns the folder of the TensorBoard logs of one fold."""
        return self.fold(fold) / "tensorboard"

    def mlflow_run(self, fold: Fold) -> Path:
        """Returns the path of the file that holds the id of the MLflow run of this fold."""
        return self.fold(fold) / "mlflow_run.txt"

    @property
    def mlflow(self) -> Path:
        """The folder in which MLflow stores the runs of all folds if it has no server."""
        return self.path / "mlflow"

    def validation(self, fold: Fold) -> Path:
        """Returns the folder of the segmentations of the held-out cases, their summary and pictures."""
        return self.fold(fold) / "validation"

    def unfinished_validation(self, fold: Fold) -> Path:
        """Returns the folder of the held-out cases that are segmented so far, until all of them are."""
        return self.fold(fold) / ".validating"

    def overlay(self, fold: Fold, rank: str) -> Path:
        """Returns the path of the picture of the "worst" or of the "median" held-out case of a fold."""
        return self.validation(fold) / overlay_name(rank)

    def exported_network(self, fold: Fold) -> Path:
        """Returns the path of the network of a fold that was exported for a runtime other than torch."""
        return self.fold(fold) / EXPORTED_NETWORK

    def exported_fold(self, fold: Fold) -> Path:
        """Returns the path of the description of a fold whose network was exported."""
        return self.fold(fold) / EXPORTED_FOLD

    def trained_folds(self) -> list[Fold]:
        """Returns the folds that have a checkpoint or an exported network: numbers in order, then "all"."""
        return self._folds_with(CHECKPOINT, EXPORTED_NETWORK)

    def running_folds(self) -> list[Fold]:
        """Returns the folds that a run has locked, including one whose run was killed; see `runtime.lock`."""
        return self._folds_with(LOCK_NAME)

    def _folds_with(self, *files: str) -> list[Fold]:
        paths = {path.parent for file in files for path in self.path.glob(f"fold_*/{file}")}
        names = [path.name.removeprefix("fold_") for path in paths]
        numbers: list[Fold] = sorted(int(name) for name in names if name.isdigit())
        return numbers + [name for name in names if name == "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFolders:
    """The three folders of one dataset, for one of its plans.

    Attributes:
        raw: Folder of the user's data.
        preprocessed: Folder of the fingerprint and the splits, which all plans share, of the plans, and of the prepared
            cases.
        results: Folder of the trained models.
        plan_name: Name of a plan beside the usual one, whose cases and models are in folders of this name; None for the
            usual plan.
    """

    raw: Path
    preprocessed: Path
    results: Path
    plan_name: str | None = None

    @property
    def number(self) -> int:
        """The number of the dataset.

        Example:
            >>> Workspace(root=Path()).folders("Dataset004_Hippocampus").number
            4
        """
        return int(self.results.name.removeprefix("Dataset").partition("_")[0])

    @property
    def fingerprint(self) -> Path:
        """The file of the fingerprint that this program took."""
        return self.preprocessed / "fingerprint.json"

    @property
    def nnunet_fingerprint(self) -> Path:
        """The file of the fingerprint that nnU-Net took."""
        return self.preprocessed / "dataset_fingerprint.json"

    @property
    def fingerprint_parts(self) -> Path:
        """The folder of the measurements of each case until the fingerprint is complete."""
        return self.preprocessed / "fingerprint_parts"

    def fingerprint_part(self, case: str) -> Path:
        """Returns the path of the measurements of one case until the fingerprint is complete."""
        return self.fingerprint_parts / f"{case}.npz"

    @property
    def machine_speed(self) -> Path:
        """The file of the speed of the machine that planned without a CUDA GPU."""
        return self.preprocessed / "machine_speed.json"

    def crash_log(self, part: str | None = None) -> Path:
        """Returns the file that lists the cases that are being prepared; see `runtime.crash_log`.

        Args:
            part: Which part of the cases, such as "2/4"; None for all of them.
        """
        return self.preprocessed / (".in_work" if part is None else f".in_work_{part.replace('/', '_of_')}")

    @property
    def leases(self) -> Path:
        """The folder of the leases of runs that prepare cases together; see `runtime.leases`."""
        return self.preprocessed / (self.plan_name or "") / ".leases"

    @property
    def plan(self) -> Path:
        """The file of the plan."""
        return self.preprocessed / (self.plan_name or "") / "plan.json"

    @property
    def replaced_plan(self) -> Path:
        """The file of the plan that the present one replaced."""
        return self.plan.with_name("plan_before.json")

    @property
    def data_report(self) -> Path:
        """The page that shows the dataset, see `report.data_report`."""
        return self.preprocessed / "data.html"

    @property
    def model_report(self) -> Path:
        """The page that shows the trained configurations, see `report.model_report`."""
        return self.models / "model.html"

    @property
    def splits(self) -> Path:
        """The file of the folds."""
        return self.preprocessed / "splits.json"

    def splits_before(self, revision: int) -> Path:
        """Returns the path of the folds as they were before a revision of the dataset; see `datasets.revisions`."""
        return self.preprocessed / f"splits_before_revision_{revision}.json"

    @property
    def plan_option(self) -> str:
        """The option that selects this plan, for commands in messages: " --plan NAME", or empty for the usual plan."""
        return "" if self.plan_name is None else f" --plan {self.plan_name}"

    @property
    def models(self) -> Path:
        """The folder of the trained configurations of this plan."""
        return self.results / (self.plan_name or "")

    @property
    def best_model(self) -> Path:
        """The file best.json: states which of the trained configurations predict together."""
        return ModelFolder(path=self.models).best_model

    def ensemble(self, name: str) -> Path:
        """Returns the folder of held-out cases that several configurations segmented together, and their summary.

        Args:
            name: "2d+3d_fullres", or "2d+NAME/3d_fullres" if one belongs to a plan with a name; the folder has a dot
                in place of the slash.
        """
        return self.models / ENSEMBLES / name.replace("/", ".")

    @property
    def named_plans(self) -> list[str]:
        """The names of the plans beside the usual one."""
        paths = self.preprocessed.glob("*/plan.json")
        return sorted(path.parent.name for path in paths if PLAN_NAME.match(path.parent.name))

    def with_plan(self, name: str | None) -> "DatasetFolders":
        """Returns the folders for the plan of this name; None for the usual plan.

        Raises:
            UsageError: The name cannot be that of a folder, or is reserved.
        """
        if name is not None and (not PLAN_NAME.match(name) or name in (self.fingerprint_parts.name, ENSEMBLES)):
            raise UsageError(
                f"{name!r} cannot be the name of a plan",
                "take a letter, followed by at most 40 letters, digits, '_' and '-'",
            )
        return replace(self, plan_name=name)

    def cases(self, configuration: str) -> Path:
        """Returns the folder of the prepared cases of one configuration."""
        return self.preprocessed / (self.plan_name or "") / configuration

    def soft_predictions(self, fold: Fold) -> Path:
        """Returns the folder of the predictions of a teacher that the student of a fold learns from."""
        return self.plan.parent / "soft_predictions" / f"fold_{fold}"

    def soft_labels(self, fold: Fold) -> Path:
        """Returns the folder of the segmentations of unlabelled scans, by the teacher of a fold."""
        return self.soft_predictions(fold) / "labels"

    @property
    def unlabelled_cases(self) -> Path:
        """The folder of the prepared scans without labels that a student learns from as well."""
        return self.plan.parent / "unlabelled"

    def model(self, configuration: str) -> ModelFolder:
        """Returns the model folder of one configuration."""
        return ModelFolder(path=self.models / configuration)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The folder of what `autoseg run` remembers of a dataset, which may not be imported yet.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> Path:
        """The file of what was asked for, and of what has been read; see `pipeline.run_record`."""
        return self.path / "run.json"

    @property
    def stop_file(self) -> Path:
        """The file whose presence asks the run to end."""
        return self.path / "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A folder with raw data, preprocessed data and results.

    Attributes:
        root: The folder.

    Example:
        >>> folders = Workspace(root=Path("work")).folders("Dataset004_Hippocampus")
        >>> folders.model("3d_fullres").checkpoint(0).as_posix()
        'work/results/Dataset004_Hippocampus/3d_fullres/fold_0/checkpoint.pt'
    """

    root: Path

    @property
    def raw(self) -> Path:
        """The folder of all raw datasets."""
        return self.root / "raw"

    @property
    def preprocessed(self) -> Path:
        """The folder of the fingerprints, plans and prepared cases of all datasets."""
        return self.root / "preprocessed"

    @property
    def results(self) -> Path:
        """The folder of all trained models."""
        return self.root / "results"

    @property
    def models(self) -> Path:
        """The folder of all installed models."""
        return self.root / "models"

    @property
    def cluster_settings(self) -> Path:
        """The file of the resources that jobs ask a cluster for."""
        return self.root / "cluster.json"

    def run(self, number: int) -> "RunFolder":
        """Returns the folder of what `autoseg run` remembers of the dataset with this number."""
        return RunFolder(path=self.root / "runs" / f"Dataset{number:03d}")

    def jobs(self, dataset: str | None, plan: str | None = None) -> Path:
        """Returns the folder of the logs and records of jobs.

        Args:
            dataset: Name of the dataset; None for predictions by a model that belongs to none.
            plan: Name of a plan beside the usual one.
        """
        return self.root / "jobs" / (dataset or "predictions") / (plan or "")

    def installed(self, name: str) -> Path:
        """Returns the folder of an installed model, whether it exists or not.

        Raises:
            UsageError: The name cannot be that of a folder.
        """
        if not MODEL_NAME.match(name):
            raise UsageError(
                f"{name!r} cannot be the name of a model",
                "take a letter, followed by at most 60 letters, digits, '_' and '-'",
            )
        return self.models / name

    def dataset(self, number: int, plan: str | None = None) -> DatasetFolders:
        """Returns the folders of the dataset with this number, for the plan of this name.

        Raises:
            DatasetError: There is no such dataset, or several have this number.
            UsageError: A plan cannot have this name.
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
        """Returns the names of the raw datasets with this number."""
        if not self.raw.is_dir():
            return []
        matches = (
            (path.name, FOLDER_NAME.match(normalize("NFC", path.name))) for path in self.raw.iterdir() if path.is_dir()
        )
        return sorted(name for name, match in matches if match and int(match[1]) == number)

    def folders(self, name: str) -> DatasetFolders:
        """Returns the folders of a dataset by its full name, whether they exist or not."""
        return DatasetFolders(raw=self.raw / name, preprocessed=self.preprocessed / name, results=self.results / name)


def dataset_of(model: Path) -> DatasetFolders | None:
    """Returns the folders of the dataset whose results contain a model folder; None if it was copied elsewhere."""
    for folder in (model.resolve(), *model.resolve().parents):
        if FOLDER_NAME.match(folder.name) and folder.parent.name == "results":
            return Workspace(root=folder.parent.parent).folders(folder.name)
    return None


def dataset_folder_name(number: int, name: str) -> str:
    """Returns the folder name of a dataset: "Dataset004_Hippocampus" for 4 and "Hippocampus".

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
    """Returns the workspace at this path; by default at $AUTOSEG_WORKSPACE, else the current folder."""
    if path:
        return Workspace(root=as_path(path, "workspace"))
    return Workspace(root=Path(os.environ.get("AUTOSEG_WORKSPACE") or Path.cwd()))
