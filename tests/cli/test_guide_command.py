"""The guide, as people ask for it."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.cli.guide import list_pages
from autoseg.cli.terminal import console

GUIDE = Path(autoseg.__file__).parent / "guide"


def run(command: str, *, code: int = 0) -> str:
    """Runs a command and gives back what it printed."""
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_pages_are_listed_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its purpose, below its kind."""
    monkeypatch.setattr(console, "_width", 200)
    lines = [line.strip() for line in run("guide").splitlines()]
    for spec in list_pages():
        [place] = [number for number, line in enumerate(lines) if line.split() == [spec.name, *spec.purpose.split()]]
        assert lines.index(spec.kind) < place
    assert lines[-1] == "show one: autoseg guide PAGE"


def test_page_in_a_pipe_is_markdown() -> None:
    """Byte for byte."""
    assert run("guide resume") == (GUIDE / "resume.md").read_text(encoding="utf-8")


def test_page_on_a_terminal_is_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without marks of Markdown; a link shows the name of its page; lines are broken between words."""
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_width", 60)
    monkeypatch.setattr(console, "_color_system", None)
    shown = run("guide resume")
    assert "Stopping and resuming" in shown
    assert "**" not in shown
    assert "](" not in shown
    assert "(predict.md)" in shown
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize(
    ("name", "similar"),
    [("resme", "did you mean resume? "), ("Resume", "did you mean resume or results? "), ("xyz", "")],
)
def test_unknown_page_is_one_line(name: str, similar: str) -> None:
    """It names similar pages, if there are any."""
    assert (
        run(f"guide {name}", code=2)
        == f"error: the guide has no page '{name}'; {similar}'autoseg guide' lists all pages\n"
    )
