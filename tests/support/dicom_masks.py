"""Masks in DICOM for tests: segmentations by highdicom, and structure sets by pydicom."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

TISSUE = CodedConcept("85756007", "SCT", "Tissue")


def complete(slices: Sequence[Dataset]) -> list[Dataset]:
    """Adds what highdicom wants of a source."""
    for data in slices:
        for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
            if keyword not in data:
                setattr(data, keyword, "")
        data.ReferringPhysicianName, data.PositionReferenceIndicator = "", ""
    return list(slices)


def make_segmentation(
    slices: Sequence[Dataset],
    masks: Mapping[str, np.ndarray],
    kind: str = "BINARY",
    syntax: UID = ExplicitVRLittleEndian,
) -> Dataset:
    """Makes a segmentation.

    Args:
        slices: The series, in the order of the masks.
        masks: Name of each segment to its mask (z, y, x): booleans, or shares of 0 to 1 for a fractional one.
        kind: "BINARY", "FRACTIONAL" or "LABELMAP", whose masks must not overlap.
        syntax: Transfer syntax.
    """
    stacked = np.stack([np.asarray(mask) for mask in masks.values()], axis=-1)
    if kind == "LABELMAP":
        pixels = sum(np.asarray(mask).astype(np.uint8) * number for number, mask in enumerate(masks.values(), start=1))
    else:
        pixels = stacked.astype(np.float32) if kind == "FRACTIONAL" else stacked.astype(np.uint8)
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=TISSUE,
            segmented_property_type=TISSUE,
            algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, start=1)
    ]
    return Segmentation(
        source_images=complete(slices),
        pixel_array=pixels,
        segmentation_type=SegmentationTypeValues[kind],
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=90,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Example",
        manufacturer_model_name="Example",
        software_versions="1",
        device_serial_number="1",
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
        transfer_syntax_uid=syntax,
    )


def make_structure_set(slices: Sequence[Dataset], contours: Mapping[str, Sequence[np.ndarray]]) -> Dataset:
    """Makes a structure set of contours, each an array of points (x, y, z) in mm."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    data.StudyInstanceUID, data.PatientID = slices[0].StudyInstanceUID, slices[0].PatientID
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, lines) in enumerate(contours.items(), start=1):
        structure, drawn = Dataset(), Dataset()
        structure.ROINumber, structure.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for line in lines:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(line)
            contour.ContourData = [f"{value:.4f}" for value in np.ravel(line)]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(structure)
        data.ROIContourSequence.append(drawn)
    return data


def save(folder: Path, data: Dataset, name: str) -> Path:
    """Writes a mask beside a series."""
    folder.mkdir(parents=True, exist_ok=True)
    data.save_as(folder / name, enforce_file_format=True)
    return folder / name
