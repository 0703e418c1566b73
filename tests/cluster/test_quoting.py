"""What stands in a script is what bash reads."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.cluster.quoting import quote, quote_command

HOSTILE = [
    "plain/path.nii.gz",
    "two words",
    "it's",
    'say "x"',
    "$HOME `id` $(id) \\ * ? ~ ! # ; & | < > ( ) { } [ ]",
    "-x",
    "",
    "line\nbreak",
    "\n#SBATCH --partition=evil\nEND_OF_JOB\n",
    "tab\tcarriage\r\nbell\x07\x7f",
    "\u00fcml\u00e4ut \u65e5\u672c \u2028 \u202e",
    "not utf-8 \udcff\udc80 at all",
    "\x01f0",
]


def read_back(words: list[str]) -> list[str]:
    """What bash makes of a command line, as a program receives it."""
    script = f"printf '%s\\0' {quote_command(words)}"
    shown = subprocess.run(["bash", "-c", script.encode(errors="surrogateescape")], capture_output=True, check=True)
    return [word.decode(errors="surrogateescape") for word in shown.stdout.split(b"\0")[:-1]]


def test_hostile_words_come_through_as_they_are():
    """Whatever a path holds."""
    assert read_back(HOSTILE) == HOSTILE


@pytest.mark.parametrize("word", HOSTILE)
def test_a_word_stays_on_its_line(word):
    """So that no path can be a line that a scheduler reads, or the end of a script."""
    assert len(quote(word).splitlines()) <= 1


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_any_words_come_through_as_they_are(words):
    """Of any characters but the one that no argument can hold."""
    assert read_back(words) == words
    assert len(quote_command(words).splitlines()) <= 1


def test_plain_paths_stay_readable():
    """A script is made to be read."""
    assert quote(str(Path("/data/raw/Dataset004_Hippocampus"))) == "/data/raw/Dataset004_Hippocampus"
