"""DICOM files for tests, written by pydicom: series of given voxels on given grids, as scanners store them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
OBLIQUE = ((0.9, 0.3, np.sqrt(1 - 0.9**2 - 0.3**2)), (-0.316227766016838, 0.948683298050514, 0.0))
ORIENTATIONS = {
    "axial": AXIAL,
    "column cosine negated": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "row cosine negated": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "oblique": OBLIQUE,
}
"""Directions along a row and along a column, (x, y, z)."""

SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def make_slice(pixels: np.ndarray, *, modality: str = "MR", stored: int | None = None) -> Dataset:
    """Makes a slice of whole numbers, shape (rows, columns), without a place in space."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = SOP_CLASSES[modality]
    data.SOPInstanceUID = generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality = modality
    data.Rows, data.Columns = pixels.shape
    bits = pixels.dtype.itemsize * 8
    data.BitsAllocated = bits
    data.BitsStored = stored or bits
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    return data


def make_series(
    voxels: np.ndarray,
    *,
    orientation: Sequence[Sequence[float]] = AXIAL,
    spacing_mm: tuple[float, float, float] = (3.0, 1.5, 1.25),
    origin_mm: tuple[float, float, float] = (10.0, -20.0, 30.0),
    modality: str = "MR",
    description: str = "made up",
    number: int = 1,
    study: Dataset | None = None,
) -> list[Dataset]:
    """Makes the slices of a series.

    Args:
        voxels: Whole numbers of shape (z, y, x); slices go along the normal of their plane.
        orientation: Directions along a row and along a column, (x, y, z).
        spacing_mm: Along (z, y, x).
        origin_mm: Centre of the first voxel, (x, y, z).
        modality: "CT", "MR" or "PT".
        description: Series Description.
        number: Series Number.
        study: A slice of the same study; None begins a new one.
    """
    row, column = (np.asarray(direction, dtype=float) for direction in orientation)
    normal, series_uid = np.cross(row, column), generate_uid()
    slices = []
    for index, pixels in enumerate(voxels):
        data = make_slice(pixels, modality=modality)
        data.SeriesInstanceUID = series_uid
        data.StudyInstanceUID = (
            study.StudyInstanceUID if study else generate_uid() if not slices else slices[0].StudyInstanceUID
        )
        data.FrameOfReferenceUID = (study or (slices[0] if slices else None) or data).get(
            "FrameOfReferenceUID", generate_uid()
        )
        data.PatientID, data.PatientName = "patient-7", "Doe^Jane"
        data.SeriesDescription, data.SeriesNumber, data.InstanceNumber = description, number, index + 1
        data.SliceThickness = spacing_mm[0]
        data.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        position = np.asarray(origin_mm) + index * spacing_mm[0] * normal
        data.ImagePositionPatient = [f"{value:.6f}" for value in position]
        data.ImageOrientationPatient = [f"{value:.12f}" for value in (*row, *column)]
        slices.append(data)
    return slices


def write_series(
    folder: Path, slices: Sequence[Dataset], change: Callable[[Dataset, int], None] | None = None, name: str = "IM"
) -> Path:
    """Writes slices into a folder, each after it was changed; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(slices):
        if change is not None:
            change(data, index)
        data.save_as(folder / f"{name}{index:04d}", enforce_file_format=True)
    return folder


def random_voxels(shape: Sequence[int], dtype: Any = np.uint16, highest: int = 4095) -> np.ndarray:
    """Makes whole numbers that differ in every voxel, most likely; half of them are negative if they may be."""
    rng = np.random.default_rng(7)
    lowest = -highest if np.dtype(dtype).kind == "i" else 0
    return rng.integers(lowest, highest, size=shape).astype(dtype)


def make_enhanced(slices: Sequence[Dataset], *, order: Sequence[int] | None = None) -> Dataset:
    """Makes one enhanced file of the slices of a series; `order` gives the order of the frames in the file."""
    chosen = [slices[index] for index in (order or range(len(slices)))]
    first = chosen[0]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = EnhancedCTImageStorage if first.Modality == "CT" else EnhancedMRImageStorage
    data.SOPInstanceUID = generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    for keyword in (
        *("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "Modality"),
        *("SeriesDescription", "SeriesNumber", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
        *("PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"),
    ):
        setattr(data, keyword, first.get(keyword))
    data.Manufacturer, data.InstanceNumber, data.NumberOfFrames = "Example", 1, len(chosen)
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = first.ImageOrientationPatient
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = first.PixelSpacing
    shared.PixelMeasuresSequence[0].SliceThickness = first.SliceThickness
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [_frame_groups(part, index + 1) for index, part in enumerate(chosen)]
    data.PixelData = b"".join(part.PixelData for part in chosen)
    return data


def _frame_groups(data: Dataset, index: int) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = [Dataset()]
    groups.PlanePositionSequence[0].ImagePositionPatient = data.ImagePositionPatient
    groups.FrameContentSequence = [Dataset()]
    groups.FrameContentSequence[0].DimensionIndexValues = [1, index]
    groups.FrameContentSequence[0].StackID = "1"
    groups.FrameContentSequence[0].InStackPositionNumber = index
    groups.PixelValueTransformationSequence = [Dataset()]
    groups.PixelValueTransformationSequence[0].RescaleSlope = data.get("RescaleSlope", 1)
    groups.PixelValueTransformationSequence[0].RescaleIntercept = data.get("RescaleIntercept", 0)
    groups.PixelValueTransformationSequence[0].RescaleType = "US"
    return groups
