"""The jobs of a training, and of work that is done in parts: which there are, what each runs, what it waits for."""

import sys
from functools import cache
from pathlib import Path

import pytest
from phantoms import Listener, write_json
from planning_cases import golden_fingerprint, golden_info, plan_of
from typer.main import get_command

from autoseg.cli.app import app
from autoseg.cluster.array_jobs import PredictionJobsRequest, make_prediction_graph, name_prediction
from autoseg.cluster.graph import JobGraph
from autoseg.cluster.training_jobs import TrainingJobsRequest, make_training_graph
from autoseg.datasets.splits import Splits, make_splits
from autoseg.errors import UsageError
from autoseg.pipeline.array_jobs import PredictionOptions
from autoseg.pipeline.training_jobs import TrainingOptions
from autoseg.planning.plan import Plan
from autoseg.workspace import Workspace

NAME = "Dataset004_LiverCT"
SPLITS: Splits = make_splits([f"case_{number}" for number in range(10)])
PROGRAM = (sys.executable, "-m", "autoseg")


@cache
def ct_plan() -> Plan:
    """A plan with all four configurations."""
    return plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"))


def graph_of(root: Path, *names: str, folds=("cv",), listener=None, plan_name=None, **request) -> JobGraph:
    """The jobs that train configurations of the dataset in a workspace."""
    asked = TrainingJobsRequest(
        number=4, workspace=root, configurations=names, folds=folds, options=request.pop("options", {}), **request
    )
    folders = Workspace(root=root).folders(NAME).with_plan(plan_name)
    return make_training_graph(asked, folders, ct_plan(), SPLITS, listener or Listener())


def validate(root: Path, configuration: str, *folds: int) -> None:
    """Makes it look as if folds were validated."""
    for fold in folds:
        write_json(Workspace(root=root).folders(NAME).model(configuration).validation(fold) / "summary.json", {})


def test_each_fold_is_a_job_and_find_best_comes_after_all(tmp_path):
    """Of all configurations."""
    graph = graph_of(tmp_path, "3d_fullres", "2d")
    folds = [f"train_{name}_fold_{fold}" for name in ("3d_fullres", "2d") for fold in range(5)]
    assert [job.name for job in graph.jobs] == [*folds, "find_best", "report"]
    assert {job.after for job in graph.jobs[:-2]} == {()}
    assert [job.after for job in graph.jobs[-2:]] == [tuple(folds), ("find_best",)]
    workspace = f"--workspace={tmp_path}"
    assert graph.jobs[5].command == (
        *PROGRAM,
        *("train", "-d", "4", "-c", "2d", "-f", "0", "--device=auto", workspace),
    )
    assert graph.jobs[-2].command == (*PROGRAM, "find_best", "-d", "4", "--device=auto", workspace)
    assert graph.jobs[-1].command == (*PROGRAM, "report", "model", "-d", "4", workspace)
    assert graph.jobs[0].result == tmp_path / "results" / NAME / "3d_fullres/fold_0/validation/summary.json"
    assert graph.folder == tmp_path / "jobs" / NAME


def test_a_cascade_begins_after_its_coarse_network(tmp_path):
    """In whatever order they are named; fold all is of no use to it."""
    graph = graph_of(tmp_path, "3d_cascade_fullres", "3d_lowres", folds=("cv", "all"))
    coarse = tuple(f"train_3d_lowres_fold_{fold}" for fold in range(5))
    for job in graph.jobs:
        assert job.after == (coarse if "cascade" in job.name else job.after)
    assert graph.jobs[5].name == "train_3d_lowres_fold_all"
    assert graph.jobs[5].result is None
    assert "train_3d_lowres_fold_all" not in graph.jobs[-2].after


def test_what_is_trained_and_validated_is_left_out(tmp_path):
    """And said; a cascade waits for the others only."""
    listener = Listener()
    validate(tmp_path, "3d_lowres", 0, 1, 2)
    graph = graph_of(tmp_path, "3d_lowres", "3d_cascade_fullres", listener=listener)
    assert [job.name for job in graph.jobs[:2]] == ["train_3d_lowres_fold_3", "train_3d_lowres_fold_4"]
    assert graph.jobs[2].after == ("train_3d_lowres_fold_3", "train_3d_lowres_fold_4")
    assert listener.lines == ["3d_lowres: trained and validated already: fold 0, 1, 2"]
    validate(tmp_path, "3d_lowres", 3, 4)
    assert graph_of(tmp_path, "3d_cascade_fullres").jobs[0].after == ()
    best, report = graph_of(tmp_path, "3d_lowres").jobs
    assert (best.name, report.name) == ("find_best", "report")
    with pytest.raises(UsageError, match="all of these folds are trained"):
        graph_of(tmp_path, "3d_lowres", folds=(0,))


