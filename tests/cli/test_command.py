"""Options take several values; errors are one line and exit code 2."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from autoseg.cli.command import Command, end_process, spread
from autoseg.cli.options import parse_folds
from autoseg.cli.terminal import Terminal
from autoseg.errors import ProblemsError, Stopped, UsageError


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-d", "4", "-f", "0", "1", "-c", "2d"], ["-d", "4", "-f", "0", "-f", "1", "-c", "2d"]),
        (["-f", "0", "-f", "1"], ["-f", "0", "-f", "1"]),
        (["-f", "cv"], ["-f", "cv"]),
        (["-d", "4"], ["-d", "4"]),
    ],
)
def test_values_are_spread(args, expected):
    """An option is repeated before each of its values."""
    assert spread(args, {"-f"}) == expected


def test_folds_are_parsed():
    """Numbers, all and cv; doubles count once."""
    assert parse_folds(["0", "3", "0"]) == [0, 3]
    assert parse_folds(["cv"]) == ["cv"]
    assert parse_folds(["all"]) == ["all"]
    with pytest.raises(UsageError, match="'x' is no fold"):
        parse_folds(["x"])


def run_failing(error):
    """Runs a command that fails with `error`."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command(cls=Command)
    def failing() -> None:
        raise error

    return CliRunner().invoke(app, [])


def test_mendable_errors_are_one_line_and_exit_with_2():
    """The text goes to the error stream, without a traceback."""
    result = run_failing(UsageError("there is no fold 7", "take 0 to 4"))
    assert result.exit_code == 2
    assert result.stderr == "error: there is no fold 7; take 0 to 4\n"


def test_several_problems_have_a_line_each():
    """One bad case never hides the others."""
    result = run_failing(ProblemsError(["first", "second"]))
    assert result.exit_code == 2
    assert result.stderr == "error: first\nerror: second\n"


def test_full_disk_is_a_mendable_error():
    """The system's own error is put in words."""
    result = run_failing(OSError(errno.ENOSPC, "No space left on device", "case.b2nd"))
    assert result.exit_code == 2
    assert result.stderr == (
        "error: cannot write or read case.b2nd: No space left on device; free some space or choose another disk\n"
    )


def test_interrupt_is_said_and_exits_with_130():
    """Ctrl-C shows no traceback."""
    result = run_failing(KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr.startswith("stopped;")


@pytest.mark.parametrize("code", [0, 143])
def test_training_that_was_stopped_is_said_and_exits_as_it_was_asked(code):
    """By a stop file that is success, by SIGTERM what shells expect; it is no error."""
    result = run_failing(Stopped("somebody", code))
    assert result.exit_code == code
    assert result.stderr.startswith("stopped by somebody, and saved to the last step; the same command goes on")


def test_interrupt_says_what_is_saved():
    """A training that Ctrl-C ended does."""
    assert run_failing(KeyboardInterrupt("stopped by Ctrl-C, and saved")).stderr == "stopped by Ctrl-C, and saved\n"


@pytest.mark.parametrize(
    ("reason", "code", "text"),
    [
        (Stopped("SIGTERM", 143), 143, "stopped by SIGTERM, and saved to the last step; .*\n"),
        (UsageError("the disk is full", "free some space"), 2, "error: the disk is full; free some space\n"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug\n"),
    ],
)
def test_process_that_ends_from_another_thread_says_the_same(monkeypatch, capfd, reason, code, text):
    """Message and exit code are those of a command that ends by itself; progress bars are no longer drawn."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with Terminal().task("training", 10):
        end_process(reason)
        assert codes == [code]
        assert re.fullmatch(text, capfd.readouterr().err)


def test_bugs_are_shown_whole():
    """An error that the user cannot mend is not dressed up."""
    assert isinstance(run_failing(ZeroDivisionError()).exception, ZeroDivisionError)


def test_errors_show_control_codes_as_escapes():
    """A name in an error may hold them."""
    result = run_failing(UsageError("case 'a\x1b[2J' is missing", "look"))
    assert result.stderr == "error: case 'a\\x1b[2J' is missing; look\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_an_error_stream_that_is_full_keeps_the_exit_code(tmp_path):
    """The line is lost, and the exit code still says that the user can fix it."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "autoseg", "compare", "a", "b"]
        assert subprocess.run(command, stderr=full, check=False, cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(("value", "is_number"), [("abc", False), ("0", False), ("-1", False), ("2,1", True)])
def test_numbers_of_threads_that_are_none_are_named(tmp_path, value, is_number):
    """Libraries would fail while they are imported."""
    command = [sys.executable, "-m", "autoseg", "--version"]
    environment = {**os.environ, "OMP_NUM_THREADS": value}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == (0 if is_number else 2)
    named = f"error: OMP_NUM_THREADS is '{value}'; set it to a number of threads, or remove it\n"
    assert ended.stderr == ("" if is_number else named)


def test_nothing_is_left_in_the_temporary_folder(tmp_path):
    """Torch makes a folder for compiled kernels when it is imported, which stays only if something is in it."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    code = "import sys, torch._dynamo; sys.argv = ['autoseg', '--version']; from autoseg.__main__ import main; main()"
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the current folder")
def test_a_current_folder_that_is_gone_is_said(tmp_path):
    """It was removed, or its disk is away; no path of the error tells."""
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone && rmdir ../gone && {sys.executable} -m autoseg check -d 1"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "AUTOSEG_WORKSPACE": ""}
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: the current folder is gone: it was removed or renamed")
