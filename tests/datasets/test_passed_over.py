"""What lies beside scans and is no scan for this program is named once, and nothing else is."""

import os

import pytest

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.passed_over import describe_passed_over, find_passed_over

DICOM_BYTES = bytes(128) + b"DICM" + bytes(60)


def fill(folder, **files):
    """Writes files, and makes folders of those whose content is a dictionary."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, dict):
            fill(folder / name, **content)
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"IM1.dcm": b"", "IM2.dcm": b""},
            "2 entries (IM1.dcm, IM2.dcm), each a DICOM file; put DICOM files into a folder of their own",
        ),
        ({"IM0001": DICOM_BYTES}, "IM0001, a DICOM file; put DICOM files into a folder"),
        ({"brain.MGZ": b""}, "brain.MGZ, a FreeSurfer image; convert it with 'mri_convert"),
        ({"a.hdr": b"", "a.img": b""}, "2 entries (a.hdr, a.img), each a half of a pair .hdr/.img; join"),
        ({"p1": {"scan.nii.gz": b""}}, "p1, a subfolder with images; give that folder"),
        ({"p1": {"visit": {"scan.nii.gz": b""}}}, "p1, a subfolder with images"),
        ({"p1": {"IM1.dcm": b""}}, "p1, a subfolder with images"),
        ({".scan.nii.gz.icloud": b"bplist00"}, ".scan.nii.gz.icloud, a placeholder of iCloud; download"),
        ({"a.nrrd": b"", "a.seg.nrrd": b""}, "a.seg.nrrd, a segmentation of Slicer beside its scan"),
        ({"scan": b"\x89PNG\r\n\x1a\n"}, "scan, a PNG picture with another ending; rename it to .png"),
        ({"scans.zip": b""}, "scans.zip, an archive; unpack it"),
    ],
)
def test_each_kind_is_named_once(tmp_path, files, said):
    """With what to do about it."""
    [line] = describe_passed_over(fill(tmp_path / "in", **files))
    assert line.startswith(f"passed over in {tmp_path / 'in'}: {said}")


@pytest.mark.parametrize(
    "files",
    [
        {"a.nii.gz": b"", "b.PNG": b"", "a.json": b"{}", "report.csv": b"", "notes.txt": b"x", "README": b"hello\n"},
        {"probabilities": {"a.nii.gz": b""}, "code": {"x.py": b""}, ".hidden": {"a.nii.gz": b""}, "empty": b""},
        {".DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(20), "b.seg.nrrd": b""},
    ],
)
def test_nothing_else_is_named(tmp_path, files):
    """Scans, tables, results, and what systems leave in folders."""
    assert find_passed_over(fill(tmp_path / "in", **files)) == []


def test_a_pipe_does_not_keep_waiting(tmp_path):
    """It is no regular file, so it is not opened."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes")
    os.mkfifo(tmp_path / "pipe")
    assert find_passed_over(tmp_path) == []
    assert find_passed_over(tmp_path / "nowhere") == []


def test_a_dataset_says_what_it_leaves_out(tmp_path):
    """Files of other kinds, and images with another ending than that of the dataset."""
    info = DatasetInfo(channel_names={"0": "MR"}, labels={"background": 0, "a": 1}, file_ending=".nii.gz")
    info.save(tmp_path / "dataset.json")
    images = {"a_0000.nii.gz": b"", "b_0000.nrrd": b"", "c_0000.mgz": b""}
    fill(tmp_path, imagesTr=images, labelsTr={"a.nii.gz": b"", "b.nrrd": b"", "d.nrrd": b""})
    dataset = Dataset.open(tmp_path)
    assert [case.name for case in dataset.cases] == ["a"]
    mgz, image, labels = dataset.remarks
    assert "c_0000.mgz, a FreeSurfer image" in mgz
    assert image == "imagesTr holds 1 image without the ending .nii.gz, left out: b_0000.nrrd"
    assert labels == "labelsTr holds 2 images without the ending .nii.gz, left out: b.nrrd, d.nrrd"
