"""DICOM files are found in folders, zip files and DICOMDIRs, whatever they are called."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from dicom_files import make_series, random_voxels, write_series
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from autoseg.dicom.detection import holds_dicom, is_dicom_file
from autoseg.dicom.search import find_series, list_dicom_files, unpacked
from autoseg.errors import ImageError, UsageError


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A folder with a series in a subfolder, beside other files."""
    write_series(tmp_path / "scan" / "patient" / "series", make_series(random_voxels((3, 5, 7))))
    (tmp_path / "scan" / "notes.txt").write_text("notes")
    (tmp_path / "scan" / ".hidden").write_bytes(bytes(128) + b"DICM")
    return tmp_path / "scan"


def make_zip(path: Path, folder: Path) -> Path:
    """Packs a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_files_without_an_ending_are_found(scan):
    """The first bytes tell."""
    assert holds_dicom(scan)
    assert len(list_dicom_files(scan)) == 3
    assert not is_dicom_file(scan / "notes.txt")
    assert not is_dicom_file(scan / "missing")


def test_a_file_without_a_preamble_is_found(tmp_path):
    """Old files begin with their first element."""
    [data] = make_series(random_voxels((1, 5, 7)))
    path = write_series(tmp_path, [data]) / "IM0000"
    meta_length = int.from_bytes(path.read_bytes()[140:144], "little")
    path.write_bytes(path.read_bytes()[144 + meta_length :])
    assert [len(series.frames) for series in find_series(tmp_path).series] == [1]


def test_a_zip_file_is_unpacked_while_it_is_needed(tmp_path, scan):
    """Its files are gone afterwards."""
    path = make_zip(tmp_path / "scan.zip", scan)
    assert holds_dicom(path)
    with unpacked(path) as folder:
        assert folder.name == "scan"
        assert [len(series.frames) for series in find_series(folder).series] == [3]
    assert not folder.exists()


def test_names_in_a_zip_file_cannot_lead_out_of_the_folder(tmp_path, scan):
    """They are kept inside."""
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(scan / "patient" / "series" / "IM0000", "../../outside.dcm")
    with unpacked(path) as folder:
        assert [file.name for file in folder.rglob("*.dcm")] == ["outside.dcm"]


def test_names_in_a_zip_file_that_become_one_are_all_kept(tmp_path, scan):
    """A slice that is written over would be lost without a word."""
    path, files = tmp_path / "scan.zip", sorted((scan / "patient" / "series").iterdir())
    with zipfile.ZipFile(path, "w") as archive:
        for file, name in zip(files, ("a/slice", "../a/slice", "/a/slice"), strict=True):
            archive.writestr(name, file.read_bytes())
    with unpacked(path) as folder:
        assert [len(series.frames) for series in find_series(folder).series] == [3]


def test_a_zip_file_of_zip_files_says_what_to_do(tmp_path, scan):
    """It is not damaged; nor is a file of another kind."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(make_zip(tmp_path / "scan.zip", scan), "scan.zip")
    [error] = find_series(tmp_path / "all.zip").damaged
    assert "all.zip holds no DICOM file; unpack it, with the archives inside of it" in str(error)
    [error] = find_series(scan / "notes.txt").damaged
    assert "notes.txt is no DICOM file" in str(error)


def test_a_zip_file_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    """Nothing is unpacked."""
    monkeypatch.setattr("autoseg.dicom.search.GIGABYTE", 2**20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.dcm", "w") as file:
        file.write(bytes(128) + b"DICM")
        for _ in range(4):
            file.write(bytes(2**20))
    with pytest.raises(ImageError, match="do not trust it"), unpacked(path):
        pass


def test_a_damaged_zip_file_is_left_as_it_is(tmp_path):
    """Whoever reads it says that it is no image."""
    path = tmp_path / "scan.zip"
    path.write_bytes(b"PK\x03\x04 no zip file")
    assert not holds_dicom(path)
    with unpacked(path) as source:
        assert source == path


def make_directory(folder: Path) -> Path:
    """Writes a DICOMDIR with its files, as on a disc."""
    file_set = FileSet()
    for data in make_series(random_voxels((3, 5, 7))):
        data.StudyDate, data.StudyTime, data.StudyID = "20200101", "120000", "1"
        file_set.add(data)
    file_set.write(folder)
    file_set._stage["t"].cleanup()
    return folder / "DICOMDIR"


def test_the_files_of_a_dicomdir_are_read(tmp_path):
    """By its list, and by its folder."""
    path = make_directory(tmp_path / "disc")
    assert holds_dicom(path)
    for source in (path, path.parent):
        assert [len(series.frames) for series in find_series(source).series] == [3]


def test_names_on_a_disc_may_be_in_small_letters(tmp_path):
    """Some systems show them so."""
    path = make_directory(tmp_path / "disc")
    for entry in sorted(path.parent.rglob("*"), reverse=True):
        if entry != path:
            entry.rename(entry.with_name(entry.name.lower()))
    assert [len(series.frames) for series in find_series(path).series] == [3]


def test_a_file_that_a_dicomdir_lists_and_is_not_there_is_named(tmp_path):
    """With what to do."""
    path = make_directory(tmp_path / "disc")
    files = [file for file in path.parent.rglob("*") if file.is_file() and file != path]
    files[0].unlink()
    with pytest.raises(ImageError, match=r"lists .*, which is not there; copy the whole medium"):
        find_series(path)


def test_a_damaged_file_gives_its_neighbours_a_defect(scan):
    """A slice may be missing."""
    (scan / "patient" / "series" / "IM0009").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    [series] = find_series(scan).series
    assert series.defect is not None
    assert "IM0009 is damaged" in series.defect.what


def test_masks_and_reports_are_no_series(tmp_path):
    """They are told apart by their class."""
    slices = make_series(random_voxels((3, 5, 7)))
    report = Dataset()
    report.file_meta, report.SOPClassUID = slices[0].file_meta, "1.2.840.10008.5.1.4.1.1.88.11"
    report.SOPInstanceUID, report.SeriesInstanceUID, report.Modality = "1.2.3", "1.2.4", "SR"
    folder = write_series(tmp_path, slices)
    report.save_as(folder / "report", enforce_file_format=True)
    assert len(find_series(folder).series) == 1


def test_without_pydicom_one_line_says_what_to_install(scan, monkeypatch):
    """Nothing else fails before."""
    monkeypatch.setattr("autoseg.dicom.detection.importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'autoseg\[dicom\]'"):
        find_series(scan)


def test_pydicom_is_not_imported_for_other_files(tmp_path):
    """Only a DICOM file leads to it."""
    code = (
        "import sys; from pathlib import Path; from autoseg.dicom.detection import holds_dicom;"
        "import autoseg.dicom.search, autoseg.dicom.pixels; holds_dicom(Path('.')); print('pydicom' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert shown.stdout.strip() == "False"
