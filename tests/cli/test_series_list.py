"""The command that lists series of DICOM files."""

import zipfile

import pytest
from dicom_files import make_series, random_voxels, write_series
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.errors import DatasetError, ProblemsError


def run(source) -> tuple[int, str]:
    """Runs the command; returns exit code and output."""
    result = CliRunner().invoke(app, ["series", str(source)])
    return result.exit_code, result.output


def test_examinations_have_a_table_each(tmp_path):
    """In folders, and in a zip file of them."""
    for name in ("anna", "bert"):
        write_series(tmp_path / "scans" / name, make_series(random_voxels((3, 5, 7)), description=f"T2 of {name}"))
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for path in sorted((tmp_path / "scans").rglob("IM*")):
            archive.write(path, path.relative_to(tmp_path / "scans"))
    for source in (tmp_path / "scans", tmp_path / "scans.zip"):
        code, shown = run(source)
        assert code == 0
        assert all(text in shown for text in ("anna", "bert", "T2 of anna", "7 x 5 x 3"))


def test_what_cannot_be_read_is_named(tmp_path):
    """A missing slice is in the table, and the exit code tells."""
    slices = make_series(random_voxels((6, 5, 7)))
    write_series(tmp_path / "scan", slices[:2] + slices[3:])
    code, shown = run(tmp_path / "scan")
    assert code == 2
    assert "missing" in shown
    [examination] = autoseg.list_series(tmp_path / "scan")
    assert examination.series[0].defect is not None


def test_a_source_without_series_is_refused(tmp_path):
    """With what it lacks."""
    with pytest.raises(DatasetError, match="does not exist"):
        autoseg.list_series(tmp_path / "missing")
    with pytest.raises(DatasetError, match="holds no series of images in DICOM"):
        autoseg.list_series(tmp_path)
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes(200))
    with pytest.raises(ProblemsError, match=r"broken\.dcm is damaged"):
        autoseg.list_series(tmp_path)


def test_a_folder_of_zip_files_says_so(tmp_path):
    """Archives send each patient as one; they are given one by one, or unpacked."""
    scan = write_series(tmp_path / "scan", make_series(random_voxels((2, 5, 7))))
    (tmp_path / "patients").mkdir()
    with zipfile.ZipFile(tmp_path / "patients" / "anna.zip", "w") as archive:
        archive.write(scan / "IM0000", "IM0000")
    with pytest.raises(DatasetError, match=r"holds no series of images in DICOM, but .*anna.zip.*archive"):
        autoseg.list_series(tmp_path / "patients")
