"""TensorBoard and MLflow record each epoch; the real packages are used if installed, and fakes in any case."""

import builtins
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
from small_models import small_plan

from autoseg.errors import UsageError
from autoseg.training.monitoring.progress import EpochReport
from autoseg.training.monitoring.tracking import TRACKER_NAMES, TrackedFold, find_trackers
from autoseg.workspace import ModelFolder

NAN = math.nan


def report_of(epoch):
    """Returns a report with a label in another script, an undefined one, and no GPU."""
    return EpochReport(
        epoch=epoch,
        training_loss=1.0 - epoch / 10,
        validation_loss=1.5,
        pseudo_dice={"脾臓": 0.25 + epoch / 10, 'a, "b"': NAN},
        learning_rate=0.01,
        seconds=2.0,
        elapsed_seconds=2.0 * (epoch + 1),
        patches_per_second=12.5,
        waiting_share=0.1,
    )


def fold_in(root, epochs_done=0):
    """Returns fold 2 of a model."""
    model = ModelFolder(path=root / "3d_fullres")
    model.fold(2).mkdir(parents=True, exist_ok=True)
    return TrackedFold(
        dataset="Dataset001_Tiny", model=model, fold=2, settings=small_plan().training, epochs_done=epochs_done
    )


def track(name, root, epochs, *, finished=True):
    """Logs some epochs in one run, and returns the fold."""
    fold = fold_in(root, epochs_done=epochs.start)
    tracker = find_trackers([name])[name](fold)
    for epoch in epochs:
        tracker.log(report_of(epoch))
    tracker.close(finished=finished)
    return fold


def test_names_are_those_that_can_be_chosen():
    """Any other name is refused, with a list of the trackers."""
    assert find_trackers([]) == {}
    with pytest.raises(UsageError, match="there is no log 'wandb'; choose from tensorboard, mlflow"):
        find_trackers(["wandb"])


@pytest.mark.parametrize("name", TRACKER_NAMES)
def test_missing_package_is_one_line(name, monkeypatch):
    """The line says how to install it."""
    real_import = builtins.__import__

    def refuse(module, *rest):
        if module.split(".")[0] == name or module == "torch.utils.tensorboard":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(module, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError) as raised:
        find_trackers([name])
    assert str(raised.value) == f"--log {name} needs the package {name}; pip install 'autoseg[track]'"


@pytest.mark.filterwarnings("default")  # those of the library are its own
def test_tensorboard_shows_every_epoch_once(tmp_path):
    """Undefined numbers are left out; epochs that were lost in a stop come from the second run."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", tmp_path, range(3), finished=False)
    fold = track("tensorboard", tmp_path, range(2, 4))
    events = EventAccumulator(str(fold.model.tensorboard(2)))
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("pseudo_dice/脾臓")]
    assert scalars == [(epoch, pytest.approx(0.25 + epoch / 10)) for epoch in range(4)]
    names = set(events.Tags()["scalars"])
    assert {"training_loss", "validation_loss", "mean_pseudo_dice", "learning_rate", "patches_per_second"} <= names
    assert not names & {"device_memory_bytes", 'pseudo_dice/a, "b"', "pseudo_dice/a_ _b_"}
    assert [name for name in names if name.startswith("pseudo_dice/")] == ["pseudo_dice/脾臓"]


@pytest.mark.filterwarnings("default")
@pytest.mark.timeout(120)
def test_mlflow_has_one_run_per_fold(tmp_path, monkeypatch):
    """It is in the model folder, with settings and curves; a fold that goes on continues its run."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy", reason="the slim form of mlflow has no database")
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    track("mlflow", tmp_path, range(2), finished=False)
    fold = track("mlflow", tmp_path, range(2, 3))
    assert {path.name for path in tmp_path.iterdir()} == {"3d_fullres"}  # nothing in the current folder
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{fold.model.mlflow / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("Dataset001_Tiny")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "3d_fullres fold 2"
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "2"
    history = client.get_metric_history(run.info.run_id, "pseudo_dice/脾臓")
    assert sorted((metric.step, metric.value) for metric in history) == [
        (epoch, pytest.approx(0.25 + epoch / 10)) for epoch in range(3)
    ]


class FakeWriter:
    """A fake of TensorBoard's writer."""

    def __init__(self, log_dir, purge_step):
        self.log_dir, self.purge_step, self.calls = log_dir, purge_step, []

    def __getattr__(self, name):
        return lambda *values: self.calls.append((name, *values))


def test_tensorboard_is_called_as_its_interface_says(tmp_path, monkeypatch):
    """The fake gets the folder, the lost epochs, the numbers, and a flush after each epoch."""
    writers = []

    def make(**options):
        writers.append(FakeWriter(**options))
        return writers[-1]

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = make
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    fold = track("tensorboard", tmp_path, range(1))
    track("tensorboard", tmp_path, range(5, 6))
    assert [(writer.log_dir, writer.purge_step) for writer in writers] == [
        (str(fold.model.fold(2) / "tensorboard"), None),
        (str(fold.model.fold(2) / "tensorboard"), 5),
    ]
    *scalars, flush, close = writers[1].calls
    assert ("add_scalar", "pseudo_dice/脾臓", 0.75, 5) in scalars
    assert ("add_scalar", "waiting_share", 0.1, 5) in scalars
    assert all(name == "add_scalar" and not math.isnan(value) for name, _, value, _ in scalars)
    assert (flush, close) == (("flush",), ("close",))


class FakeClient:
    """A fake of MLflow's client, which knows the runs of all fake clients."""

    uris: list[str]
    runs: dict[str, dict]

    def __init__(self, tracking_uri):
        self.uris.append(tracking_uri)

    def get_experiment_by_name(self, name):
        known = any(run["experiment"] == name for run in self.runs.values())
        return SimpleNamespace(experiment_id=name) if known else None

    def create_experiment(self, name, artifact_location):
        self.artifacts.append(artifact_location)
        return name

    def create_run(self, experiment_id, run_name):
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = {"experiment": experiment_id, "name": run_name, "metrics": [], "params": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id, status):
        if run_id not in self.runs:
            raise FakeMlflowError
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id, metrics=(), params=()):
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] += params

    def set_terminated(self, run_id, status):
        self.runs[run_id]["status"] = status


