"""Files with the same UIDs: copies count once, and what only looks like a copy is kept apart or named."""

import numpy as np
import pytest
from dicom_files import make_series, random_voxels, write_series
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from autoseg.dicom.examinations import group_examinations
from autoseg.dicom.pixels import read_series
from autoseg.dicom.search import find_series
from autoseg.errors import ImageError

VOXELS = random_voxels((4, 5, 7))


def make_two(**changes: str) -> tuple[list[Dataset], list[Dataset]]:
    """Makes two scans of other voxels whose UIDs are the same, as of a program that gives all files one set of them."""
    first, second = make_series(VOXELS), make_series(VOXELS + 1)
    for data, other in zip(second, first, strict=True):
        for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(data, keyword, other.get(keyword))
        for keyword, value in changes.items():
            setattr(data, keyword, value)
    return first, second


def test_patients_who_share_uids_are_two_examinations(tmp_path):
    """Their Patient IDs differ; both scans are read."""
    for name, slices in zip(("anna", "bert"), make_two(PatientID="bert"), strict=True):
        write_series(tmp_path / name, slices)
    examinations = group_examinations(find_series(tmp_path).series, tmp_path)
    assert [examination.name for examination in examinations] == ["anna", "bert"]
    for added, examination in enumerate(examinations):
        assert np.array_equal(read_series(examination.series[0]).array[0], VOXELS + added)


def test_scans_that_share_everything_but_voxels_are_refused(tmp_path):
    """One of them would be lost without a word."""
    for name, slices in zip(("anna", "bert"), make_two(), strict=True):
        write_series(tmp_path / name, slices)
    [series] = find_series(tmp_path).series
    with pytest.raises(ImageError, match=r"anna/IM0000 and .*bert/IM0000 have the same UIDs.*other voxels"):
        read_series(series)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_copies_with_another_header_or_syntax_count_once(tmp_path, syntax):
    """An archive changes names and the way in which files are stored."""
    slices = make_series(VOXELS)
    write_series(tmp_path / "scan", slices)

    def change(data: Dataset, index: int) -> None:
        data.PatientName, data.InstitutionName = "Changed^By the archive", "Elsewhere"
        if syntax == RLELossless:
            data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)

    write_series(tmp_path / "again", slices, change)
    [series] = find_series(tmp_path).series
    assert series.remarks == ("4 of its slices are there twice",)
    assert np.array_equal(read_series(series).array[0], VOXELS)
