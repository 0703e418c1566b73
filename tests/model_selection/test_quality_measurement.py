"""What each quality of prediction costs: measured on held-out cases, passed on, and shown in the model card."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from tiny_workspaces import NUMBER, folders_of
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.errors import ArtifactError, ModelError, UsageError
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.models.bundle_format import CARD
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.models.quality_costs import QualityCosts, load_quality_costs

MEMBER = "3d_fullres"


@pytest.fixture(scope="module")
def measured(trained_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained workspace whose qualities are measured by the command, and the bundle beside it."""
    root = tmp_path_factory.mktemp("measured")
    shutil.copytree(trained_volumes, root / "workspace")
    output = root / "tiny.zip"
    words = ["export", "-d", str(NUMBER), "-o", str(output), "--measure-quality", "--device", "cpu"]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, [*words, "-w", str(root / "workspace")], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert "balanced" in done.output
    return root


def read(bundle: Path, name: str) -> str:
    """A text in a bundle."""
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name).decode()


def test_best_is_what_validation_found(measured: Path) -> None:
    """The Dice of the cases that folds 0 and 1 held out; the other qualities take their share of its work."""
    folder = folders_of(measured / "workspace").model(MEMBER)
    costs = load_quality_costs(folder)
    summary = Summary.load(summary_file(folder.path))
    assert costs is not None
    assert costs.cases == len(summary.cases) == 2
    assert costs.weights.keys() == {"0", "1"}
    for label, mean in summary.mean.items():
        assert costs.qualities["best"].dice[label] == pytest.approx(mean.dice, abs=2e-3)
    assert list(costs.qualities) == ["fast", "balanced", "best"]
    assert costs.share_of_work("balanced") == 0.25
    assert costs.share_of_work("fast") <= 0.125


def test_card_shows_it_and_the_bundle_holds_it(measured: Path, tmp_path: Path) -> None:
    """Without names of cases; the installed model can be passed on with it."""
    card = read(measured / "tiny.zip", CARD)
    assert "## What less work costs" in card
    assert f"| {MEMBER} | balanced | 2 |" in card
    content = json.loads(read(measured / "tiny.zip", f"{MEMBER}/quality_costs.json"))
    assert "case_" not in json.dumps(content)
    installed = autoseg.install_model(measured / "tiny.zip", tmp_path)
    again = autoseg.export_model(installed, tmp_path / "again.zip")
    assert json.loads(read(again, f"{MEMBER}/quality_costs.json")) == content
    exported = autoseg.export_model(NUMBER, tmp_path / "onnx.zip", runtime="onnx", workspace=measured / "workspace")
    assert "## What less work costs" in read(exported, CARD)


def test_costs_of_other_weights_are_left_out(measured: Path, tmp_path: Path) -> None:
    """A fold that was trained on is another model."""
    shutil.copytree(measured / "workspace", tmp_path / "workspace")
    folder = folders_of(tmp_path / "workspace").model(MEMBER)
    checkpoint = load_checkpoint(folder.checkpoint(0))
    next(iter(checkpoint.weights.values())).add_(1)
    save_checkpoint(checkpoint, folder.checkpoint(0))
    other = autoseg.export_model(NUMBER, tmp_path / "other.zip", workspace=tmp_path / "workspace")
    assert "What less work costs" not in read(other, CARD)


def test_a_model_without_held_out_cases_is_refused(measured: Path, tmp_path: Path) -> None:
    """Fold "all", and a model from elsewhere."""
    folder = folders_of(measured / "workspace").model(MEMBER)
    with pytest.raises(ModelError, match="no fold with held-out cases"):
        autoseg.measure_quality(folder.path, folds="all", device="cpu")
    installed = autoseg.install_model(measured / "tiny.zip", tmp_path)
    with pytest.raises(UsageError, match="no folder among the results of a dataset"):
        autoseg.measure_quality(installed, device="cpu")
    with pytest.raises(UsageError, match="no folder among the results of a dataset"):
        autoseg.measure_quality(measured / "tiny.zip", device="cpu")


@pytest.mark.parametrize("options", [["--device", "cpu"], ["--measure-quality", "--format", "nnunet"]])
def test_options_that_would_do_nothing_are_refused(options: list[str], measured: Path, tmp_path: Path) -> None:
    """In one line, before the work."""
    words = ["export", "-d", str(NUMBER), "-o", str(tmp_path / "x.zip"), "-w", str(measured / "workspace"), *options]
    done = CliRunner(env={"COLUMNS": "500"}).invoke(app, words)
    assert done.exit_code == 2
    assert "--measure-quality" in done.output
    assert not any(tmp_path.iterdir())


def test_a_strangers_file_is_checked(measured: Path) -> None:
    """Without the quality that others are compared with, or with other labels in one of them, it is damaged."""
    costs = load_quality_costs(folders_of(measured / "workspace").model(MEMBER))
    content = json.loads(costs.to_json())
    lacks_best = {**content, "qualities": {"fast": content["qualities"]["fast"]}}
    other = {**content["qualities"]["fast"], "dice": {"tail": 0.5}}
    other_labels = {**content, "qualities": {**content["qualities"], "fast": other}}
    for damaged in (lacks_best, other_labels):
        with pytest.raises(ArtifactError, match="qualities must"):
            QualityCosts.parse(json.dumps(damaged), source="quality_costs.json")
