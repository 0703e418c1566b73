"""Voxels and places of DICOM series, compared with dcm2niix, and with pydicom where that program differs."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_comparison import assert_same, read_by_dcm2niix
from dicom_files import AXIAL, ORIENTATIONS, make_enhanced, make_series, random_voxels, write_series
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from autoseg.dicom.pixels import read_series
from autoseg.dicom.search import find_series
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Volume


def read_only(folder: Path) -> Volume:
    """Reads the only series of a folder."""
    [series] = find_series(folder).series
    return read_series(series)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("backwards", [False, True])
def test_every_orientation_is_read_as_by_dcm2niix(tmp_path, orientation, backwards):
    """Voxels and matrix are the same whichever way the slices are turned, and in whichever order they are stored."""
    slices = make_series(random_voxels((4, 5, 7)), orientation=ORIENTATIONS[orientation])
    for index, data in enumerate(slices):
        data.InstanceNumber = len(slices) - index if backwards else index + 1
    folder = write_series(tmp_path / "scan", slices[::-1] if backwards else slices)
    assert_same(read_only(folder), read_by_dcm2niix(folder))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_voxels_lie_where_their_headers_say(tmp_path, orientation):
    """The position of each slice leads to the place of its first voxel, in the order of the normal."""
    voxels = random_voxels((3, 4, 5))
    slices = make_series(voxels, orientation=ORIENTATIONS[orientation])
    volume = read_only(write_series(tmp_path / "scan", slices))
    assert np.array_equal(volume.array[0], voxels)
    for index, data in enumerate(slices):
        place = volume.geometry._position(np.array([index, 0.0, 0.0]))
        np.testing.assert_allclose(place[::-1], [float(value) for value in data.ImagePositionPatient], atol=1e-5)


def change_rescale(data: pydicom.Dataset, index: int) -> None:
    """Gives each slice a slope and intercept of its own, as PET has them."""
    data.RescaleSlope, data.RescaleIntercept = 0.37 + 0.11 * index, -3.5 * index


def change_bits(data: pydicom.Dataset, index: int) -> None:
    """States 12 bits in 16."""
    data.BitsStored, data.HighBit = 12, 11


KINDS = {
    "signed": (make_series(random_voxels((3, 5, 7), np.int16)), None),
    "8 bits": (make_series(random_voxels((3, 5, 7), np.uint8, 255)), None),
    "12 of 16 bits": (make_series(random_voxels((3, 5, 7))), change_bits),
    "signed, 12 of 16 bits": (make_series(random_voxels((3, 5, 7), np.int16, 2047)), change_bits),
    "slope per slice": (make_series(random_voxels((3, 5, 7)), modality="PT"), change_rescale),
    "one slice": (make_series(random_voxels((1, 5, 7))), None),
    "two slices": (make_series(random_voxels((2, 5, 7))), None),
    "odd sizes": (make_series(random_voxels((3, 11, 3))), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_is_read_as_by_dcm2niix(tmp_path, kind):
    """Signs, bits, slopes of each slice and sizes."""
    slices, change = KINDS[kind]
    folder = write_series(tmp_path / "scan", slices, change)
    assert_same(read_only(folder), read_by_dcm2niix(folder))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_every_transfer_syntax_of_pydicom_is_read(tmp_path, syntax):
    """Voxels are the same however a file stores them."""
    voxels = random_voxels((3, 5, 7), np.int16)
    slices = make_series(voxels)
    for index, data in enumerate(slices):
        if syntax == RLELossless:
            data.compress(RLELossless)
        elif syntax == ExplicitVRBigEndian:
            data.PixelData = voxels[index].astype(">i2").tobytes()
            data["PixelData"].VR = "OW"
        data.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(read_only(write_series(tmp_path / "scan", slices)).array[0], voxels)


@pytest.mark.parametrize(
    ("compressor", "syntax"), [("JPEG2000", JPEG2000Lossless), ("JPEG", JPEGLosslessSV1), (None, JPEGLSLossless)]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8])
def test_lossless_jpeg_is_read(tmp_path, compressor, syntax, dtype):
    """Files that other programs compressed give the voxels that they were given; slopes count as ever."""
    voxels = random_voxels((2, 16, 12), dtype, 250 if dtype == np.uint8 else 4095)
    slices = make_series(voxels)
    for data, pixels in zip(slices, voxels, strict=True):
        data.RescaleSlope, data.RescaleIntercept = 2, -7
        if compressor is None:
            data.compress(syntax)
        else:
            compress_by_itk(data, pixels, tmp_path / "one.dcm", compressor)
        assert data.file_meta.TransferSyntaxUID == syntax
    folder = write_series(tmp_path / "scan", slices)
    assert np.array_equal(read_only(folder).array[0], voxels.astype(float) * 2 - 7)


def compress_by_itk(data: pydicom.Dataset, pixels: np.ndarray, path: Path, compressor: str) -> None:
    """Replaces pixel data by those of a file that SimpleITK compressed."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(pixels[np.newaxis]))
    written = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
    data.PixelData = written.PixelData
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        assert data[keyword].value == written[keyword].value


@pytest.mark.parametrize(("modality", "inverted"), [("MR", True), ("CT", False), ("PT", False)])
def test_low_values_that_are_white_are_inverted_without_a_unit(tmp_path, modality, inverted):
    """MONOCHROME1 only says how to display values; where they have a unit, they stay."""

    def change(data: pydicom.Dataset, index: int) -> None:
        data.PhotometricInterpretation, data.BitsStored, data.HighBit = "MONOCHROME1", 12, 11

    voxels = random_voxels((2, 5, 7))
    volume = read_only(write_series(tmp_path / "scan", make_series(voxels, modality=modality), change))
    assert np.array_equal(volume.array[0], 4095 - voxels.astype(int) if inverted else voxels)


