"""What an object takes over from the files of its source: patient, study and where slices lie, complete and valid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.dicom.quiet import quietly
from autoseg.dicom.series import Frame
from autoseg.errors import ImageError

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Attributes of patient and study that an object must have, but that may be empty. Anonymized files lack some."""

TYPE_3 = (
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "IssuerOfPatientID",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "LongitudinalTemporalInformationModified",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
"""Further attributes of patient, study and trial that an object takes over where they are valid."""

NOT_STATED = "not stated by the source"
"""The method by which a patient's identity was removed, where the source says only that it was."""

GROUPS = ("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""What says of a file of several slices where they lie."""

STRUCTURE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "Modality",
    "SeriesNumber",
    "SliceThickness",
)
"""What says which object this is, and where its slice lies."""


READ = [*TYPE_2, *TYPE_3, *STRUCTURE, *GROUPS, "DeidentificationMethodCodeSequence"]


def read_header(path: Path, frame: Frame) -> Any:
    """Reads what an object takes over from a file: patient, study, and where its slice lies."""
    from pydicom import Dataset, dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with quietly():
            stated = dcmread(path, stop_before_pixels=True, force=True, specific_tags=READ)
            stated.decode()
    except (OSError, InvalidDicomError, ValueError, KeyError, NotImplementedError) as error:
        raise ImageError(f"cannot read {path}: {error}", "copy it anew") from error
    header = Dataset()
    for keyword in (*TYPE_2, *TYPE_3):
        value = _valid_value(stated, keyword)
        if value or keyword in TYPE_2:
            setattr(header, keyword, value)
    _state_deidentification(header, stated)
    # an enhanced file of a single slice is referred to as any other slice
    for keyword in STRUCTURE if frame.number is None else (*STRUCTURE, *GROUPS):
        if stated.get(keyword) not in (None, ""):
            setattr(header, keyword, stated[keyword].value)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.Rows, header.Columns = frame.size
    if frame.number is None:
        _place(header, frame)
    return header


def _state_deidentification(header: Any, stated: Any) -> None:
    """States how the patient's identity was removed, which must be there if it was."""
    if stated.get("DeidentificationMethodCodeSequence"):
        header.DeidentificationMethodCodeSequence = stated.DeidentificationMethodCodeSequence
    elif header.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in header:
        header.DeidentificationMethod = NOT_STATED


def _valid_value(stated: Any, keyword: str) -> str:
    """Returns the text of an attribute if it has the form that the standard gives it, else an empty text."""
    from pydicom import config
    from pydicom.valuerep import validate_value

    if keyword not in stated or stated[keyword].VM != 1:
        return ""
    text = str(stated[keyword].value)
    try:
        validate_value(stated[keyword].VR, text, config.RAISE)
    except (ValueError, TypeError):
        return ""
    return "" if keyword == "PatientSex" and text not in ("M", "F", "O") else text


def _place(header: Any, frame: Frame) -> None:
    """States where the only slice of a file lies, in numbers of at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    cosines = (*(frame.row_cosines or ()), *(frame.column_cosines or ()))
    header.ImagePositionPatient = [format_number_as_ds(float(value)) for value in frame.position_mm or ()]
    header.ImageOrientationPatient = [format_number_as_ds(float(value)) for value in cosines]
    header.PixelSpacing = [format_number_as_ds(float(value)) for value in frame.spacing_mm or ()]
    if not _valid_value(header, "SliceThickness"):
        header.SliceThickness = format_number_as_ds(frame.thickness_mm or 1.0)


def unify_headers(headers: Sequence[Any], frames: Sequence[Frame]) -> None:
    """Gives all headers one study, series and frame of reference, which anonymized files may lack."""
    from pydicom.uid import generate_uid

    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        uid = next((header.get(keyword) for header in headers if header.get(keyword)), None)
        shared = uid or generate_uid(prefix=None)
        for header in headers:
            setattr(header, keyword, shared)
    for header, frame in zip(headers, frames, strict=False):  # frames of one file share its header
        header.SOPInstanceUID = header.get("SOPInstanceUID") or frame.sop_uid or generate_uid(prefix=None)
        if "PositionReferenceIndicator" not in header:
            header.PositionReferenceIndicator = ""
