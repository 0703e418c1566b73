"""Saved files are complete, versioned and strict, and a failed write changes nothing."""

import errno
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import ArtifactError, UsageError, WriteError
from autoseg.runtime.artifact import Artifact, Score, atomic_file, atomic_folder


class Note(Artifact):
    """An artefact with a nested list and an undefined number."""

    format_version: int = 3

    text: str
    numbers: tuple[int, ...] = ()
    score: Score = 0.5


def names(folder):
    """Returns the names of all files in a folder, also hidden ones."""
    return sorted(path.name for path in folder.iterdir())


def write_half(path):
    """Writes a part of a file, then fails."""
    path.write_text("half")
    raise RuntimeError("stopped half-way")


@given(st.text(), st.lists(st.integers(-(2**40), 2**40)), st.floats(allow_infinity=False))
@settings(max_examples=40, deadline=None)
def test_artefacts_round_trip(tmp_path_factory, text, numbers, score):
    """A loaded value equals the saved one, also with NaN."""
    path = tmp_path_factory.mktemp("notes") / "note.json"
    note = Note(text=text, numbers=tuple(numbers), score=score)
    note.save(path)
    assert Note.load(path) == note
    assert names(path.parent) == ["note.json"]


def test_an_undefined_number_is_null_in_the_file(tmp_path):
    """JSON has no NaN, and other programs can read the file."""
    Note(text="a", score=math.nan).save(tmp_path / "note.json")
    assert json.loads((tmp_path / "note.json").read_text())["score"] is None
    assert math.isnan(Note.load(tmp_path / "note.json").score)


def test_artefacts_are_frozen():
    """A saved value cannot be changed without changing the file."""
    with pytest.raises(ValueError, match="frozen"):
        Note(text="a").text = "b"


