"""Trackers that record the numbers of each epoch on request: TensorBoard and MLflow. Neither is needed to train."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, get_args

from autoseg.errors import UsageError
from autoseg.planning.settings import TrainingSettings
from autoseg.training.monitoring.progress import EpochReport
from autoseg.workspace import Fold, ModelFolder

TrackerName = Literal["tensorboard", "mlflow"]
TRACKER_NAMES: tuple[TrackerName, ...] = get_args(TrackerName)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedFold:
    """The fold that a tracker records, as it is opened.

    Attributes:
        dataset: Name of the folder of the dataset.
        model: Folder of the model, for local files.
        fold: The fold of the model.
        settings: Settings of the training.
        epochs_done: Number of epochs that earlier runs trained.
    """

    dataset: str
    model: ModelFolder
    fold: Fold
    settings: TrainingSettings
    epochs_done: int


class Tracker(Protocol):
    """Records the numbers of each epoch."""

    def log(self, report: EpochReport) -> None:
        """Records one epoch, at once."""

    def close(self, *, finished: bool) -> None:
        """Ends the recording; `finished` tells whether the fold is trained to its end."""


OpenTracker = Callable[[TrackedFold], Tracker]


def find_trackers(names: Sequence[str]) -> dict[str, OpenTracker]:
    """Returns the functions that open trackers, by the names of the trackers.

    Raises:
        UsageError: There is no such tracker, or its package is not installed.
    """
    finders: dict[str, Callable[[], OpenTracker]] = {"tensorboard": _find_tensorboard, "mlflow": _find_mlflow}
    trackers: dict[str, OpenTracker] = {}
    for name in names:
        if name not in finders:
            raise UsageError(f"there is no log {name!r}", f"choose from {', '.join(TRACKER_NAMES)}")
        try:
            trackers[name] = finders[name]()
        except ImportError as error:
            raise UsageError(f"--log {name} needs the package {name}", "pip install 'autoseg[track]'") from error
    return trackers


def _find_tensorboard() -> OpenTracker:
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

    def open_tensorboard(fold: TrackedFold) -> Tracker:
        return _TensorBoard(SummaryWriter, fold)

    return open_tensorboard


class _TensorBoard:
    """Event files in the folder of the fold; if a run goes on, epochs that were lost are hidden."""

    def __init__(self, writer: Callable[..., Any], fold: TrackedFold) -> None:
        self._writer = writer(log_dir=str(fold.model.tensorboard(fold.fold)), purge_step=fold.epochs_done or None)

    def log(self, report: EpochReport) -> None:
        for name, value in report.scalars().items():
            self._writer.add_scalar(name, value, report.epoch)
        self._writer.flush()

    def close(self, *, finished: bool) -> None:  # noqa: ARG002 - event files do not say so
        self._writer.close()


def _find_mlflow() -> OpenTracker:
    # Decision: MLflow reports how it is used, which could disclose names of datasets.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # noqa: PLC0415 - an extra

    def open_mlflow(fold: TrackedFold) -> Tracker:
        return _MLflow(mlflow, fold)

    return open_mlflow


class _MLflow:
    """A run per fold, in an experiment per dataset: in MLFLOW_TRACKING_URI, else in a database in the model folder.

    A fold that goes on continues its run. All calls go through a client object, so a program that uses MLflow itself is
    not disturbed. Decision: a database, because MLflow no longer stores runs in plain files.
    """

    def __init__(self, mlflow: Any, fold: TrackedFold) -> None:
        self._mlflow = mlflow
        folder = fold.model.mlflow.resolve()
        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{(folder / 'mlflow.db').as_posix()}", (folder / "artifacts").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._run_id = self._continue(fold) or self._begin(fold, artifacts)

    def _continue(self, fold: TrackedFold) -> str | None:
        """Returns the id of the run of the fold, if there is one and the store knows it."""
        path = fold.model.mlflow_run(fold.fold)
        if not (fold.epochs_done and path.is_file()):
            return None
        run_id = path.read_text(encoding="utf-8").strip()
        with suppress(self._mlflow.exceptions.MlflowException):
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        return None

    def _begin(self, fold: TrackedFold, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(fold.dataset)
        experiment_id = experiment.experiment_id if experiment else None
        if experiment_id is None:
            experiment_id = self._client.create_experiment(fold.dataset, artifact_location=artifacts)
        run = self._client.create_run(experiment_id, run_name=f"{fold.model.path.name} fold {fold.fold}")
        run_id = str(run.info.run_id)
        settings = fold.settings.model_dump(mode="json")
        params = [self._mlflow.entities.Param(name, str(value)) for name, value in settings.items()]
        self._client.log_batch(run_id, params=params)
        fold.model.mlflow_run(fold.fold).write_text(run_id, encoding="utf-8")
        return run_id

    def log(self, report: EpochReport) -> None:
        now = int(datetime.now(UTC).timestamp() * 1000)
        metrics = [
            self._mlflow.entities.Metric(_allowed_name(name), value, now, report.epoch)
            for name, value in report.scalars().items()
        ]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._run_id, status="FINISHED" if finished else "KILLED")


def _allowed_name(name: str) -> str:
    """Returns a name with only the characters that MLflow allows: letters of any language, digits, and a few signs."""
    return "".join(sign if sign.isalnum() or sign in "_-. /" else "_" for sign in name)
