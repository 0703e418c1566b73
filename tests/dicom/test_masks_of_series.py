"""Masks find the volume that they were drawn on, by whatever UID they state."""

from collections.abc import Callable

import numpy as np
import pytest
from dicom_files import make_series, random_voxels, write_series
from dicom_masks import make_segmentation, make_structure_set, save
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from autoseg.dicom.masks import describe_frames, describe_mask, place_masks
from autoseg.dicom.search import find_series

SHAPE = (3, 9, 11)
MASK = {"liver": np.ones(SHAPE, bool)}


def reference(data: Dataset) -> Dataset:
    """Returns an item that names a slice."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    return item


def segmentation(slices: list[Dataset]) -> Dataset:
    """Returns a segmentation that names its slices alone."""
    made = make_segmentation(slices, MASK)
    del made.ReferencedSeriesSequence
    return made


def contours(slices: list[Dataset]) -> Dataset:
    """Returns a structure set whose contours name their slices alone."""
    made = structures(slices)
    del made.ReferencedFrameOfReferenceSequence
    for contour, data in zip(made.ROIContourSequence[0].ContourSequence, slices, strict=True):
        contour.ContourImageSequence = [reference(data)]
    return made


def structures(slices: list[Dataset]) -> Dataset:
    """Returns a structure set that states its frame of reference alone."""
    corners = np.array([[1, 1, 0], [5, 1, 0], [5, 5, 0]])
    positions = [np.asarray(data.ImagePositionPatient, float) for data in slices]
    made = make_structure_set(slices, {"liver": [position + corners for position in positions]})
    frame = Dataset()
    frame.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    made.ReferencedFrameOfReferenceSequence = [frame]
    return made


@pytest.mark.parametrize("make", [segmentation, contours, structures])
def test_masks_without_the_uid_of_a_series_find_it(tmp_path, make: Callable[[list[Dataset]], Dataset]):
    """By the slices that they name, or by the frame of reference if no other series has it."""
    for name in ("anna", "bert"):
        slices = make_series(random_voxels(SHAPE), description=name)
        write_series(tmp_path / name, slices)
        save(tmp_path / name, make(slices), "mask.dcm")
    files = find_series(tmp_path)
    placed = place_masks([describe_mask(header) for header in files.masks], files.series)
    assert [(mask.path.parent.name, [one.description for one in found]) for mask, found in placed] == [
        ("anna", ["anna"]),
        ("bert", ["bert"]),
    ]
    assert all(mask.series_uid == found[0].uid for mask, found in placed)


def test_a_frame_of_reference_of_two_series_decides_nothing(tmp_path):
    """A structure set that states no more than it could belong to either."""
    slices = make_series(random_voxels(SHAPE), description="native")
    write_series(tmp_path / "native", slices)
    write_series(tmp_path / "portal", make_series(random_voxels(SHAPE), description="portal", study=slices[0]))
    save(tmp_path, structures(slices), "mask.dcm")
    files = find_series(tmp_path)
    [(mask, found)] = place_masks([describe_mask(header) for header in files.masks], files.series)
    assert (mask.series_uid, found) == ("", [])


def test_of_several_volumes_of_a_series_the_one_that_was_drawn_on_counts(tmp_path):
    """The second of three echoes."""
    echoes = [make_series(random_voxels(SHAPE)) for _ in range(3)]
    for number, echo in enumerate(echoes, start=1):
        for data in echo:
            data.SeriesInstanceUID, data.StudyInstanceUID = (
                echoes[0][0].SeriesInstanceUID,
                echoes[0][0].StudyInstanceUID,
            )
            data.EchoTime = 10 * number
    write_series(tmp_path, [data for echo in echoes for data in echo])
    save(tmp_path, make_segmentation(echoes[1], MASK), "mask.dcm")
    files = find_series(tmp_path)
    [(_, found)] = place_masks([describe_mask(header) for header in files.masks], files.series)
    assert [one.part for one in found] == ["EchoTime 20.0"]


def test_another_frame_of_reference_is_said(tmp_path):
    """The mask lies on the voxels, but its positions may mean something else."""
    slices = make_series(random_voxels(SHAPE))
    write_series(tmp_path, slices)
    made = make_segmentation(slices, MASK)
    save(tmp_path, made, "same.dcm")
    made.FrameOfReferenceUID = generate_uid()
    save(tmp_path, made, "other.dcm")
    files = find_series(tmp_path)
    [line] = describe_frames(place_masks([describe_mask(header) for header in files.masks], files.series))
    assert "other.dcm and series 1 'made up' (MR) have different frames of reference" in line
