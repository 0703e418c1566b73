"""The commands, from scans to scores, as people type them."""

import re
import shlex

import pytest
from command_lines import find_command
from tiny_workspaces import NUMBER, edit_training, files_in, folders_of, plan_tiny, write_volumes
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import COMMANDS, app
from autoseg.cli.terminal import console
from autoseg.pipeline.doctor import Finding
from autoseg.planning.plan import Plan


@pytest.fixture(autouse=True)
def wide_and_quick(monkeypatch):
    """A console that breaks no line, and a fingerprint that takes no second."""
    monkeypatch.setattr(console, "_width", 200)
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000)


OF_THE_FOLDER = (".report/case_4.json", "dataset.json", "prediction.json", "report.csv")
"""What stands beside segmentations."""


def run(command: str, *, code: int = 0) -> str:
    """Runs a command and gives back what it printed."""
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_version_is_shown():
    """Alone, without a command."""
    assert run("--version") == f"autoseg {autoseg.__version__}\n"


def test_help_lists_every_command():
    """With the first sentence of each, and -h for --help."""
    text = run("--help")
    assert run("-h") == text
    for name, function in COMMANDS.items():
        first, *others = name.split()
        assert re.search(rf"^ +{first} +\S", text, re.MULTILINE), name
        assert not others or re.search(rf"^ +{others[0]} +\S", run(f"{first} --help"), re.MULTILINE), name
        assert function.__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_every_option(name):
    """Each option stands in the help, and has a text."""
    text = run(f"{name} --help")
    for option in find_command(name.split())[1].params:
        spellings = [name for name in option.opts if name.startswith("-")] or [option.metavar]
        assert all(spelling in text for spelling in spellings), option.name
        assert option.help, f"{name} {option.name} has no help"


@pytest.mark.slow
def test_from_scans_to_scores(tmp_path):
    """Import, check, plan, prepare, train two folds of 3D and one of 2D, go on, predict, evaluate."""
    source = write_volumes(tmp_path / "made", cases=3).raw
    where = f"-w {shlex.quote(str(tmp_path / 'my work'))}"
    folders = folders_of(tmp_path / "my work")
    assert "3 cases" in run(f"import {source} -d {NUMBER} --name Tiny {where}")
    assert "all sound" in run(f"check -d {NUMBER} {where}")

    output = run(f"plan_and_preprocess -d {NUMBER} -c 2d 3d_fullres --memory 4GB --preset small --explain {where}")
    plan = Plan.load(folders.plan)
    for sentence in plan.why:
        assert sentence in output
    assert f"autoseg train -d {NUMBER}" in output
    edit_training(tmp_path / "my work", steps_per_epoch=4, validation_steps=1)
    run(f"preprocess -d {NUMBER} -c 3d_fullres {where}")

    output = run(f"train -d {NUMBER} -c 3d_fullres -f 0 1 --epochs 2 --device cpu {where}")
    assert "fold 0: 2 cases" in output
    assert "fold 1: 2 cases" in output
    assert "mean foreground Dice 0." in output
    model = folders.model("3d_fullres")
    assert str(model.path) in output
    assert model.trained_folds() == [0, 1]
    again = run(f"train -d {NUMBER} -c 3d_fullres -f 0 1 --device cpu {where}")
    assert again.count("is trained to its end") == 2

    masks = tmp_path / "masks"
    scans = folders.raw / "imagesTr"
    output = run(
        f"predict -i {shlex.quote(str(scans))} -o {masks} -m {shlex.quote(str(model.path))} -f 0 1 --device cpu"
    )
    assert "3 segmentations" in output
    assert "in a browser" not in output  # it is no terminal
    output = run(f"evaluate {shlex.quote(str(folders.raw / 'labelsTr'))} {masks}")
    assert all(f"case_{number}" in output for number in (1, 2, 3))
    assert (masks / "summary.csv").is_file()


