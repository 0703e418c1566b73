"""Segmentation objects: valid, and read by others voxel by voxel as they were written, whatever the orientation."""

import getpass

import numpy as np
import pytest
from dicom_files import make_enhanced, make_series, random_voxels
from dicom_files import write_series as write_files
from dicom_readers import list_errors, put_on_grid, read_by_dcmqi, read_by_highdicom
from dicom_series import MODEL, ORIENTATIONS, affine, slice_segmentation, write_enhanced_series, write_series

from autoseg.dicom.maps import write_disagreement
from autoseg.dicom.search import find_series
from autoseg.dicom.segmentation_objects import write_segmentation
from autoseg.dicom.structure_sets import STUDY, write_structure_set
from autoseg.errors import UsageError

pydicom = pytest.importorskip("pydicom")
segread = pytest.importorskip("highdicom.seg").segread

LABELS = {"liver": (1,), "kidney_left": (2,), "Übrige Strukturen": (3,), "spleen": (4,)}
OVERLAPPING = {"whole": (1, 2, 3), "core": (2,), "liver tumour": (3, 1)}


def make_label(shape) -> np.ndarray:
    """Returns a label map of noise with the numbers 0 to 3: structure 4 is nowhere."""
    return np.random.default_rng(3).integers(0, 4, shape).astype(np.uint8)


def write_object(folder, series, label, structures, kind="seg"):
    """Writes the object of a label map on a series; returns its path."""
    path = folder / f"{kind}.dcm"
    write_segmentation(path, slice_segmentation(series, label, structures), kind)
    return path


def check_masks(masks, label, structures):
    """Every voxel of every structure is where it was; a reader may leave out a segment without voxels."""
    for name, numbers in structures.items():
        expected = np.isin(label, numbers)
        assert np.array_equal(masks.get(name, np.zeros_like(label)), expected), name


