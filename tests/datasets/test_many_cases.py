"""Datasets of many cases: what is done for each file does not grow with the number of files. Counted, not timed."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PosixPath

import pytest

from autoseg.datasets.channel_files import group_channels, list_stems
from autoseg.datasets.file_list import FileList
from autoseg.datasets.info import DatasetInfo
from autoseg.dicom.examinations import _name_folders

INFO = DatasetInfo(channel_names={"0": "MR"}, labels={"background": 0, "liver": 1}, file_ending=".nii.gz")


def count_calls(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, work: Callable[[], object]) -> int:
    """Number of calls of a method while some work is done."""
    counts: Counter[str] = Counter()
    original = getattr(kind, method)

    def call(*arguments: object) -> object:
        counts[method] += 1
        return original(*arguments)

    with monkeypatch.context() as patches:
        patches.setattr(kind, method, call)
        work()
    return counts[method]


def write_files(folder: Path, count: int) -> Path:
    """Writes empty files."""
    folder.mkdir()
    for number in range(count):
        (folder / f"case_{number:04d}_0000.nii.gz").touch()
    return folder


@pytest.mark.parametrize("work", [lambda path: list_stems(path, ".nii.gz"), lambda path: group_channels(path, INFO)])
def test_files_are_not_compared_with_all_others(tmp_path, monkeypatch, work):
    """Looking for each path among all others would compare 80,000 pairs."""
    folder = write_files(tmp_path / "imagesTr", 400)
    assert len(work(folder)) == 400
    assert count_calls(monkeypatch, PosixPath, "__eq__", lambda: work(folder)) < 4000


def test_a_folder_is_listed_once_for_all_files_that_are_missing(tmp_path, monkeypatch):
    """As after a folder was emptied that dataset.json lists the files of; spellings are still found."""
    folder = write_files(tmp_path / "images", 5)
    (folder / "Mu\u0308ller.nii.gz").touch()
    names = [*(f"gone_{number}" for number in range(50)), "M\u00fcller"]
    cases = {name: {"images": [f"images/{name}.nii.gz"], "label": f"images/{name}.nii.gz"} for name in names}
    files = FileList.model_validate_json(json.dumps({"dataset": cases}))
    assert count_calls(monkeypatch, Path, "iterdir", lambda: files.locate(tmp_path)) == 1
    assert files.locate(tmp_path)["M\u00fcller"][1].name == "Mu\u0308ller.nii.gz"


def test_studies_are_named_by_the_parts_that_tell_them_apart():
    """A thousand patients with two visits each, and a patient whose folder has no visits."""
    folders = [(f"p{patient}", visit, "ct") for patient in range(1000) for visit in ("before", "after")]
    names = _name_folders([*folders, ("alone", "ct"), ("twice",), ("twice",)], Path("scans"))
    assert names == ["_".join(folder[:2]) for folder in folders] + ["alone", "twice_1", "twice_2"]
