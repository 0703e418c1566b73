"""The commands about scores, as people type them."""

import json
import shlex
import shutil

import pandas as pd
import pytest
from tiny_workspaces import write_volumes
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.errors import WriteError
from autoseg.evaluation.paired import Comparison
from autoseg.evaluation.summary import Summary
from autoseg.imaging.image_files import read_label_map, write_label_map


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A console that breaks no line."""
    monkeypatch.setattr(console, "_width", 200)


def run(*command, code=0):
    """Runs a command and gives back what it printed."""
    result = CliRunner().invoke(app, shlex.split(" ".join(map(str, command))), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def folders(tmp_path):
    """References, and two runs: one right, the other with an empty and a thinner case; a case more in the first."""
    labels = write_volumes(tmp_path / "made", cases=4).raw / "labelsTr"
    for name in ("references", "right", "wrong"):
        shutil.copytree(labels, tmp_path / name)
    for number in (1, 2):
        path = tmp_path / "wrong" / f"case_{number}.nii.gz"
        label = read_label_map(path)
        label.array[...] = 0 if number == 1 else label.array * (label.array != 2)
        path.unlink()
        write_label_map(path, label)
    (tmp_path / "wrong" / "case_4.nii.gz").unlink()
    return tmp_path


def test_evaluate_measures_at_the_tolerance(folders):
    """It is printed, recorded and obeyed; without the option it is 1 mm."""
    command = ("evaluate", folders / "references", folders / "wrong")
    output = run(*command)
    assert "NSD at 1 mm" in output
    assert "mean foreground Dice 0." in output
    assert Summary.load(folders / "wrong" / "summary.json").tolerance_mm == 1
    output = run(*command, "--tolerance 2.5")
    assert "NSD at 2.5 mm" in output
    summary = Summary.load(folders / "wrong" / "summary.json")
    assert summary.tolerance_mm == 2.5
    assert summary.cases[0].scores["label_1"].hd95_mm > 10
    assert {"nsd", "hd95_mm", "lesions_missed"} <= set(pd.read_csv(folders / "wrong" / "summary.csv"))


def test_evaluate_measures_centrelines_on_request(folders):
    """It takes a while, so it has its option."""
    command = ("evaluate", folders / "references", folders / "right")
    assert "centreline Dice" not in run(*command)
    assert "centreline Dice" in run(*command, "--centrelines")
    assert Summary.load(folders / "right" / "summary.json").foreground_mean.centreline_dice == 1


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf"])
def test_a_tolerance_is_a_distance(folders, tolerance):
    """Anything else is one line, before any case is read."""
    output = run("evaluate", folders / "references", folders / "right", "--tolerance", tolerance, code=2)
    assert f"{tolerance} mm is no tolerance; take a distance such as 1 or 2.5" in output
    assert not (folders / "right" / "summary.json").exists()


def test_two_runs_are_compared(folders):
    """Folders or files; the table is printed and written as CSV or JSON."""
    for name in ("right", "wrong"):
        run("evaluate", folders / "references", folders / name)
    output = run("compare", folders / "wrong", folders / "right" / "summary.json", "-o", folders / "c.csv")
    assert "3 cases of both runs" in output
    assert "left out, since only B has them: case_4" in output
    assert f"also in {folders / 'c.csv'}" in output
    table = pd.read_csv(folders / "c.csv").set_index(["label", "metric"])
    assert (table["wins"]["label_2", "dice"], table["losses"]["label_2", "dice"]) == (2, 0)
    assert table["difference"]["label_2", "hd95_mm"] < 0
    run("compare", folders / "wrong", folders / "right", "-o", folders / "c.json")
    comparison = Comparison.load(folders / "c.json")
    assert len(comparison.rows) == len(table)
    assert json.loads((folders / "c.json").read_text())["second"] == str(folders / "right")


def test_what_cannot_be_compared_is_one_line(folders):
    """A folder without scores, and a file that is no table."""
    run("evaluate", folders / "references", folders / "right")
    output = run("compare", folders / "right", folders / "wrong", code=2)
    assert f"cannot read {folders / 'wrong' / 'summary.json'}" in output
    output = run("compare", folders / "right", folders / "right", "-o", folders / "c.xlsx", code=2)
    assert "c.xlsx is neither a .csv nor a .json file" in output
    assert not (folders / "c.xlsx").exists()


def test_scores_are_shown_where_files_cannot_be_written(folders, monkeypatch):
    """First the table, then the line; with -o the files lie elsewhere."""
    before = sorted(path.name for path in (folders / "right").iterdir())
    output = run("evaluate", folders / "references", folders / "right", "-o", folders / "scores")
    assert f"also in {folders / 'scores' / 'summary.json'}" in output
    assert sorted(path.name for path in (folders / "right").iterdir()) == before
    assert Summary.load(folders / "scores" / "summary.json").foreground_mean.dice == 1

    def refuse(_summary, folder):
        raise WriteError(f"cannot write {folder}", "choose a folder that you may write to")

    monkeypatch.setattr(Summary, "write", refuse)
    output = run("evaluate", folders / "references", folders / "right", code=2)
    assert output.index("mean foreground Dice 1") < output.index("cannot write")


def test_two_files_leave_no_files(folders):
    """Unless a folder is named."""
    files = [folders / name / "case_2.nii.gz" for name in ("references", "wrong")]
    output = run("evaluate", *files)
    assert "1 case" in output
    assert "also in" not in output
    assert not (folders / "wrong" / "summary.json").exists()
    assert "also in" in run("evaluate", *files, "-o", folders / "scores")


def test_references_without_a_segmentation_are_said(folders):
    """And counted, if asked for."""
    command = ("evaluate", folders / "references", folders / "wrong")
    assert "1 of 4 references have no segmentation: case_4; they are left out" in run(*command)
    assert "4 cases" in run(*command, "--missing zero")
    assert "case_4.nii.gz has no segmentation" in run(*command, "--missing fail", code=2)
