"""RTSTRUCT objects: valid, with every voxel inside of the contours of its structure, whatever the orientation."""

import getpass
from dataclasses import replace

import numpy as np
import pytest
from contour_filling import fill
from dicom_readers import list_errors, read_by_plastimatch
from dicom_series import ORIENTATIONS, affine, slice_segmentation, write_enhanced_series, write_series

from autoseg.dicom import structure_sets
from autoseg.dicom.structure_sets import write_structure_set
from autoseg.errors import ImageError

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

STRUCTURES = {"kidney_left": (1,), "whole": (1, 2, 3), "nowhere": (9,)}


def make_label(shape) -> np.ndarray:
    """Returns a label map with islands, holes, and islands in holes."""
    return np.random.default_rng(5).integers(0, 4, shape).astype(np.uint8)


def write_object(folder, series, label, structures=STRUCTURES):
    """Writes the object of a label map; returns its path."""
    path = folder / "rtstruct.dcm"
    write_structure_set(path, slice_segmentation(series, label, structures))
    return path


def read_masks(path, series) -> dict[str, np.ndarray]:
    """Returns the mask of each structure: contours put on the slice that they name, and filled."""
    written = pydicom.dcmread(path)
    names = {region.ROINumber: region.ROIName for region in written.StructureSetROISequence}
    inverse, shape = np.linalg.inv(affine(series.geometry)), series.geometry.shape
    masks = {}
    for region in written.ROIContourSequence:
        drawn = {}
        for contour in region.get("ContourSequence", []):
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            index = points @ inverse[:3, :3].T + inverse[:3, 3]
            number = int(np.rint(index[0, 2]))
            assert np.abs(index[:, 2] - number).max() < 1e-3
            drawn.setdefault(number, []).append(np.rint(index[:, :2] * 2) / 2)
            image = contour.ContourImageSequence[0]
            frame = series.frames[number]
            assert image.ReferencedSOPInstanceUID == frame.sop_uid
            assert image.get("ReferencedFrameNumber") == (None if frame.number is None else frame.number + 1)
        mask = np.zeros(shape, bool)
        for number, contours in drawn.items():
            mask[number] = fill(contours, shape[1:])
        masks[names[region.ReferencedROINumber]] = mask
    return masks


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_filled_contours_are_what_was_segmented(tmp_path, orientation):
    """In each orientation, sorted either way, with structures that overlap and one that is nowhere."""
    series = write_series(tmp_path / "in", orientation=orientation, backwards=orientation != "axial")
    label = make_label(series.geometry.shape)
    path = write_object(tmp_path, series, label)
    masks = read_masks(path, series)
    assert set(masks) == set(STRUCTURES)
    for name, numbers in STRUCTURES.items():
        assert np.array_equal(masks[name], np.isin(label, numbers)), name
    assert list_errors(path) == []


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_others_fill_what_was_segmented(tmp_path, orientation):
    """A hollow ball and its core, as a planning program reads them, in each orientation."""
    shape = (5, 31, 23)
    series = write_series(tmp_path / "in", orientation=orientation, shape=shape)
    middle = (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    radius = (((np.indices(shape) - middle) / middle) ** 2).sum(axis=0)
    label = ((radius < 0.8).astype(np.uint8) + (radius < 0.2)).astype(np.uint8)
    path = write_object(tmp_path, series, label, {"shell": (1,), "core": (2,), "whole": (1, 2)})
    masks = read_by_plastimatch(path, tmp_path / "in", tmp_path / "out", affine(series.geometry), shape)
    assert set(masks) == {"shell", "core", "whole"}
    for name, numbers in {"shell": (1,), "core": (2,), "whole": (1, 2)}.items():
        assert np.array_equal(masks[name], np.isin(label, numbers)), name


@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 1, 1)])
def test_small_series(tmp_path, shape):
    """One slice, and one pixel."""
    series = write_series(tmp_path / "in", shape=shape)
    path = write_object(tmp_path, series, np.ones(shape, np.uint8))
    assert read_masks(path, series)["kidney_left"].all()
    assert list_errors(path) == []


def test_frames_of_one_file_are_named(tmp_path):
    """Contours name the file and the frame."""
    series = write_enhanced_series(tmp_path / "in")
    label = make_label(series.geometry.shape)
    path = write_object(tmp_path, series, label)
    assert np.array_equal(read_masks(path, series)["kidney_left"], label == 1)
    assert list_errors(path) == []


def test_numbers_are_short(tmp_path):
    """At most 16 characters, far away and with small pixels too."""
    for number, position in enumerate(((1234567890.125, -98765432.5, 1e-7), (-0.001, 123456.7, -99999.5))):
        series = write_series(tmp_path / str(number), shape=(1, 4, 4), spacing_mm=(1.0, 0.0123, 0.0123))
        series = replace(series, frames=(replace(series.frames[0], position_mm=position),))
        path = write_object(tmp_path, series, make_label((1, 4, 4)))
        values = pydicom.dcmread(path).ROIContourSequence[1].ContourSequence[0].get_item("ContourData").value
        texts = values.decode().split("\\")
        assert max(map(len, texts)) <= 16
        assert len(values) % 2 == 0


def test_patient_names_codes_and_colours(tmp_path):
    """The object belongs to the study, has names as the user wrote them, and nothing of this machine."""
    series = write_series(tmp_path / "secret_case_17")
    structures = STRUCTURES | {"Übrige\\Strukturen": (2,)}
    path = write_object(tmp_path, series, make_label(series.geometry.shape), structures)
    written, source = pydicom.dcmread(path), pydicom.dcmread(series.frames[0].path)
    assert list_errors(path) == []
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert getattr(written, keyword) == getattr(source, keyword)
    assert str(written.PatientName) == "Müller^Änne"
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert [region.ROIName for region in written.StructureSetROISequence][-1] == "Übrige/Strukturen"
    code = written.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert code.CodeMeaning == "Kidney"
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert len({tuple(region.ROIDisplayColor) for region in written.ROIContourSequence}) == 4
    referenced = written.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    images = referenced.RTReferencedSeriesSequence[0].ContourImageSequence
    assert [image.ReferencedSOPInstanceUID for image in images] == [frame.sop_uid for frame in series.frames]
    content = path.read_bytes().lower()
    for private in (getpass.getuser(), "secret_case", str(tmp_path)):
        assert private.lower().encode() not in content


def test_noise_is_refused_before_all_of_it_is_drawn(tmp_path, monkeypatch):
    """The islands of all structures count together; as many as are allowed are written."""
    series = write_series(tmp_path / "scan", shape=(4, 16, 16))
    label = np.zeros((4, 16, 16), dtype=np.uint8)
    label[::2, ::4, ::4], label[1::2, ::4, ::4] = 1, 2
    segmentation = slice_segmentation(series, label, {"one": (1,), "two": (2,)})
    monkeypatch.setattr(structure_sets, "MOST_CONTOURS", 64)
    write_structure_set(tmp_path / "all.dcm", segmentation)
    assert list_errors(tmp_path / "all.dcm") == []
    monkeypatch.setattr(structure_sets, "MOST_CONTOURS", 63)
    with pytest.raises(ImageError, match=r"fall into more than 63 islands .* ask for seg or labelmap instead"):
        write_structure_set(tmp_path / "none.dcm", segmentation)
    assert not (tmp_path / "none.dcm").exists()