def test_a_file_of_another_version_is_refused(tmp_path):
    """Such a file is not misread."""
    path = tmp_path / "note.json"
    path.write_text('{"format_version": 2, "text": "a"}')
    with pytest.raises(ArtifactError, match=r"note\.json: .*format_version is 2, this program reads 3"):
        Note.load(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"text": "a", "colour": 1}', "colour: Extra inputs are not permitted"),
        ('{"numbers": [1]}', "text: Field required"),
        ('{"text": "a", "numbers": [1, "x"]}', r"numbers\.1: Input should be a valid integer"),
        ('{"text": "a"', "Invalid JSON"),
        ("[]", "Input should be an object"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(tmp_path, content, line):
    """The error is one line that names the file, the field and what to do."""
    path = tmp_path / "note.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=line) as caught:
        Note.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_a_missing_file_is_an_error_of_the_user(tmp_path):
    """The error names the file, and says to run the step that makes it."""
    with pytest.raises(ArtifactError, match=r"cannot read .*note\.json: No such file or directory; run the step"):
        Note.load(tmp_path / "note.json")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    """An image with the name of a text does not crash the program."""
    (tmp_path / "note.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match="is no text in UTF-8"):
        Note.load(tmp_path / "note.json")


def test_a_file_appears_whole_and_alone(tmp_path):
    """Missing folders are made, nothing else is left, and the old content is replaced."""
    path = tmp_path / "a" / "b" / "image.nii.gz"
    for content in ("old", "new"):
        with atomic_file(path) as writing:
            assert writing.name.endswith("image.nii.gz")
            assert writing.parent == path.parent
            writing.write_text(content)
            assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["image.nii.gz"]


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_write_of_a_file_changes_nothing(tmp_path, old):
    """The old file stays, and no half of the new one is left."""
    path = tmp_path / "note.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(RuntimeError, match="half-way"), atomic_file(path) as writing:
        write_half(writing)
    assert names(tmp_path) == ([] if old is None else ["note.txt"])
    assert old is None or path.read_text() == old


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    """Image libraries may fail without an error."""
    with pytest.raises(ArtifactError, match=r"cannot write .*note\.txt"), atomic_file(tmp_path / "note.txt"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_a_place_that_cannot_be_written_is_an_error_in_one_line(tmp_path, write):
    """The user can move a file that has the name of the folder."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtifactError, match=r"cannot write .*; remove or rename the file that is in the way, or choose"),
        write(tmp_path / "file" / "a"),
    ):
        pass
    assert names(tmp_path) == ["file"]


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    """Old files that are not written again are removed."""
    path = tmp_path / "parent" / "cases"
    for name in ("old", "new"):
        with atomic_folder(path) as folder:
            (folder / name).write_text(name)
    assert names(path) == ["new"]
    assert names(path.parent) == ["cases"]


def test_a_folder_may_be_read_by_others_as_usual(tmp_path):
    """The folder has the permissions of a usual folder, not those of a private one."""
    with atomic_folder(tmp_path / "made"):
        pass
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_write_of_a_folder_changes_nothing(tmp_path, old):
    """The old folder stays with its files, and no half of the new one is left."""
    path = tmp_path / "cases"
    if old is not None:
        path.mkdir()
        (path / old).write_text(old)
    with pytest.raises(RuntimeError, match="half-way"), atomic_folder(path) as folder:
        write_half(folder / "half")
    assert names(tmp_path) == ([] if old is None else ["cases"])
    assert old is None or names(path) == ["old"]


def test_a_failed_change_of_places_brings_the_old_folder_back(tmp_path, monkeypatch):
    """If the new folder cannot be renamed, the old one stays."""
    path = tmp_path / "cases"
    path.mkdir()
    (path / "old").write_text("old")
    replace = type(path).replace

    def refuse_new(self, target):
        if target == path and (self / "new").exists():
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", refuse_new)
    with pytest.raises(ArtifactError, match="No space left on device"), atomic_folder(path) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path) == ["cases"]
    assert names(path) == ["old"]


@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_a_file_that_cannot_be_read_is_not_called_unwritable(tmp_path, write):
    """An error about another file names that file."""
    with pytest.raises(FileNotFoundError, match="scan"), write(tmp_path / "results" / "a"):
        (tmp_path / "scan").read_bytes()
    assert names(tmp_path / "results") == []


def test_a_full_disk_names_the_folder_that_was_to_be(tmp_path):
    """The temporary path would tell the user nothing."""
    with (
        pytest.raises(WriteError, match=r"cannot write \S+cases: No space left on device; free"),
        atomic_folder(tmp_path / "cases") as folder,
        atomic_file(folder / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_ctrl_c_between_two_renames_brings_the_old_folder_back(tmp_path, monkeypatch):
    """The old folder is not lost at any moment."""
    path = tmp_path / "cases"
    path.mkdir()
    (path / "old").write_text("old")
    replace = type(path).replace

    def stop_at_new(self, target):
        if target == path and (self / "new").exists():
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", stop_at_new)
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path) == ["cases"]
    assert names(path) == ["old"]


def test_a_file_is_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows flushes no other handle."""
    fcntl = pytest.importorskip("fcntl")
    modes = []
    monkeypatch.setattr(os, "fsync", lambda number: modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE))
    with atomic_file(tmp_path / "note.txt") as writing:
        writing.write_text("text")
    assert modes == [os.O_RDWR]
    assert (tmp_path / "note.txt").read_text() == "text"


def test_lists_of_numbers_stand_on_one_line(tmp_path):
    """A shape is on one line, so that people can read it, and texts stay as they are."""

    class Shaped(Artifact):
        shape: tuple[int, ...]
        matrix: tuple[tuple[float, ...], ...]
        names: tuple[str, ...]

    value = Shaped(shape=(1, 2, 3), matrix=((1.0, 0.5), (0.0, -1e-9)), names=("[\n 1,\n 2\n]", "b"))
    value.save(tmp_path / "value.json")
    text = (tmp_path / "value.json").read_text()
    assert '"shape": [1, 2, 3],' in text
    assert "[1.0, 0.5]" in text
    assert Shaped.load(tmp_path / "value.json") == value


def test_keys_of_strangers_are_shown_without_signs_that_terminals_obey():
    """The error about a key with control characters is one line without them."""
    with pytest.raises(ArtifactError) as caught:
        Note.parse('{"text": "", "\\u001b[2Jx\\ny": 1}', source="a")
    assert str(caught.value).startswith("a: \\x1b[2Jx\\ny: ")


def test_a_key_twice_is_refused_in_texts_too():
    """As in files."""
    with pytest.raises(ArtifactError, match=r"a has the key 'text' twice in one object \(line 1\); keep one of them"):
        Note.parse('{"text": "x", "text": "y"}', source="a")


def test_runs_that_fill_one_folder_at_the_same_time_leave_it_whole(tmp_path):
    """Each writes two files; the folder holds those of one run, and nothing else is left."""

    def fill(run: int) -> None:
        for _ in range(20):
            with atomic_folder(tmp_path / "masks") as writing:
                for name in ("a", "b"):
                    (writing / name).write_text(str(run))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]
    first, second = ((tmp_path / "masks" / name).read_text() for name in ("a", "b"))
    assert first == second


def test_run_that_is_done_leaves_alone_what_the_next_run_moves_aside(tmp_path, monkeypatch):
    """The next run renames the new folder at once; neither does the old one come back, nor is it an error."""
    path, moved = tmp_path / "masks", tmp_path / "moved_by_the_next_run"
    path.mkdir()
    (path / "old").touch()
    rename = Path.replace

    def rename_and_be_overtaken(source, target):
        rename(source, target)
        if target == path:
            rename(path, moved)

    monkeypatch.setattr(Path, "replace", rename_and_be_overtaken)
    with atomic_folder(path) as writing:
        (writing / "new").touch()
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")) == [moved.name, f"{moved.name}/new"]


def test_runs_that_write_one_file_at_the_same_time_leave_it_whole(tmp_path):
    """Under names of their own, so that no run takes the file of another one away."""

    def write(run: int) -> None:
        for _ in range(50):
            with atomic_file(tmp_path / "table.csv", durable=False) as writing:
                writing.write_text(str(run) * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert len(set((tmp_path / "table.csv").read_text())) == 1


def test_a_folder_that_another_run_has_made_meanwhile_is_kept(tmp_path):
    """Where folders are not to be replaced."""
    path = tmp_path / "Dataset004_A"

    def fill() -> None:
        with atomic_folder(path, replace=False) as writing:
            (writing / "mine").touch()
            path.mkdir()
            (path / "theirs").touch()

    with pytest.raises(UsageError, match=r"another run has made .*Dataset004_A meanwhile; remove it"):
        fill()
    assert [file.name for file in tmp_path.rglob("*")] == ["Dataset004_A", "theirs"]
    with atomic_folder(tmp_path / "other", replace=False) as writing:
        (writing / "mine").touch()
    assert (tmp_path / "other" / "mine").exists()
