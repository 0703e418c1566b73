"""Maps of probabilities and of disagreement: valid, and read by others as they were written."""

import numpy as np
import pytest
from dicom_readers import list_errors, put_on_grid
from dicom_series import affine, slice_segmentation, write_enhanced_series, write_series

from autoseg.dicom.maps import write_disagreement, write_probabilities

pydicom = pytest.importorskip("pydicom")
imread = pytest.importorskip("highdicom").imread

WRITERS = {"probabilities": write_probabilities, "disagreement": write_disagreement}


def write_object(folder, series, values, kind):
    """Writes the object of a map of the liver; returns its path."""
    path = folder / f"{kind}.dcm"
    WRITERS[kind](path, values, slice_segmentation(series, np.zeros(values.shape, np.uint8), {"liver": (1,)}))
    return path


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("orientation", ["axial", "sagittal", "oblique", "frames"])
def test_numbers_are_where_they_were(tmp_path, orientation, kind):
    """To a 255th, in several orientations, and on the frames of one file."""
    folder = tmp_path / "in"
    series = (
        write_enhanced_series(folder)
        if orientation == "frames"
        else write_series(folder, orientation=orientation, backwards=True)
    )
    values = np.random.default_rng(2).random(series.geometry.shape, np.float32)
    path = write_object(tmp_path, series, values, kind)
    assert list_errors(path) == []
    placed = np.zeros(values.shape)
    read = pydicom.dcmread(path)
    stored = read.pixel_array.reshape(-1, *values.shape[1:])
    for number, item in enumerate(read.PerFrameFunctionalGroupsSequence):
        one = np.eye(4)
        shared = read.SharedFunctionalGroupsSequence[0]
        plane = shared if "PlaneOrientationSequence" in shared else item
        cosines = np.array(plane.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        measures = shared if "PixelMeasuresSequence" in shared else item
        down, across = (float(value) for value in measures.PixelMeasuresSequence[0].PixelSpacing)
        one[:3, 0], one[:3, 1] = cosines[:3] * across, cosines[3:] * down
        one[:3, 2] = np.cross(cosines[:3], cosines[3:])
        one[:3, 3] = [float(value) for value in item.PlanePositionSequence[0].ImagePositionPatient]
        if stored[number].any():
            placed += put_on_grid(stored[number].T[:, :, np.newaxis], one, affine(series.geometry), values.shape)
    assert np.abs(placed / 255 - values).max() <= 0.5 / 255 + 1e-6


def test_what_maps_say_of_themselves(tmp_path):
    """Probabilities are of a structure; disagreement has a scale from 0 to 1."""
    series = write_series(tmp_path / "in")
    values = np.full(series.geometry.shape, 0.5, np.float32)
    fractional = pydicom.dcmread(write_object(tmp_path, series, values, "probabilities"))
    assert (fractional.SegmentationFractionalType, fractional.MaximumFractionalValue) == ("PROBABILITY", 255)
    assert fractional.SegmentSequence[0].SegmentLabel == "liver"
    parametric = imread(write_object(tmp_path, series, values, "disagreement"))
    assert np.allclose(parametric.get_frame(1, apply_real_world_transform=True), 128 / 255)
    assert fractional.PatientID == parametric.PatientID == "P-17"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_map_of_zeros(tmp_path, kind):
    """Nothing anywhere is an object too."""
    series = write_series(tmp_path / "in")
    path = write_object(tmp_path, series, np.zeros(series.geometry.shape, np.float32), kind)
    assert list_errors(path) == []
    assert not pydicom.dcmread(path).pixel_array.any()
