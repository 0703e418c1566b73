"""Every command can be read in every encoding, on every terminal and without one."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_workspaces import NUMBER, write_volumes

from autoseg.cli.app import COMMANDS, app
from autoseg.cli.streams import ERRORS, prepare_streams, replace_letters
from autoseg.cli.terminal import console

ENCODINGS = ["ascii", "cp1252", "latin-1", "cp437", "utf-8", "utf-16", "shift-jis"]
TERMINALS = [
    {"COLUMNS": "20"},
    {"TERM": "dumb"},
    {"NO_COLOR": "1"},
    {"COLUMNS": "none"},
    {"COLUMNS": "0"},
    {"LANG": "C"},
]
LISTS = [["networks"], ["guide"], ["guide", "predict"], ["guide", "nowhere"], ["check", "-d", "7"], ["--version"]]


class Output:
    """The streams of a program, in an encoding."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
        self.encoding, self.bytes = encoding, io.BytesIO()
        self.stream = io.TextIOWrapper(self.bytes, encoding=encoding, newline="\n")
        monkeypatch.setattr(sys, "stdout", self.stream)
        monkeypatch.setattr(sys, "stderr", self.stream)
        prepare_streams()

    def run(self, *args: str) -> str:
        """Runs a command; returns what it wrote, as a program reads it that knows the encoding."""
        self.stream.seek(0)
        self.stream.truncate()
        with pytest.raises(SystemExit) as ended:
            app(list(args), prog_name="autoseg")
        assert ended.value.code in (0, 2)
        self.stream.flush()
        return self.bytes.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_help_of_each_command_is_the_same_in_every_encoding(monkeypatch, encoding):
    """It is written in ASCII."""
    output = Output(monkeypatch, encoding)
    for command in ([], *(name.split() for name in COMMANDS)):
        text = output.run(*command, "--help")
        assert text.startswith(f"Usage: {' '.join(['autoseg', *command])}")
        assert text.isascii()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lists_and_errors_are_written_in_every_encoding(monkeypatch, encoding):
    """Tables have the lines that the encoding has; nothing is left out."""
    output = Output(monkeypatch, encoding)
    for command in LISTS:
        assert len(output.run(*command).split()) > 1
    text = output.run("networks")
    assert "31,030,658" in text
    assert ("\N{BOX DRAWINGS HEAVY VERTICAL}" in text) is encoding.startswith("utf")  # else plain signs
    assert "\x1b" not in text


@pytest.mark.slow
@pytest.mark.parametrize("terminal", TERMINALS, ids=str)
def test_tables_are_whole_on_every_terminal(monkeypatch, terminal):
    """Numbers and words are neither cut off nor broken into letters."""
    for name, value in terminal.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        console, "_width", int(terminal["COLUMNS"]) if terminal.get("COLUMNS", "").isdecimal() else None
    )
    output = Output(monkeypatch, "utf-8")
    text = output.run("networks")
    for words in ("unet_plus_plus", "31,030,658", "edges divisible by 16"):
        assert words in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "own_data" in output.run("guide")
    for name in COMMANDS:
        assert "Options:" in output.run(*name.split(), "--help")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_are_written_by_their_numbers_where_letters_lack(monkeypatch, tmp_path, encoding):
    """A problem of a case is listed, whatever its name."""
    folders = write_volumes(tmp_path)
    for folder in ("imagesTr", "labelsTr"):
        for path in (folders.raw / folder).glob("case_1*"):
            path.rename(path.with_name(path.name.replace("case_1", "\N{GREEK SMALL LETTER ALPHA}_1")))
    next((folders.raw / "labelsTr").glob("*_1.nii.gz")).unlink()
    text = Output(monkeypatch, encoding).run("check", "-d", str(NUMBER), "-w", str(tmp_path))
    assert r"\u03b1_1" in text
    assert "1 problem" in text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("3 \N{EN DASH} 4", b"3 - 4"),
        ("\N{RIGHTWARDS ARROW} 2\N{MULTIPLICATION SIGN}2", b"-> 2x2"),
        ("M\xfcller \U0001f600", b"M\\xfcller \\U0001f600"),
        ("w\udcc3\udcb6rk", b"w\\xf6rk"),
        ("\udce9t\udce9", b"\\udce9t\\udce9"),
    ],
)
def test_letters_that_lack_are_replaced(text, written):
    """Signs by similar ones, letters by their numbers; bytes of names are taken for UTF-8 if they are."""
    assert text.encode("ascii", ERRORS) == written
    with pytest.raises(UnicodeDecodeError):
        replace_letters(UnicodeDecodeError("ascii", b"\xff", 0, 1, "no letter"))


CLOSED = """
import os, sys
from pathlib import Path
from autoseg.cli.streams import prepare_streams
prepare_streams()
file = open("mine.txt", "w")
os.write(1, b"noise"), os.write(2, b"noise")
print("to nobody"), print("to nobody", file=sys.stderr)
file.write("mine")
"""


@pytest.mark.skipif(os.name == "nt", reason="written for a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path: Path, closed: str) -> None:
    """Not into the next file that is opened."""
    command = f'"$0" -c "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, CLOSED], cwd=tmp_path, check=False, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("command", ["networks", "predict --help"])
def test_a_full_disk_under_the_output_is_one_line(command: str) -> None:
    """Also before a command has begun."""
    with Path("/dev/full").open("w") as full:
        program = [sys.executable, "-m", "autoseg", *command.split()]
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert (
        done.stderr == "error: cannot write or read: No space left on device; free some space or choose another disk\n"
    )