def test_overlays_in_unused_bits_are_left_out(tmp_path):
    """Old files keep overlays in the bits above the 12 that are stored."""
    voxels = random_voxels((2, 5, 7))
    with_overlay = voxels | (random_voxels((2, 5, 7)) & 15) << 12
    assert not np.array_equal(voxels, with_overlay)
    volume = read_only(write_series(tmp_path / "scan", make_series(with_overlay), change_bits))
    assert np.array_equal(volume.array[0], voxels)


def test_a_table_leads_to_real_values(tmp_path):
    """A modality table takes the place of slope and intercept."""
    table = np.arange(256) ** 2 // 2

    def change(data: pydicom.Dataset, index: int) -> None:
        item = pydicom.Dataset()
        item.LUTDescriptor, item.ModalityLUTType = [256, 0, 16], "US"
        item.LUTData = table.tolist()
        item["LUTData"].VR = item["LUTDescriptor"].VR = "US"
        data.ModalityLUTSequence = [item]

    voxels = random_voxels((2, 5, 7), np.uint8, 255)
    volume = read_only(write_series(tmp_path / "scan", make_series(voxels), change))
    assert np.array_equal(volume.array[0], table[voxels])


def test_voxels_that_end_early_are_named(tmp_path):
    """A file whose voxels were cut off is named in one line."""
    folder = write_series(tmp_path / "scan", make_series(random_voxels((3, 16, 16))))
    path = folder / "IM0001"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match=r"IM0001 is damaged or cut off .*; copy it"):
        read_only(folder)


def test_a_series_that_cannot_fit_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    """Sizes that a header states are compared with the free memory."""
    monkeypatch.setattr("autoseg.dicom.pixels.free_memory_bytes", lambda: 100)
    folder = write_series(tmp_path / "scan", make_series(random_voxels((3, 16, 16)), orientation=AXIAL))
    with pytest.raises(ImageError, match=r"16 x 16 x 3 voxels, which do not fit into the memory"):
        read_only(folder)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("orientation", ["axial", "coronal", "oblique"])
def test_enhanced_files_are_read_as_by_dcm2niix(tmp_path, modality, orientation):
    """One file holds all slices, each with its place and its slope."""
    slices = make_series(random_voxels((4, 6, 8), np.int16), orientation=ORIENTATIONS[orientation], modality=modality)
    if modality == "CT":
        for data in slices:
            data.RescaleSlope, data.RescaleIntercept = 1, -1024
    folder = write_series(tmp_path / "scan", [make_enhanced(slices)])
    assert_same(read_only(folder), read_by_dcm2niix(folder))


def test_frames_of_an_enhanced_file_are_sorted_and_scaled_one_by_one(tmp_path):
    """Frames may be in any order, and each has a slope of its own."""
    voxels = random_voxels((4, 6, 8))
    slices = make_series(voxels, modality="MR")
    for index, data in enumerate(slices):
        change_rescale(data, index)
    folder = write_series(tmp_path / "scan", [make_enhanced(slices, order=[2, 0, 3, 1])])
    [series] = find_series(folder).series
    assert [frame.number for frame in series.frames] == [1, 3, 0, 2]
    slopes = np.array([0.37 + 0.11 * index for index in range(4)])[:, np.newaxis, np.newaxis]
    intercepts = np.array([-3.5 * index for index in range(4)])[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(read_series(series).array[0], voxels * slopes + intercepts, rtol=1e-6)


def test_compressed_frames_of_an_enhanced_file_are_read(tmp_path):
    """RLE keeps the frames of a file apart."""
    voxels = random_voxels((4, 6, 8))
    data = make_enhanced(make_series(voxels), order=[3, 2, 1, 0])
    data.compress(RLELossless)
    assert np.array_equal(read_only(write_series(tmp_path / "scan", [data])).array[0], voxels)


@pytest.mark.parametrize("low", [True, False], ids=["in the lowest bits", "where the header says"])
def test_a_high_bit_of_fifteen_of_twelve_bits(tmp_path, low):
    """Older editions of the standard allow bits below those that are stored; many headers state them wrongly."""
    voxels = random_voxels((3, 4, 5))
    slices = make_series(voxels)
    for data, pixels in zip(slices, voxels, strict=True):
        data.BitsStored, data.HighBit = 12, 15
        data.PixelData = (pixels if low else pixels << 4).astype("<u2").tobytes()
    assert np.array_equal(read_only(write_series(tmp_path / "scan", slices)).array[0], voxels)


def test_a_slope_of_zero_is_refused_unless_a_slice_is_empty(tmp_path):
    """An empty slice of a PET may have it."""
    slices = make_series(random_voxels((3, 4, 5)), modality="PT")
    for data in slices:
        data.RescaleSlope, data.RescaleIntercept = 0, 0
    with pytest.raises(ImageError, match="its rescale slope is 0"):
        read_only(write_series(tmp_path / "scan", slices))
    slices[1].RescaleSlope = 2
    assert read_only(write_series(tmp_path / "other", slices)).array[0, 1].any()


def test_an_impossible_high_bit_is_named(tmp_path):
    """Bits that would lie outside of those that are allocated."""
    slices = make_series(random_voxels((3, 4, 5)))
    for data in slices:
        data.BitsStored, data.HighBit = 12, 19
    [series] = find_series(write_series(tmp_path / "scan", slices)).series
    assert series.defect is not None
    assert "the highest of 12 bits is bit 19" in series.defect.what