@pytest.mark.parametrize("kind", ["seg", "labelmap", "overlapping"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_others_read_what_was_written(tmp_path, orientation, kind):
    """In each orientation, sorted either way, with odd numbers of rows and columns."""
    series = write_series(tmp_path / "in", orientation=orientation, backwards=orientation != "axial")
    label = make_label(series.geometry.shape)
    structures = OVERLAPPING if kind == "overlapping" else LABELS
    path = write_object(tmp_path, series, label, structures, "labelmap" if kind == "labelmap" else "seg")
    grid = affine(series.geometry), label.shape
    check_masks(read_by_highdicom(path, *grid), label, structures)
    check_masks(read_by_dcmqi(path, tmp_path / "dcmqi", *grid), label, structures)
    assert list_errors(path) == []


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
@pytest.mark.parametrize(("shape", "voxels"), [((1, 9, 3), 8), ((3, 3, 3), 3), ((3, 8, 8), 1), ((3, 5, 7), 0)])
def test_small_series_and_results(tmp_path, kind, shape, voxels):
    """One slice, nine pixels, one voxel of a structure, and no structure at all."""
    series = write_series(tmp_path / "in", shape=shape)
    label = np.zeros(shape, np.uint8)
    label.ravel()[:voxels] = 1
    path = write_object(tmp_path, series, label, LABELS, kind)
    assert list_errors(path) == []
    masks = read_by_highdicom(path, affine(series.geometry), shape)
    check_masks(masks, label, LABELS)


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
def test_frames_of_one_file_are_referenced(tmp_path, kind):
    """An enhanced CT whose frames are stored backwards, with one frame that is no slice of the series."""
    series = write_enhanced_series(tmp_path / "in", shape=(4, 6, 5))
    label = make_label(series.geometry.shape)
    path = write_object(tmp_path, series, label, LABELS, kind)
    check_masks(read_by_highdicom(path, affine(series.geometry), label.shape), label, LABELS)
    assert list_errors(path) == []
    frames = set()
    for item in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        image = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == series.frames[0].sop_uid
        frames.add(int(image.ReferencedFrameNumber))
    assert frames == {frame.number + 1 for frame in series.frames}


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_enhanced_files_of_a_single_slice_are_referenced(tmp_path, modality):
    """Scanners write such series; readers find each slice by its file, whose class is that of the file."""
    shape = (4, 7, 5)
    slices = make_series(random_voxels(shape, np.int16), modality=modality)
    enhanced = [make_enhanced([data]) for data in slices]
    [series] = find_series(write_files(tmp_path / "in", enhanced)).series
    label = make_label(shape)
    for kind in ("seg", "labelmap"):
        path = write_object(tmp_path, series, label, LABELS, kind)
        check_masks(read_by_highdicom(path, affine(series.geometry), shape), label, LABELS)
        check_masks(read_by_dcmqi(path, tmp_path / f"dcmqi_{kind}", affine(series.geometry), shape), label, LABELS)
        assert list_errors(path) == []
    segmentation = slice_segmentation(series, label, LABELS)
    write_structure_set(tmp_path / "rtstruct.dcm", segmentation)
    shares = np.random.default_rng(0).random(shape)
    write_disagreement(tmp_path / "disagreement.dcm", shares, segmentation)
    for name in ("seg", "labelmap", "rtstruct", "disagreement"):
        written = pydicom.dcmread(tmp_path / f"{name}.dcm")
        assert list_errors(tmp_path / f"{name}.dcm") == []
        named = [item for item in written.iterall() if item.keyword == "ReferencedSOPClassUID"]
        images = {str(item.value) for item in named} - {STUDY}
        assert images == {str(enhanced[0].SOPClassUID)}


def test_patient_study_and_references_are_kept_and_uids_are_new(tmp_path):
    """The object belongs to the study; its frames name the slices that lie where they do."""
    series = write_series(tmp_path / "in", backwards=True)
    label = make_label(series.geometry.shape)
    written = pydicom.dcmread(write_object(tmp_path, series, label, LABELS))
    source = pydicom.dcmread(series.frames[0].path)
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "FrameOfReferenceUID", "StudyID",
                    "AccessionNumber", "StudyDate"):  # fmt: skip
        assert getattr(written, keyword) == getattr(source, keyword)
    assert str(written.PatientName) == "Müller^Änne"
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert written.SOPInstanceUID not in {frame.sop_uid for frame in series.frames}
    assert (written.SeriesDescription, written.SeriesNumber) == ("autoseg Dataset007_Organs, seg", 4001)
    assert written.DeviceSerialNumber == MODEL.digest
    uids = {frame.sop_uid: frame.position_mm for frame in series.frames}
    for item in written.PerFrameFunctionalGroupsSequence:
        uid = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = item.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose([float(value) for value in position], uids[uid], atol=1e-6)


def test_segments_have_names_codes_colours_and_the_model(tmp_path):
    """Names as the user wrote them; codes with sides and regions; different colours."""
    series = write_series(tmp_path / "in")
    names = ("kidney_left", "liver tumour", "Übrige Strukturen", "a\\b\n" * 40, "a\\b\n" * 50)
    structures = {name: (number,) for number, name in enumerate(names, start=1)}
    path = write_object(tmp_path, series, make_label(series.geometry.shape), structures)
    assert list_errors(path) == []
    kidney, tumour, other, *long = pydicom.dcmread(path).SegmentSequence
    assert [segment.SegmentLabel for segment in (kidney, tumour, other)] == list(names[:3])
    assert all(len(segment.SegmentLabel) <= 64 and "\\" not in segment.SegmentLabel for segment in long)
    assert len({segment.SegmentLabel for segment in long}) == 2
    type_code = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert type_code.CodeValue == "64033007"
    assert type_code.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    colours = {tuple(segment.RecommendedDisplayCIELabValue) for segment in (kidney, tumour, other, *long)}
    assert len(colours) == 5
    algorithm = kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "autoseg Dataset007_Organs"
    assert MODEL.digest in algorithm.AlgorithmVersion
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"


def test_anonymized_and_invalid_headers_do_not_stop_the_object(tmp_path):
    """What an object must state and the source lacks is there and empty; invalid values are left out."""
    missing = dict.fromkeys(
        ("PatientName", "PatientID", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDate",
         "FrameOfReferenceUID", "SliceThickness", "SeriesNumber", "PatientBirthDate", "PositionReferenceIndicator")
    )  # fmt: skip
    series = write_series(tmp_path / "in", **missing)
    label = make_label(series.geometry.shape)
    path = write_object(tmp_path, series, label, LABELS)
    assert list_errors(path) == []
    check_masks(read_by_highdicom(path, affine(series.geometry), label.shape), label, LABELS)
    with pytest.warns(UserWarning, match="Invalid value"):
        invalid = write_series(tmp_path / "bad", PatientSex="female", StudyDate="yesterday", PatientAge="61")
    path = write_object(tmp_path, invalid, label, LABELS)
    assert list_errors(path) == []
    written = pydicom.dcmread(path)
    assert (written.PatientSex, written.StudyDate, "PatientAge" in written) == ("", "", False)


def test_anonymized_files_stay_anonymized(tmp_path):
    """The object says so too, with the method, or that it is not stated."""
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Application Confidentiality"
    for name, stated in (
        ("coded", {"DeidentificationMethodCodeSequence": [code]}),
        ("text", {"DeidentificationMethod": "by hand"}),
        ("nothing", {}),
    ):
        series = write_series(tmp_path / name, PatientIdentityRemoved="YES", **stated)
        label = make_label(series.geometry.shape)
        path = write_object(tmp_path, series, label, LABELS)
        assert list_errors(path) == []
        assert pydicom.dcmread(path).PatientIdentityRemoved == "YES"
        write_structure_set(path, slice_segmentation(series, label, LABELS))
        assert list_errors(path) == []


def test_more_than_255_segments(tmp_path):
    """A label map has numbers of 16 bits then."""
    series = write_series(tmp_path / "in", shape=(2, 20, 16))
    label = np.arange(640, dtype=np.uint16).reshape(2, 20, 16) % 301
    structures = {f"structure {number}": (number,) for number in range(1, 301)}
    path = write_object(tmp_path, series, label, structures, "labelmap")
    volume = segread(path).get_volume(combine_segments=True)
    placed = put_on_grid(volume.array, volume.affine, affine(series.geometry), label.shape)
    assert np.array_equal(placed, label)


def test_a_label_map_cannot_hold_overlaps(tmp_path):
    """The message says what can."""
    series = write_series(tmp_path / "in")
    with pytest.raises(UsageError, match=r"may overlap.*--dicom seg"):
        write_object(tmp_path, series, make_label(series.geometry.shape), OVERLAPPING, "labelmap")
    assert not (tmp_path / "labelmap.dcm").exists()


def test_nothing_of_this_machine_enters_the_object(tmp_path):
    """Neither the user's name, nor a path, nor the name of a file."""
    series = write_series(tmp_path / "secret_case_17")
    for kind in ("seg", "labelmap"):
        path = write_object(tmp_path, series, make_label(series.geometry.shape), LABELS, kind)
        content = path.read_bytes().lower()
        for private in (getpass.getuser(), "secret_case", "slice_001", str(tmp_path)):
            assert private.lower().encode() not in content, private
