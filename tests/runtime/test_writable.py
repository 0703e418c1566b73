"""What cannot be written is refused before the work, whatever the work is."""

import errno
import os
from importlib import import_module
from pathlib import Path

import pytest
from phantoms import write_dataset

import autoseg
from autoseg.errors import UsageError, WriteError
from autoseg.runtime.writable import check_place, check_writable


def test_the_trial_leaves_nothing(tmp_path):
    """Also in a folder that was missing, which is made if results will come into it."""
    check_place(tmp_path / "new" / "file.csv")
    assert list(tmp_path.iterdir()) == []
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("check", [check_writable, check_place])
def test_the_reason_is_the_true_one(tmp_path, monkeypatch, check):
    """A folder on a disk that may only be read."""

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(WriteError, match="Read-only file system; choose a folder that you may write to"):
        check(tmp_path / "a")


WORK = {
    "evaluate": "autoseg.pipeline.scores.compare_folders",
    "compare": "autoseg.pipeline.scores.compare_summaries",
    "export": "autoseg.models.bundle_writing.find_content",
    "export_nnunet": "autoseg.nnunet.export.find_content",
    "draw": "autoseg.pipeline.patch_pictures.load_plan_and_splits",
    "import": "autoseg.importing.sources.recognise",
    "straighten": "autoseg.importing.straightening.map_in_threads",
}
"""Every function of the package that writes to a place of the user's choice, and where its work begins.

`predict` loads its model first, and has tests of its own.
"""


@pytest.mark.parametrize("name", WORK)
def test_no_work_is_done_for_a_place_that_cannot_be_written(tmp_path, monkeypatch, name):
    """A file has the place of the folder; the work is not begun."""
    folder = write_dataset(tmp_path / "raw" / "Dataset001_A", cases=2).folder
    blocked = tmp_path / "file"
    blocked.write_text("mine")

    def work(*_, **__):
        pytest.fail("the work was begun")

    import_module("autoseg.nnunet.export")  # before its name for the work would be that of the test
    monkeypatch.setattr(WORK[name], work)
    labels = folder / "labelsTr"
    calls = {
        "evaluate": lambda: autoseg.evaluate(labels, labels, output=blocked / "scores"),
        "compare": lambda: autoseg.compare(labels, labels, output=blocked / "a.csv"),
        "export": lambda: autoseg.export_model(1, blocked / "a.zip", workspace=tmp_path),
        "export_nnunet": lambda: autoseg.export_nnunet(1, blocked / "a", workspace=tmp_path),
        "draw": lambda: autoseg.draw_augmentations(1, "2d", blocked / "a.png", workspace=tmp_path),
        "import": lambda: autoseg.import_dataset(folder, 2, workspace=blocked / "work"),
        "straighten": lambda: autoseg.straighten(labels, blocked / "a"),
    }
    with pytest.raises(WriteError, match=r"cannot write .*; remove or rename the file that is in the way"):
        calls[name]()
    assert blocked.read_text() == "mine"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda path: autoseg.compare(path, path, output=path / "a.txt"), "neither a .csv nor a .json file"),
        (lambda path: autoseg.export_model(1, path / "a.tar", workspace=path), "is no name of a bundle"),
        (lambda path: autoseg.draw_augmentations(1, "2d", path / "a.jpg", workspace=path), "is no name of a PNG file"),
    ],
)
def test_no_work_is_done_for_an_ending_that_is_not_written(tmp_path, call, said):
    """The ending is looked at before anything else is, even before the dataset is found to be missing."""
    with pytest.raises(UsageError, match=said):
        call(tmp_path)
