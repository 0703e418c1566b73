"""Volumes of one series are told apart, and what is wrong with one is named."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import AXIAL, ORIENTATIONS, make_series, random_voxels, write_series
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from autoseg.dicom.pixels import read_series
from autoseg.dicom.search import find_series
from autoseg.dicom.series import Series
from autoseg.errors import ImageError


def find(folder: Path, slices: Sequence[Dataset]) -> list[Series]:
    """Writes slices and returns the series in them."""
    return list(find_series(write_series(folder, slices)).series)


def find_defect(folder: Path, slices: Sequence[Dataset]) -> str:
    """Returns the message about the only series in the slices."""
    [series] = find(folder, slices)
    with pytest.raises(ImageError) as caught:
        read_series(series)
    return str(caught.value)


def make_volumes(count: int, depth: int = 4, **options: object) -> tuple[np.ndarray, list[list[Dataset]]]:
    """Makes volumes of one series at the same place; instance numbers go on."""
    voxels = random_voxels((count, depth, 5, 7))
    volumes = [make_series(volume, **options) for volume in voxels]  # type: ignore[arg-type]
    for index, data in enumerate(data for volume in volumes for data in volume):
        data.SeriesInstanceUID, data.StudyInstanceUID = volumes[0][0].SeriesInstanceUID, volumes[0][0].StudyInstanceUID
        data.InstanceNumber = index + 1
    return voxels, volumes


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (1, 2, 10)),
        ("TemporalPositionIdentifier", (1, 2, 3)),
        ("EchoTime", (2.3, 10.5, 20.25)),
        ("DiffusionBValue", (0.0, 50.0, 800.0)),
        ("SequenceName", ("ep_b0", "ep_b50t", "ep_b800t")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"], ["ORIGINAL", "PRIMARY", "R"])),
        (None, (1, 2, 3)),
    ],
)
def test_volumes_at_the_same_place_are_told_apart(tmp_path, keyword, values):
    """By acquisition, point in time, echo, diffusion, type of image; and else by their instance numbers."""
    voxels, volumes = make_volumes(3)
    for volume, value in zip(volumes, values, strict=True):
        for data in volume:
            if keyword is not None:
                setattr(data, keyword, value)
    mixed = [data for slices in zip(*volumes, strict=True) for data in slices]
    found = find(tmp_path / "scan", mixed)
    assert len(found) == 3
    assert len({series.part for series in found}) == 3
    for expected in voxels:
        assert any(np.array_equal(read_series(series).array[0], expected) for series in found)


def test_two_attributes_together_tell_volumes_apart(tmp_path):
    """Two echoes, each as magnitude and phase."""
    _, volumes = make_volumes(4)
    for index, volume in enumerate(volumes):
        for data in volume:
            data.EchoTime, data.ImageType = 2.0 + index % 2, ["ORIGINAL", "PRIMARY", "MP"[index // 2]]
    parts = {series.part for series in find(tmp_path / "scan", [data for volume in volumes for data in volume])}
    assert "EchoTime 3.0, ImageType ORIGINAL/PRIMARY/P" in parts
    assert len(parts) == 4


def test_a_localizer_inside_is_a_volume_of_its_own(tmp_path):
    """Three slices of another orientation and size do not disturb the volume."""
    scan = make_series(random_voxels((4, 5, 7)))
    scout = make_series(random_voxels((1, 9, 9)), orientation=ORIENTATIONS["sagittal"])
    scout[0].SeriesInstanceUID = scan[0].SeriesInstanceUID
    found = find(tmp_path / "scan", [*scan, *scout])
    assert [len(series.frames) for series in found] == [4, 1]
    assert all(series.defect is None for series in found)


@pytest.mark.parametrize(
    ("role", "sop_class", "image_type"),
    [("localizer", None, ["ORIGINAL", "PRIMARY", "LOCALIZER"]), ("secondary capture", "1.2.840.10008.5.1.4.1.1.7", [])],
)
def test_images_that_are_no_scans_are_told(tmp_path, role, sop_class, image_type):
    """A localizer says so itself, and a secondary capture by its class."""
    slices = make_series(random_voxels((1, 5, 7)))
    slices[0].ImageType = image_type
    slices[0].SOPClassUID = sop_class or slices[0].SOPClassUID
    assert [series.role for series in find(tmp_path / "scan", slices)] == [role]


def test_a_file_that_is_there_twice_counts_once(tmp_path):
    """Copies are left out and said."""
    slices = make_series(random_voxels((4, 5, 7)))
    [series] = find(tmp_path / "scan", [*slices, *slices[:2]])
    assert len(series.frames) == 4
    assert series.remarks == ("2 of its slices are there twice",)


def test_other_slices_at_the_same_place_are_refused(tmp_path):
    """Two different slices at one place, and nothing that tells them apart."""
    slices = make_series(random_voxels((5, 5, 7)))
    slices[4].ImagePositionPatient = slices[3].ImagePositionPatient
    message = find_defect(tmp_path / "scan", slices)
    assert "1 of its 5 slices lie where another one lies" in message


@pytest.mark.parametrize(("missing", "count"), [([2], 1), ([2, 3], 2), ([2, 5], 2)])
def test_missing_slices_are_named(tmp_path, missing, count):
    """The message names the files before and after the gap."""
    slices = make_series(random_voxels((9, 5, 7)))
    kept = [data for index, data in enumerate(slices) if index not in missing]
    message = find_defect(tmp_path / "scan", kept)
    assert f"{count} slice{'s are' if count > 1 else ' is'} missing" in message
    assert "IM0001" in message
    assert "fetch the whole series" in message


def test_a_missing_first_slice_is_remarked(tmp_path):
    """Only the instance numbers tell."""
    [series] = find(tmp_path / "scan", make_series(random_voxels((6, 5, 7)))[2:])
    assert series.remarks == ("its instance numbers begin with 3: slices may be missing at its start",)


def test_varying_distances_are_named(tmp_path):
    """Slices that are 3 and 4.4 mm apart."""
    slices = make_series(random_voxels((6, 5, 7)))
    for index, data in enumerate(slices):
        data.ImagePositionPatient = [0.0, 0.0, (0.0, 3.0, 6.0, 10.4, 14.8, 17.8)[index]]
    assert "the distance between its slices varies from 3 to 4.4 mm" in find_defect(tmp_path / "scan", slices)


def test_acquisitions_of_two_places_are_told_apart(tmp_path):
    """Chest and abdomen in one series, with a gap between them that is no whole number of slices."""
    slices = make_series(random_voxels((8, 5, 7)))
    for index, data in enumerate(slices):
        data.AcquisitionNumber = 1 + index // 4
        data.ImagePositionPatient = [0.0, 0.0, 3.0 * index + (70.7 if index >= 4 else 0.0)]
    assert [len(series.frames) for series in find(tmp_path / "scan", slices)] == [4, 4]


def test_rounded_positions_are_even(tmp_path):
    """Positions at 0.625 mm that are rounded to a tenth."""
    slices = make_series(random_voxels((20, 5, 7)))
    for index, data in enumerate(slices):
        data.ImagePositionPatient = [0.0, 0.0, round(0.625 * index, 1)]
    [series] = find(tmp_path / "scan", slices)
    assert series.grid().spacing_mm[0] == pytest.approx(0.625, abs=0.005)


def test_a_tilted_gantry_is_named_with_its_angle(tmp_path):
    """Slices that move along the table, and not along their normal."""
    slices = make_series(random_voxels((6, 5, 7)), orientation=(AXIAL[0], (0.0, np.cos(0.2), np.sin(0.2))))
    for index, data in enumerate(slices):
        data.ImagePositionPatient = [0.0, 0.0, 3.0 * index]
    [series] = find(tmp_path / "scan", slices)
    grid = series.grid()
    assert grid.spacing_mm[0] == pytest.approx(3.0)
    np.testing.assert_allclose(np.asarray(grid.direction)[:, 0], [1.0, 0.0, 0.0], atol=1e-9)
    with pytest.raises(ImageError, match=r"11\.5 degrees, as a tilted gantry leaves them; straighten it"):
        read_series(series)


def test_slices_that_jump_sideways_are_refused(tmp_path):
    """One slice lies aside."""
    slices = make_series(random_voxels((6, 5, 7)))
    slices[3].ImagePositionPatient = [25.0, *slices[3].ImagePositionPatient[1:]]
    assert "shifted sideways irregularly" in find_defect(tmp_path / "scan", slices)


def test_a_radial_acquisition_is_one_series_with_a_defect(tmp_path):
    """Each slice has another orientation."""
    slices = make_series(random_voxels((8, 5, 7)))
    for index, data in enumerate(slices):
        angle = np.pi * index / 8
        data.ImageOrientationPatient = [np.cos(angle), np.sin(angle), 0.0, 0.0, 0.0, -1.0]
    assert "each of its slices has another orientation" in find_defect(tmp_path / "scan", slices)


def test_colours_are_no_scan(tmp_path):
    """A secondary capture in colour is listed and not read."""
    slices = make_series(random_voxels((1, 5, 7), np.uint8, 255))
    slices[0].SamplesPerPixel, slices[0].PhotometricInterpretation, slices[0].PlanarConfiguration = 3, "RGB", 0
    slices[0].PixelData = bytes(105)
    slices[0].SOPClassUID = SecondaryCaptureImageStorage
    assert "its voxels are colours" in find_defect(tmp_path / "scan", slices)


def test_a_mosaic_is_refused(tmp_path):
    """Slices as tiles of one picture need another program."""
    slices = make_series(random_voxels((1, 6, 8)))
    slices[0].ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    assert "convert it with dcm2niix first" in find_defect(tmp_path / "scan", slices)


def test_x_rays_are_planes(tmp_path):
    """Pictures without a place in the patient are planes, each for itself."""
    slices = make_series(random_voxels((2, 5, 7)))
    for data in slices:
        del data.ImagePositionPatient, data.ImageOrientationPatient
    found = find(tmp_path / "scan", slices)
    assert [read_series(series).geometry.dimensions for series in found] == [2, 2]


def test_files_that_state_no_series_are_one_for_each_folder(tmp_path):
    """Some anonymised files have lost their UIDs."""
    slices = make_series(random_voxels((3, 5, 7)))
    for data in slices:
        del data.SeriesInstanceUID, data.StudyInstanceUID
    write_series(tmp_path / "a", slices)
    for data in slices:
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    write_series(tmp_path / "b", slices)
    assert [len(series.frames) for series in find_series(tmp_path).series] == [3, 3]


def test_series_are_listed_by_their_number(tmp_path):
    """The order of the table is that of the scanner."""
    for number in (12, 3, 7):
        write_series(tmp_path / str(number), make_series(random_voxels((2, 5, 7)), number=number))
    assert [series.number for series in find_series(tmp_path).series] == [3, 7, 12]
    assert pydicom.dcmread(find_series(tmp_path).series[0].paths[0]).SeriesNumber == 3


def test_a_tilted_gantry_is_straightened_if_asked_for(tmp_path):
    """A ball that lies askew in the slices is where it was, and the shift is gone."""
    tilt, size = 0.2, (12, 40, 40)
    column = np.array([0.0, np.cos(tilt), np.sin(tilt)])
    z, y, x = np.indices(size)
    places = x[..., np.newaxis] * AXIAL[0] + y[..., np.newaxis] * column + z[..., np.newaxis] * np.array([0.0, 0, 3])
    centre = np.array([20.0, 20.0, 20.0])
    ball = np.where(np.linalg.norm(places - centre, axis=-1) < 9.0, 1000, 0).astype(np.uint16)
    slices = make_series(ball, orientation=(AXIAL[0], column), spacing_mm=(3.0, 1.0, 1.0))
    for index, data in enumerate(slices):
        data.ImagePositionPatient = [0.0, 0.0, 3.0 * index]
    [series] = find(tmp_path / "scan", slices)
    volume = read_series(replace(series, straighten=True))
    geometry = volume.geometry
    steps = np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm)
    indices = np.argwhere(volume.array[0] > 500)
    assert np.abs(steps.T @ steps - np.diag(np.diag(steps.T @ steps))).max() < 1e-9
    np.testing.assert_allclose((indices @ steps.T + geometry.origin_mm).mean(axis=0), centre[::-1], atol=0.3)


def test_slices_that_share_one_uid_are_all_kept(tmp_path):
    """A program that copies files gives them all one SOP Instance UID; they lie at different places."""
    voxels = random_voxels((4, 5, 7))
    slices = make_series(voxels)
    for data in slices:
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = slices[0].SOPInstanceUID
    [series] = find(tmp_path / "scan", slices)
    assert series.remarks == ()
    assert np.array_equal(read_series(series).array[0], voxels)


def test_series_that_share_one_uid_keep_their_names_and_modalities(tmp_path):
    """Of one modality at one place, and of two modalities."""
    voxels = random_voxels((4, 5, 7))
    first = make_series(voxels, modality="CT", description="native")
    others = [
        make_series(voxels + 1, modality="CT", description="portal", number=2, study=first[0]),
        make_series(voxels + 2, modality="MR", description="T2", number=3, study=first[0]),
    ]
    for data in (data for slices in others for data in slices):
        data.SeriesInstanceUID = first[0].SeriesInstanceUID
    found = find(tmp_path / "scan", [*first, *others[0], *others[1]])
    names = [(series.modality, series.description, series.number) for series in found]
    assert names == [("CT", "native", 1), ("CT", "portal", 2), ("MR", "T2", 3)]
    for added, series in enumerate(found):
        assert np.array_equal(read_series(series).array[0], voxels + added)


def test_a_description_that_changes_within_a_volume_does_not_part_it(tmp_path):
    """Half of the slices were renamed."""
    slices = make_series(random_voxels((6, 5, 7)))
    for data in slices[3:]:
        data.SeriesDescription = "renamed"
    [series] = find(tmp_path / "scan", slices)
    assert len(series.frames) == 6


def test_volumes_are_in_the_order_of_their_numbers(tmp_path):
    """A diffusion of 50 comes before one of 400."""
    _, volumes = make_volumes(3)
    for strength, slices in zip((800.0, 50.0, 400.0), volumes, strict=True):
        for data in slices:
            data.DiffusionBValue = strength
    found = find(tmp_path / "scan", [data for slices in volumes for data in slices])
    assert [series.part for series in found] == [f"DiffusionBValue {value}" for value in (50.0, 400.0, 800.0)]
