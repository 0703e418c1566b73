"""Series of one examination as channels."""

import numpy as np
import pytest
from dicom_files import ORIENTATIONS, make_series, random_voxels, write_series

from autoseg.dicom.channels import read_channels
from autoseg.dicom.examinations import describe_channels, group_examinations
from autoseg.dicom.search import find_series
from autoseg.errors import ImageError


def find_two(folder, first, second):
    """Writes two series and returns them."""
    write_series(folder / "1", first)
    write_series(folder / "2", second)
    return find_series(folder).series


def test_series_on_one_grid_are_joined_as_they_are(tmp_path):
    """No voxel changes, and nothing is said."""
    voxels = random_voxels((2, 4, 5, 7))
    first = make_series(voxels[0])
    series = find_two(tmp_path, first, make_series(voxels[1], number=2, study=first[0]))
    assert np.array_equal(read_channels(series).array, voxels)
    assert describe_channels(series) == []


def test_a_series_in_another_orientation_is_brought_onto_the_first(tmp_path):
    """A ramp along the patient's axes is the same ramp in both."""

    def ramp(orientation: str, shape: tuple[int, int, int]) -> list:
        slices = make_series(random_voxels(shape), orientation=ORIENTATIONS[orientation], spacing_mm=(2.0, 2.0, 2.0))
        for data in slices:
            y, x = np.indices((data.Rows, data.Columns))
            row, column = (
                np.asarray(data.ImageOrientationPatient[:3], float),
                np.asarray(data.ImageOrientationPatient[3:], float),
            )
            place = np.asarray(data.ImagePositionPatient, float) + 2.0 * (x[..., None] * row + y[..., None] * column)
            data.PixelData = np.rint(1000 + 10 * place @ [1.0, 2.0, -1.0]).astype(np.uint16).tobytes()
        return slices

    first, second = ramp("axial", (9, 9, 9)), ramp("column cosine negated", (9, 9, 9))
    for data, other in zip(second, first, strict=True):
        data.FrameOfReferenceUID, data.StudyInstanceUID = other.FrameOfReferenceUID, other.StudyInstanceUID
        data.SeriesNumber = 2
        data.ImagePositionPatient = [10.0, -4.0, float(data.ImagePositionPatient[2]) + 16.0]
        y, x = np.indices((data.Rows, data.Columns))
        place = np.asarray(data.ImagePositionPatient, float) + 2.0 * (
            x[..., None] * [1.0, 0, 0] + y[..., None] * [0, -1.0, 0]
        )
        data.PixelData = np.rint(1000 + 10 * place @ [1.0, 2.0, -1.0]).astype(np.uint16).tobytes()
    series = find_two(tmp_path, first, second)
    joined = read_channels(series).array
    assert np.abs(joined[0] - joined[1]).max() <= 1
    [line] = describe_channels(series)
    assert "is resampled onto the grid of series 1" in line


def test_a_series_elsewhere_is_refused(tmp_path):
    """It does not overlap at all."""
    first = make_series(random_voxels((4, 5, 7)))
    second = make_series(random_voxels((4, 5, 7)), origin_mm=(900.0, 0.0, 0.0), number=2)
    series = find_two(tmp_path, first, second)
    assert "different frames of reference" in describe_channels(series)[1]
    with pytest.raises(ImageError, match="lies nowhere on the grid of the first series"):
        read_channels(series)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["", ""], ["scans_1", "scans_2"]),
        (["p1/ct", "p2/ct"], ["p1", "p2"]),
        (["p1/before", "p1/after", "p2/x/y"], ["p1_after", "p1_before", "p2"]),
        (["p1/ct"], ["scans"]),
    ],
)
def test_examinations_are_named_by_their_folders(tmp_path, folders, names):
    """As many parts of the path as tell them apart; never the name of a patient."""
    for index, folder in enumerate(folders):
        write_series(tmp_path / "scans" / folder, make_series(random_voxels((2, 5, 7))), name=f"IM{index}")
    source = tmp_path / "scans"
    assert [case.name for case in group_examinations(find_series(source).series, source)] == names
