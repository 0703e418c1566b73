"""One scan is segmented into one file that the user names."""

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_workspaces import NUMBER, folders_of

from autoseg.errors import AutosegError, UsageError
from autoseg.imaging.image_files import read_label_map
from autoseg.inference.folder import check_writable
from autoseg.inference.single_file import names_a_file
from autoseg.pipeline import predict


def scans_of(root: Path) -> list[Path]:
    """The new scan."""
    return sorted((folders_of(root).raw / "imagesTs").iterdir())


def run(root: Path, output: Path, source: Path | None = None, **options) -> list[Path]:
    """Predicts with the model of a workspace."""
    scan = scans_of(root)[0] if source is None else source
    return predict(scan, output, number=NUMBER, folds=0, workspace=root, device="cpu", mirroring=False, **options)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "MASK.NII.GZ"])
def test_the_file_is_the_mask_and_nothing_lies_beside_it(trained_volumes: Path, tmp_path: Path, name: str) -> None:
    """The ending chooses the format; an earlier file is replaced."""
    [in_folder] = run(trained_volumes, tmp_path / "folder")
    output = tmp_path / "new" / name
    for _ in range(2):
        assert run(trained_volumes, output) == [output]
    assert [path.name for path in output.parent.iterdir()] == [name]
    expected, mask = read_label_map(in_folder), read_label_map(output)
    assert np.array_equal(mask.array, expected.array)
    assert mask.geometry.difference(expected.geometry) is None


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("mask.jpg", {}, r"results cannot be written as \.jpg; choose \.png"),
        ("mask.mhd", {}, r"results cannot be written as \.mhd; choose \.mha"),
        ("mask.nii.gz", {"probabilities": "all"}, "is one file, which holds neither probabilities"),
        ("mask.nii.gz", {"resume": True}, "nor goes on after a stop; give a folder with -o"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(trained_volumes: Path, tmp_path: Path, name, options, text) -> None:
    """Before any work, and nothing is written."""
    with pytest.raises(UsageError, match=text):
        run(trained_volumes, tmp_path / "out" / name, **options)
    assert not (tmp_path / "out").exists()


def test_several_scans_need_a_folder(trained_volumes: Path, tmp_path: Path) -> None:
    """A folder that is named like a file is a folder if it is there already; the scan itself is not replaced."""
    images = folders_of(trained_volumes).raw / "imagesTr"
    with pytest.raises(UsageError, match=r"is one file, and there are \d+ scans; give a folder"):
        run(trained_volumes, tmp_path / "mask.nii.gz", images)
    [scan] = scans_of(trained_volumes)
    copy = tmp_path / "scan.nii.gz"
    copy.write_bytes(scan.read_bytes())
    with pytest.raises(UsageError, match="is the scan itself"):
        run(trained_volumes, copy, copy)
    assert copy.read_bytes() == scan.read_bytes()
    (tmp_path / "folder.nii.gz").mkdir()
    assert not names_a_file(tmp_path / "folder.nii.gz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    """The line names the folder."""
    tmp_path.chmod(0o500)
    with pytest.raises(AutosegError, match="cannot write"):
        check_writable(tmp_path)


def test_the_trial_leaves_nothing(tmp_path: Path) -> None:
    """Also in a folder that was missing."""
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
