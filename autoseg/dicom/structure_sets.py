"""Segmentations as RTSTRUCT objects: structures of closed contours on the slices of their source."""

import datetime
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.contours import SMALLEST_POLYGON, Points, trace_contours
from autoseg.dicom.object_content import (
    SlicedSegmentation,
    clean_text,
    coded_structure,
    describe_object,
    list_colours,
    name_segments,
)
from autoseg.dicom.quiet import quietly
from autoseg.dicom.series import Frame
from autoseg.dicom.source import Source
from autoseg.dicom.source_headers import TYPE_2, TYPE_3
from autoseg.errors import ImageError
from autoseg.runtime.artifact import atomic_file

STRUCTURE_SET, STUDY = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.3.1.2.3.1"
"""SOP classes of the object, and of the study that it refers to."""

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

CONTOUR_DATA = 0x30060050

MOST_CONTOURS = 100_000
"""Contours of a structure set. Decision: a hundred organs on 300 slices have a third of it; more are noise, which no
planning system opens, and whose contours would take minutes to draw."""

LONGEST_NUMBER = 16
"""Characters of a decimal string. Source: DICOM PS3.5, section 6.2; planning systems refuse longer ones."""


def write_structure_set(path: Path, segmentation: SlicedSegmentation) -> None:
    """Writes an RTSTRUCT object, whole or not at all; structures that overlap are contours like others.

    A structure without a voxel is listed, and has no contour.

    Args:
        path: The file.
        segmentation: The segmentation.

    Raises:
        ImageError: The structures fall into more islands than `MOST_CONTOURS`.
        WriteError: The file cannot be written.
    """
    from pydicom import Dataset

    left = MOST_CONTOURS
    with quietly():
        structure_set = _begin(segmentation)
        labels, colours = name_segments(segmentation.structures), list_colours(len(segmentation.structures))
        for number, (name, numbers) in enumerate(segmentation.structures.items(), start=1):
            region, contours, observation = Dataset(), Dataset(), Dataset()
            region.ROINumber = contours.ReferencedROINumber = observation.ReferencedROINumber = number
            region.ReferencedFrameOfReferenceUID = segmentation.source.headers[0].FrameOfReferenceUID
            region.ROIName = labels[number - 1]
            region.ROIGenerationAlgorithm = "AUTOMATIC"
            region.ROIGenerationDescription = clean_text(f"{segmentation.model.name} {segmentation.model.version}")
            contours.ROIDisplayColor = list(colours[number - 1])
            mask = np.isin(segmentation.label, numbers)
            if mask.any():
                contours.ContourSequence = _draw_all(mask, segmentation.source, left)
                left -= len(contours.ContourSequence)
            observation.ObservationNumber = number
            observation.RTROIInterpretedType = observation.ROIInterpreter = ""
            observation.RTROIIdentificationCodeSequence = [coded_structure(segmentation.codes[name])]
            structure_set.StructureSetROISequence.append(region)
            structure_set.ROIContourSequence.append(contours)
            structure_set.RTROIObservationsSequence.append(observation)
        with atomic_file(path) as writing:
            structure_set.save_as(writing, enforce_file_format=True)


