"""What the headers of DICOM files say: the frames of image files, and what other files are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.dicom.detection import DICOMDIR
from autoseg.dicom.functional_groups import (
    FunctionalGroups,
    cosines_of,
    integer_of,
    number_of,
    spacing_of,
    text_of,
    thickness_of,
    values_of,
    vector_of,
)
from autoseg.dicom.pixel_layout import UnsupportedPixelsError, find_layout
from autoseg.dicom.safe_reading import DEFLATED, check_nested_items, damage_named, damaged, read_dataset
from autoseg.dicom.series import Frame

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations: Segmentation Storage and Label Map Segmentation Storage. Source: PS3.4, annex B.5."""

IMAGE_CLASS = "Image Storage"
"""Part of the names of all SOP classes of images. Source: PS3.4, annex B.5."""

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"

IMAGE, SEGMENTATION, STRUCTURES, OTHER = "image", "segmentation", "structures", "other"
"""What a DICOM file is."""

MOST_FRAMES = 100_000
"""Decision: far more than a scanner puts into one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the header of a DICOM file says.

    Attributes:
        path: The file.
        kind: "image", "segmentation", "structures" (contours) or "other".
        uid: Series Instance UID, empty in some anonymised files; see `Series` for this and the following ones.
        study_uid: Study Instance UID.
        patient: Patient ID.
        number: Series Number.
        frame_of_reference: Frame of Reference UID.
        description: Series Description.
        modality: Modality.
        role: "localizer", "secondary capture" or "mosaic" for images that are no scans; empty otherwise.
        frames: The slices; empty if the file is no image.
        unsupported: Why its voxels cannot be read; empty if they can.
    """

    path: Path
    kind: str
    uid: str
    study_uid: str
    patient: str
    number: int | None
    frame_of_reference: str
    description: str
    modality: str
    role: str
    frames: tuple[Frame, ...]
    unsupported: str = ""


def read_header(path: Path) -> Header:
    """Reads the header of a DICOM file.

    Raises:
        ImageError: The file is damaged, or its voxels are of a kind that is not supported.
        UsageError: pydicom is not installed.
    """
    dataset, offset = read_dataset(path)
    with damage_named(path):
        sop_class = str(dataset.get("SOPClassUID") or "")
        kind = _find_kind(dataset, sop_class)
        _check_complete(dataset, path, kind, offset)
        modality = str(dataset.get("Modality") or "")
        return Header(
            path=path,
            kind=kind,
            uid=str(dataset.get("SeriesInstanceUID") or ""),
            study_uid=str(dataset.get("StudyInstanceUID") or ""),
            patient=str(dataset.get("PatientID") or ""),
            number=integer_of(dataset.get("SeriesNumber")),
            frame_of_reference=str(dataset.get("FrameOfReferenceUID") or ""),
            description=text_of(dataset.get("SeriesDescription")),
            modality=modality,
            role=_find_role(dataset, sop_class),
            frames=tuple(_find_frames(dataset, path, offset, modality)) if kind == IMAGE else (),
            unsupported=_find_unsupported(dataset) if kind == IMAGE else "",
        )


def _check_complete(dataset: Any, path: Path, kind: str, offset: int) -> None:
    """Checks that the header does not end before it says what the file is, or before the voxels of an image begin."""
    sop_class = dataset.get("SOPClassUID")
    if not sop_class and kind != IMAGE and path.name.upper() != DICOMDIR:
        raise damaged(path, "its header does not say what it is")
    if kind == OTHER and IMAGE_CLASS in str(getattr(sop_class, "name", "")):
        raise damaged(path, "it does not state its rows and columns")
    if kind == IMAGE and offset >= path.stat().st_size and _transfer_syntax(dataset) != DEFLATED.decode():
        raise damaged(path, "it ends before its voxels")


def _find_kind(dataset: Any, sop_class: str) -> str:
    if sop_class in SEGMENTATIONS:
        return SEGMENTATION
    if sop_class == STRUCTURE_SET:
        return STRUCTURES
    return IMAGE if dataset.get("Rows") and dataset.get("Columns") else OTHER


def _find_role(dataset: Any, sop_class: str) -> str:
    image_type = [str(value).upper() for value in values_of(dataset.get("ImageType"))]
    if {"LOCALIZER", "SCOUT"} & set(image_type):
        return "localizer"
    if "MOSAIC" in image_type:
        return "mosaic"
    return "secondary capture" if sop_class.startswith(SECONDARY_CAPTURES) else ""


def _find_unsupported(dataset: Any) -> str:
    try:
        find_layout(dataset, _transfer_syntax(dataset), 0, "")
    except UnsupportedPixelsError as error:
        return str(error)
    return ""


def _find_frames(dataset: Any, path: Path, offset: int, modality: str) -> Iterator[Frame]:
    """Yields the slices of an image file."""
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 0 < count <= MOST_FRAMES:
        raise damaged(path, f"it states {count} frames")
    try:
        layout = find_layout(dataset, _transfer_syntax(dataset), offset, modality)
        layout.check_size(path.stat().st_size, int(dataset.Rows) * int(dataset.Columns))
    except UnsupportedPixelsError:
        layout = None
    size = (int(dataset.Rows), int(dataset.Columns))
    check_nested_items(dataset, "PerFrameFunctionalGroupsSequence", count, path)
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), None)
    if groups and len(groups) != count:
        raise damaged(path, f"it describes {len(groups)} of {count} frames")
    for number in range(count):
        group = FunctionalGroups(groups[number] if groups else None, shared, dataset)
        yield Frame(
            path=path,
            number=number if count > 1 else None,
            sop_uid=str(dataset.get("SOPInstanceUID") or ""),
            position_mm=vector_of(group.find("PlanePositionSequence", "ImagePositionPatient"))
            if count == 1 or groups
            else None,
            row_cosines=vector_of(cosines_of(group.find("PlaneOrientationSequence", "ImageOrientationPatient"), 0)),
            column_cosines=vector_of(cosines_of(group.find("PlaneOrientationSequence", "ImageOrientationPatient"), 3)),
            size=size,
            spacing_mm=spacing_of(group.find("PixelMeasuresSequence", "PixelSpacing"))
            or spacing_of(dataset.get("ImagerPixelSpacing")),
            thickness_mm=thickness_of(group),
            instance=integer_of(dataset.get("InstanceNumber")) if count == 1 else number + 1,
            attributes=group.attributes(),
            slope=number_of(group.find("PixelValueTransformationSequence", "RescaleSlope"), 1.0),
            intercept=number_of(group.find("PixelValueTransformationSequence", "RescaleIntercept"), 0.0),
            layout=layout,
        )


def _transfer_syntax(dataset: Any) -> str:
    """Returns the transfer syntax; for a file that states none, by how pydicom found its elements written."""
    stated = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if stated:
        return str(stated)
    implicit, little = dataset.original_encoding
    return "1.2.840.10008.1.2" if implicit else ("1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2")
