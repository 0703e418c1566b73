"""The command `distil` on bad input: one clear line, exit code 2, and nothing written."""

from pathlib import Path

import pytest
from tiny_workspaces import NUMBER, files_in, write_splits, write_volumes
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.cli.command import EXIT_ERROR


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Returns a workspace with a raw dataset and folds, of which nothing is trained."""
    root = tmp_path_factory.mktemp("untrained")
    write_volumes(root)
    write_splits(root, [(["case_1", "case_2"], ["case_3"])])
    return root


def refuse(root: Path, *options: str) -> str:
    """Runs the command, which must fail without a new file; returns what it says in one line."""
    before = files_in(root)
    result = CliRunner(env={"COLUMNS": "500"}).invoke(app, ["distil", "-d", str(NUMBER), "-w", str(root), *options])
    assert result.exit_code == EXIT_ERROR
    assert files_in(root) == before
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "3d_fullres holds no trained fold"),
        (("-f", "x"), "'x' is no fold"),
        (("-f", "3"), "there is no fold 3"),
        (("--for", "no such/name"), "cannot be the name of a plan"),
        (("--work", "2"), "work is 2; give a number above 0 and at most 1"),
        (("--weight", "0"), "weight is 0; give a number above 0 and at most 1"),
        (("--seconds", "0"), "seconds is 0; give a number above 0"),
        (("-m", "nowhere"), "nowhere"),
        (("-i", "nowhere"), "nowhere does not exist"),
    ],
)
def test_bad_options_are_refused(untrained, options, text):
    """Before anything is written."""
    assert text in refuse(untrained, *options)


def test_folds_come_first(tmp_path):
    """A dataset that was never prepared has no folds, so nothing could teach."""
    write_volumes(tmp_path)
    assert "has no splits.json" in refuse(tmp_path)
