"""Volumes of one series are named by what tells them apart, so that they can be chosen by it."""

import numpy as np
import pytest
from dicom_files import ORIENTATIONS, make_series, random_voxels, write_series
from pydicom.dataset import Dataset

from autoseg.dicom.pixels import read_series
from autoseg.dicom.search import find_series
from autoseg.dicom.selection import SeriesChoice, choose_series

VOXELS = random_voxels((4, 3, 5, 7))


def make_volumes(*, modality: str = "MR") -> list[list[Dataset]]:
    """Makes four volumes of one series at the same place, with nothing to tell them apart but instance numbers."""
    volumes = [make_series(voxels.astype(np.int16), modality=modality, description="DWI") for voxels in VOXELS]
    for index, data in enumerate(data for volume in volumes for data in volume):
        data.SeriesInstanceUID, data.StudyInstanceUID = volumes[0][0].SeriesInstanceUID, volumes[0][0].StudyInstanceUID
        data.InstanceNumber = index + 1
    return volumes


def find(folder, volumes):
    """Writes volumes and returns the series that are found."""
    return find_series(write_series(folder, [data for volume in volumes for data in volume])).series


@pytest.mark.parametrize(
    ("group", "element", "creator", "vr", "values"),
    [
        (0x0019, 0x0C, "SIEMENS MR HEADER", "IS", ("0", "50", "400", "800")),
        (0x0043, 0x39, "GEMS_PARM_01", "IS", (["0", "8"], ["1000000050", "8"], ["1000000400", "8"], ["800", "8"])),
        (0x2001, 0x03, "Philips Imaging DD 001", "FL", (0.0, 50.0, 400.0, 800.0)),
    ],
)
def test_b_values_of_makers_name_volumes(tmp_path, group, element, creator, vr, values):
    """Older scanners state them in elements of their own."""
    volumes = make_volumes()
    for volume, value in zip(volumes, values, strict=True):
        for data in volume:
            data.private_block(group, creator, create=True).add_new(element, vr, value)
    series = find(tmp_path, volumes)
    assert [one.part for one in series] == [f"DiffusionBValue {value}" for value in (0, 50, 400, 800)]
    [chosen] = choose_series(series, SeriesChoice(series="dwi*bvalue 400"), "case")
    assert np.array_equal(read_series(chosen).array[0], VOXELS[2])


def test_directions_of_one_b_value_are_numbered(tmp_path):
    """One volume without diffusion, and three directions of a b-value."""
    volumes = make_volumes()
    for volume, value in zip(volumes, (0.0, 800.0, 800.0, 800.0), strict=True):
        for data in volume:
            data.DiffusionBValue = value
    strengths = (0.0, 800.0, 800.0, 800.0)
    names = [f"volume {number} of 4, DiffusionBValue {value}" for number, value in enumerate(strengths, start=1)]
    assert [one.part for one in find(tmp_path, volumes)] == names


def test_kernels_of_one_series_are_volumes(tmp_path):
    """A scanner sends two reconstructions as one series."""
    volumes = make_volumes(modality="CT")[:2]
    for volume, kernel in zip(volumes, ("B30f", "B70f"), strict=True):
        for data in volume:
            data.ConvolutionKernel = kernel
    assert [one.part for one in find(tmp_path, volumes)] == ["ConvolutionKernel B30f", "ConvolutionKernel B70f"]


def test_orientations_of_one_series_are_named_by_their_planes(tmp_path):
    """Three planes that nothing calls localizers; one of them is chosen by its name."""
    planes = ("axial", "sagittal", "coronal")
    volumes = [make_series(VOXELS[0], orientation=ORIENTATIONS[plane], description="survey") for plane in planes]
    for data in (data for volume in volumes for data in volume):
        data.SeriesInstanceUID, data.StudyInstanceUID = volumes[0][0].SeriesInstanceUID, volumes[0][0].StudyInstanceUID
    series = find(tmp_path, volumes)
    assert [one.part for one in series] == [
        f"grid {index} of 3, {plane}" for index, plane in enumerate(planes, start=1)
    ]
    [chosen] = choose_series(series, SeriesChoice(series="survey*sagittal"), "case")
    assert chosen == series[1]


def test_a_slice_without_a_position_is_named(tmp_path):
    """It is not the fault of all files."""
    slices = make_series(VOXELS[0])
    del slices[1].ImagePositionPatient
    [series] = find(tmp_path, [slices])
    assert "slices that do not state where they lie: 1 of 3, first IM0001" in str(series.defect)