def _begin(segmentation: SlicedSegmentation) -> Any:
    """Returns an object without structures: patient, study, maker, and the slices that it refers to."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset

    header = segmentation.source.headers[0]
    described = describe_object("rtstruct", segmentation.source, segmentation.model)
    structure_set, now = Dataset(), datetime.datetime.now()  # noqa: DTZ005 - local time, as the standard has it
    structure_set.file_meta = FileMetaDataset()
    structure_set.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE_ENDIAN
    for keyword in (
        *TYPE_2,
        *TYPE_3,
        "DeidentificationMethodCodeSequence",
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
    ):
        if keyword in header:
            structure_set[keyword] = header[keyword]
    structure_set.update(
        {
            "SpecificCharacterSet": header.SpecificCharacterSet,
            "SOPClassUID": STRUCTURE_SET,
            "SOPInstanceUID": described["sop_instance_uid"],
            "SeriesInstanceUID": described["series_instance_uid"],
            "SeriesNumber": described["series_number"],
            "SeriesDescription": described["series_description"],
            "InstanceNumber": described["instance_number"],
            "Modality": "RTSTRUCT",
            "OperatorsName": "",
            "Manufacturer": described["manufacturer"],
            "ManufacturerModelName": described["manufacturer_model_name"],
            "SoftwareVersions": described["software_versions"],
            "DeviceSerialNumber": described["device_serial_number"],
            "StructureSetLabel": "SEGMENTATION",
            "StructureSetDescription": described["content_description"],
            "StructureSetDate": now.strftime("%Y%m%d"),
            "StructureSetTime": now.strftime("%H%M%S"),
            "InstanceCreationDate": now.strftime("%Y%m%d"),
            "InstanceCreationTime": now.strftime("%H%M%S"),
            "ApprovalStatus": "UNAPPROVED",
            "StructureSetROISequence": [],
            "ROIContourSequence": [],
            "RTROIObservationsSequence": [],
        }
    )
    structure_set.ReferencedFrameOfReferenceSequence = [_refer_to_source(segmentation.source)]
    return structure_set


def _refer_to_source(source: Source) -> Any:
    """Returns the item that names the frame of reference, study, series and slices of the source."""
    from pydicom import Dataset

    frame_of_reference, study, series = Dataset(), Dataset(), Dataset()
    header = source.headers[0]
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = [_refer_to_slice(source, number) for number in range(len(source.frames))]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY, header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference.FrameOfReferenceUID = header.FrameOfReferenceUID
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _refer_to_slice(source: Source, number: int) -> Any:
    """Returns the item that names a slice: its file, and its frame if the file has several."""
    from pydicom import Dataset

    item, frame = Dataset(), source.frames[number]
    header = source.headers[0 if source.is_multi_frame else number]
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if frame.number is not None:
        item.ReferencedFrameNumber = frame.number + 1
    return item


def _draw_all(mask: NDArray[np.bool_], source: Source, most: int) -> list[Any]:
    """Returns the items of all contours of a structure.

    Raises:
        ImageError: They are more than `most`; no more than that are drawn before.
    """
    items = list(islice(_draw(mask, source), most + 1))
    if len(items) > most:
        what = f"the structures fall into more than {MOST_CONTOURS} islands on their slices, too many for contours"
        raise ImageError(what, "ask for seg or labelmap instead of rtstruct, and look at the segmentation: it is noise")
    return items


def _draw(mask: NDArray[np.bool_], source: Source) -> Iterator[Any]:
    """Yields the items of all contours of a structure, slice after slice."""
    from pydicom import Dataset
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    count, tag = 0, Tag(CONTOUR_DATA)
    for number in np.nonzero(mask.any(axis=(1, 2)))[0].tolist():
        for points in trace_contours(mask[number]):
            if len(points) < SMALLEST_POLYGON:
                continue
            count += 1
            item = Dataset()
            item.ContourImageSequence = [_refer_to_slice(source, number)]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item.ContourNumber = count
            text = _as_text(points, source.frames[number])
            item[tag] = RawDataElement(tag, "DS", len(text), text, 0, is_implicit_VR=False, is_little_endian=True)
            yield item


def _as_text(points: Points, frame: Frame) -> bytes:
    """Returns points (column, row) of a slice as the decimal strings of their positions, x, y, z in mm.

    pydicom would make an object of each of a million numbers; the text itself takes a fiftieth of the time.
    """
    spacing_mm = frame.spacing_mm or (1.0, 1.0)
    steps = np.stack([np.asarray(frame.row_cosines) * spacing_mm[1], np.asarray(frame.column_cosines) * spacing_mm[0]])
    positions = np.asarray(frame.position_mm) + points @ steps
    decimals = max(3, 2 - math.floor(math.log10(min(spacing_mm))))
    text = "\\".join(_as_number(value, decimals) for value in positions.ravel().tolist())
    return (text + " " * (len(text) % 2)).encode("ascii")


def _as_number(value: float, decimals: int) -> str:
    """Returns a decimal string of at most 16 characters.

    Example:
        >>> _as_number(-12.5, 3), _as_number(-1234567890.125, 6)
        ('-12.500', '-1234567890.1250')
    """
    text = f"{value:.{decimals}f}"
    return text if len(text) <= LONGEST_NUMBER else f"{value:.{LONGEST_NUMBER - len(f'{value:.0f}') - 1}f}"