class FakeMlflowError(Exception):
    """A fake of MLflow's error."""


@pytest.fixture
def fake_mlflow(monkeypatch):
    """Replaces MLflow by a fake that remembers its calls."""
    module = ModuleType("mlflow")
    client = type("Client", (FakeClient,), {"uris": [], "runs": {}, "artifacts": []})
    module.MlflowClient = client
    module.exceptions = SimpleNamespace(MlflowException=FakeMlflowError)
    module.entities = SimpleNamespace(Param=lambda *values: values, Metric=lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # restored afterwards, as the tracker sets it
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return client


def test_mlflow_is_called_as_its_interface_says(tmp_path, fake_mlflow):
    """The fake gets a database in the model folder, one run for a resumed fold, and allowed names."""
    fold = track("mlflow", tmp_path, range(2), finished=False)
    assert fake_mlflow.runs["run0"]["status"] == "KILLED"
    track("mlflow", tmp_path, range(2, 3))
    folder = fold.model.mlflow.resolve()
    assert set(fake_mlflow.uris) == {f"sqlite:///{folder.as_posix()}/mlflow.db"}
    assert fake_mlflow.artifacts == [f"{folder.as_uri()}/artifacts"]
    [run] = fake_mlflow.runs.values()
    assert (run["experiment"], run["name"], run["status"]) == ("Dataset001_Tiny", "3d_fullres fold 2", "FINISHED")
    assert ("learning_rate", "0.01") in run["params"]
    assert [(value, step) for name, value, _, step in run["metrics"] if name == "pseudo_dice/脾臓"] == [
        (0.25, 0),
        (0.35, 1),
        (0.45, 2),
    ]


def test_mlflow_run_that_is_unknown_begins_anew(tmp_path, fake_mlflow):
    """A new run begins after the store was changed, and after --restart."""
    track("mlflow", tmp_path, range(2))
    fake_mlflow.runs["elsewhere"] = fake_mlflow.runs.pop("run0")
    track("mlflow", tmp_path, range(2, 3))
    track("mlflow", tmp_path, range(1))
    assert len(fake_mlflow.runs) == 3


def test_mlflow_server_is_used_if_it_is_named(tmp_path, fake_mlflow, monkeypatch):
    """Then nothing is stored in the model folder, and the server decides where artifacts are."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.hospital:5000")
    fold = track("mlflow", tmp_path, range(1))
    assert fake_mlflow.uris == ["http://mlflow.hospital:5000"]
    assert fake_mlflow.artifacts == [None]
    assert not fold.model.mlflow.exists()


def test_mlflow_gets_only_signs_that_it_takes(tmp_path, fake_mlflow):
    """Quotation marks and commas in the name of a label become underscores."""
    fold = fold_in(tmp_path)
    tracker = find_trackers(["mlflow"])["mlflow"](fold)
    tracker.log(EpochReport.from_dict({**report_of(0).to_dict(), "pseudo_dice": {'a, "b"': 0.5}}))
    assert "pseudo_dice/a_ _b_" in {name for name, *_ in fake_mlflow.runs["run0"]["metrics"]}