def test_folds_cv_are_those_of_the_dataset(tmp_path):
    """Two cases make two folds."""
    folders = write_volumes(tmp_path, cases=2)
    plan_tiny(tmp_path, epochs=1)
    output = run(f"train -d {NUMBER} -c 2d -f cv --device cpu -w {tmp_path}")
    assert folders.model("2d").trained_folds() == [0, 1]
    assert "case_1" in output
    assert "case_2" in output
    output = run(f"train -d {NUMBER} -c 2d -f all --device cpu -w {tmp_path}")
    assert "mean foreground" not in output
    assert folders.model("2d").trained_folds() == [0, 1, "all"]


def test_workspace_may_come_from_the_environment(trained_volumes, tmp_path, monkeypatch):
    """AUTOSEG_WORKSPACE, or the current folder."""
    monkeypatch.setenv("AUTOSEG_WORKSPACE", str(trained_volumes))
    scans = folders_of(trained_volumes).raw / "imagesTs"
    assert "1 segmentation:" in run(f"predict -i {scans} -o {tmp_path / 'one'} -d {NUMBER} --device cpu")
    monkeypatch.delenv("AUTOSEG_WORKSPACE")
    monkeypatch.chdir(trained_volumes)
    assert "1 segmentation:" in run(f"predict -i {scans} -o {tmp_path / 'two'} -d {NUMBER} --device cpu")
    assert {path.name for path in tmp_path.rglob("*.nii.gz")} == {"case_4.nii.gz"}


def test_probabilities_are_written_when_asked_for(trained_volumes, tmp_path):
    """Of the labels that were named, or of all but the background, into a folder of their own."""
    scans = folders_of(trained_volumes).raw / "imagesTs"
    command = f"predict -i {scans} -d {NUMBER} -w {trained_volumes} -f 0 --device cpu"
    expected = {
        "all": {"bright", "dark"},
        "dark": {"dark"},
        "background dark": {"background", "dark"},
    }
    for asked, labels in expected.items():
        folder = tmp_path / asked.replace(" ", "_")
        output = run(f"{command} --probabilities {asked} -o {folder}")
        assert f"probabilities, 0 to 255: {folder / 'probabilities'}" in output
        maps = {f"probabilities/case_4_{label}.nii.gz" for label in labels}
        assert files_in(folder) == {"case_4.nii.gz", *OF_THE_FOLDER} | maps
    output = run(f"{command} --disagreement -o {tmp_path / 'maps'}")
    assert f"disagreement, 0 to 255: {tmp_path / 'maps' / 'disagreement'}" in output
    assert "disagreement/case_4.nii.gz" in files_in(tmp_path / "maps")
    assert "probabilities, 0" not in run(f"{command} -o {tmp_path / 'none'}")
    assert files_in(tmp_path / "none") == {"case_4.nii.gz", *OF_THE_FOLDER}


def test_damaged_cases_are_listed(tmp_path):
    """`check` shows a table of them, `--skip` leaves them out."""
    folders = write_volumes(tmp_path, cases=4)
    (folders.raw / "labelsTr" / "case_2.nii.gz").unlink()
    (folders.raw / "imagesTr" / "case_3_0000.nii.gz").write_bytes(b"no image")
    output = run(f"check -d {NUMBER} -w {tmp_path}", code=2)
    assert "2 problems" in output
    assert "case_2" in output
    assert "case_3" in output
    assert "2 cases, all sound" in run(f"check -d {NUMBER} --skip case_2 case_3 -w {tmp_path}")


@pytest.mark.parametrize(("state", "code"), [("warning", 0), ("failure", 2)])
def test_doctor_shows_what_it_found(state, code, monkeypatch):
    """A table; a failure is an error, a warning is not."""
    finding = Finding(state=state, title="disk", value="3 GB", advice="free some space")
    monkeypatch.setattr("autoseg.pipeline.doctor.examine_machine", lambda _: [finding])
    output = run("doctor", code=code)
    for text in (state, "disk", "3 GB", "free some space"):
        assert text in output