def test_a_cascade_that_could_not_begin_is_refused(tmp_path):
    """Before anything runs."""
    validate(tmp_path, "3d_lowres", 0, 1, 2)
    with pytest.raises(UsageError, match="needs all folds of 3d_lowres, and fold 3, 4 is not trained; add 3d_lowres"):
        graph_of(tmp_path, "3d_cascade_fullres", folds=(0,))


def test_single_folds_are_not_compared(tmp_path):
    """find_best needs all of them."""
    graph = graph_of(tmp_path, "2d", folds=(1, "all", 1), plan_name="Large")
    assert [job.name for job in graph.jobs] == ["train_2d_fold_1", "train_2d_fold_all"]
    assert graph.folder == tmp_path / "jobs" / NAME / "Large"
    assert "--plan=Large" in graph.jobs[0].command
    with pytest.raises(UsageError, match="no fold 5"):
        graph_of(tmp_path, "2d", folds=(5,))


def test_gpus_follow_from_the_options(tmp_path):
    """None on the CPU, several with --gpus; find_best takes one."""
    on_cpu = graph_of(tmp_path, "2d", device="cpu")
    assert {job.gpus for job in on_cpu.jobs} == {0}
    many = graph_of(tmp_path, "2d", gpus=4)
    assert [many.jobs[0].gpus, many.jobs[-2].gpus, many.jobs[-1].gpus] == [4, None, 0]
    assert "--gpus=4" in many.jobs[0].command


def options_of(command: str) -> set[str]:
    """All long options of a command."""
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    spellings = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    return {option for option in spellings if option.startswith("--")}


def test_jobs_get_every_option_of_train():
    """Those that a job cannot have are refused by name."""
    passed = set(TrainingOptions().list_arguments())
    own = {"--dataset", "--configuration", "--fold", "--device", "--gpus", "--plan", "--workspace"}
    refused = {"--restart", "--extend"}
    assert passed | own | refused | {"--on", "--print", "--help"} == options_of("train") | {"--help"}


def test_jobs_get_every_option_of_predict():
    """Likewise."""
    passed = set(PredictionOptions().list_arguments(Path("model")))
    own = {"--input", "--output", "--device", "--plan", "--workspace", "--continue", "--part"}
    assert passed | own | {"--parts", "--on", "--print", "--help"} == options_of("predict") | {"--help"}


def test_options_reach_the_command_line(tmp_path):
    """Paths are made absolute, because a job begins elsewhere."""
    options = TrainingOptions(epochs=3, init="model", freeze="encoder", log=("mlflow", "tensorboard"), augment_on="cpu")
    graph = graph_of(tmp_path, "2d", folds=(0,), options=options.list_arguments())
    given = [word for word in graph.jobs[0].command if word.startswith("--")]
    assert given[:6] == [
        "--epochs=3",
        f"--init={Path.cwd() / 'model'}",
        "--freeze=encoder",
        "--log=mlflow",
        "--log=tensorboard",
        "--augment-on=cpu",
    ]


def test_scans_are_segmented_by_an_array(tmp_path):
    """Which goes on after an interruption; two folders of results have jobs of two names."""
    options = PredictionOptions(
        number=4, folds=(0, "all"), probabilities=("a b",), mirroring=False, exact=True, runtime="onnx"
    )
    request = PredictionJobsRequest(
        source=tmp_path / "-scans",
        output=tmp_path / "my masks!",
        workspace=tmp_path,
        dataset=NAME,
        options=options.list_arguments(tmp_path),
        device="cpu",
        parts=7,
    )
    [job] = make_prediction_graph(request).jobs
    assert job.parts == 7
    assert job.command == (
        *(*PROGRAM, "predict", f"--input={tmp_path}/-scans", f"--output={tmp_path}/my masks!", "--dataset=4"),
        *("--fold=0", "--fold=all", "--probabilities=a b", "--no-mirroring", "--exact", "--runtime=onnx"),
        *("--device=cpu", f"--workspace={tmp_path}", "--continue"),
    )
    assert job.name == name_prediction(tmp_path / "my masks!") != name_prediction(tmp_path / "other" / "my masks!")
    assert name_prediction(Path("/\u65e5\u672c")).startswith("predict_")
