"""DICOM files are checked before they are imported."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, make_series, random_voxels, write_series
from dicom_masks import make_segmentation, make_structure_set, save
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.errors import DatasetError, ProblemsError

SHAPE = (4, 9, 11)


def make_mask(seed: int) -> np.ndarray:
    """Makes the mask of a structure."""
    return np.random.default_rng(seed).random(SHAPE) > 0.6


def write_study(folder: Path, *, labels: Path | None = None) -> list:
    """Writes a localizer, a series and its segmentation; returns the slices."""
    slices = make_series(random_voxels(SHAPE), description="T2", number=2)
    scout = make_series(random_voxels((1, 9, 11)), description="scout", number=1, study=slices[0])
    scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(folder / "t2", slices)
    write_series(folder / "scout", scout)
    save(labels or folder, make_segmentation(slices, {"Gland": make_mask(0), "Zone": make_mask(1)}), "seg.dcm")
    return slices


def test_sound_files_are_listed_with_their_masks(tmp_path, monkeypatch):
    """Each series has a row, with what was drawn on it; masks may lie elsewhere."""
    monkeypatch.setattr(console, "_width", 200)  # the console may have been made before, at another width
    write_study(tmp_path / "studies" / "anna")
    write_study(tmp_path / "studies" / "bert", labels=tmp_path / "masks")
    checked = autoseg.check_dicom(tmp_path / "studies", labels=tmp_path / "masks")
    assert checked.problems == ()
    assert [examination.name for examination in checked.examinations] == ["anna", "bert"]
    assert set(checked.structures.values()) == {("Gland", "Zone")}
    shown = CliRunner().invoke(app, ["check", str(tmp_path / "studies"), "--labels", str(tmp_path / "masks")])
    assert shown.exit_code == 0, shown.output
    assert all(text in shown.output for text in ("anna", "bert", "localizer", "T2", "Gland, Zone", "2 examinations"))


def remove_slice(folder: Path) -> None:
    """Removes a slice in the middle."""
    (folder / "t2" / "IM0001").unlink()


def cut_voxels(folder: Path) -> None:
    """Cuts the last bytes of a slice off."""
    path = folder / "t2" / "IM0001"
    path.write_bytes(path.read_bytes()[:-20])


def break_header(folder: Path) -> None:
    """Cuts a file in its header."""
    path = folder / "t2" / "IM0001"
    path.write_bytes(path.read_bytes()[:500])


def remove_series(folder: Path) -> None:
    """Removes the series that the mask was drawn on."""
    for path in (folder / "t2").iterdir():
        path.unlink()


def tilt(folder: Path) -> None:
    """Replaces the series by one of a tilted gantry, without a mask."""
    (folder / "seg.dcm").unlink()
    remove_series(folder)
    column = (0.0, np.cos(0.3), np.sin(0.3))
    slices = make_series(random_voxels((6, 30, 30)), orientation=(AXIAL[0], column), modality="CT")
    for index, data in enumerate(slices):
        data.ImagePositionPatient = [0.0, 0.0, 3.0 * index]
    write_series(folder / "t2", slices)


def spread(folder: Path) -> None:
    """Replaces the series by one whose slices have varying distances, without a mask."""
    (folder / "seg.dcm").unlink()
    remove_series(folder)
    slices = make_series(random_voxels((6, 9, 11)))
    for data, position in zip(slices, (0, 3, 7.4, 9, 14.3, 15.3), strict=True):
        data.ImagePositionPatient = [0.0, 0.0, position]
    write_series(folder / "t2", slices)


def draw_twice(folder: Path) -> None:
    """Copies the mask."""
    (folder / "again.dcm").write_bytes((folder / "seg.dcm").read_bytes())


def cut_mask(folder: Path) -> None:
    """Cuts the mask off."""
    path = folder / "seg.dcm"
    path.write_bytes(path.read_bytes()[:900])


def draw_elsewhere(folder: Path) -> None:
    """Draws a contour between slices."""
    slices = write_study(folder)
    contour = np.array([[10.0, -20.0, 31.4], [14.0, -20.0, 31.4], [14.0, -16.0, 31.4]])
    save(folder, make_structure_set(slices, {"Lesion": [contour]}), "rt.dcm")


def draw_nothing(folder: Path) -> None:
    """Writes a structure set without contours."""
    (folder / "seg.dcm").unlink()
    save(folder, make_structure_set(make_series(random_voxels(SHAPE)), {}), "rt.dcm")


def leave_localizers(folder: Path) -> None:
    """Leaves the localizer alone."""
    remove_series(folder)
    (folder / "seg.dcm").unlink()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (remove_slice, "1 slice is missing between IM0000"),
        (cut_voxels, "IM0001 is damaged or cut off"),
        (break_header, "IM0001 is damaged or cut off"),
        (remove_series, "which is not there; bring that series, or leave the mask out"),
        (tilt, "a tilted gantry leaves them; straighten it with --resample-tilt"),
        (spread, "the distance between its slices varies from 1 to 5.3 mm"),
        (draw_twice, "both hold 'Gland'; leave one of them out"),
        (cut_mask, "seg.dcm is damaged or cut off"),
        (draw_elsewhere, "contours of 'Lesion' do not lie on slices of the series"),
        (draw_nothing, "which is not there"),
        (leave_localizers, "it holds no scan (localizer)"),
    ],
)
def test_problems_are_named_and_the_other_examination_is_checked(tmp_path, change, problem):
    """One problem, or the same of the file and of its series; the other examination is sound."""
    write_study(tmp_path / "anna")
    write_study(tmp_path / "bert")
    change(tmp_path / "anna")
    problems = autoseg.check_dicom(tmp_path).problems
    assert any(problem in str(one) for one in problems), [*map(str, problems)]
    assert all("bert" not in str(one) for one in problems)
    assert CliRunner().invoke(app, ["check", str(tmp_path)]).exit_code == 2


def test_a_source_without_series_is_refused(tmp_path):
    """As listing its series is."""
    with pytest.raises(DatasetError, match="does not exist"):
        autoseg.check_dicom(tmp_path / "missing")
    with pytest.raises(DatasetError, match="holds no series of images in DICOM"):
        autoseg.check_dicom(tmp_path)
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes(200))
    with pytest.raises(ProblemsError, match=r"broken\.dcm is damaged"):
        autoseg.check_dicom(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing says what to check"),
        (["studies", "-d", "1"], "are for a dataset of the workspace"),
        (["studies", "--fix"], "are for a dataset of the workspace"),
        (["-d", "1", "--labels", "masks"], "--labels says where the masks of SOURCE are"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message):
    """In one line."""
    shown = CliRunner().invoke(app, ["check", *arguments])
    assert shown.exit_code == 2
    assert message in " ".join(str(shown.output + str(shown.exception)).split())
