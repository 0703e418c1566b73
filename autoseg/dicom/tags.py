"""What is kept of the header of a series: how it was acquired, and nothing about who it shows.

Everything that names or numbers a patient, a study, a date, a place or a person is left out, and so are all UIDs.
"""

from autoseg.dicom.functional_groups import join_values, text_of
from autoseg.dicom.safe_reading import damage_named, read_dataset
from autoseg.dicom.series import Series

KEPT = (
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "ConvolutionKernel",
    "KVP",
    "MagneticFieldStrength",
    "SequenceName",
    "RepetitionTime",
    "EchoTime",
    "FlipAngle",
    "DiffusionBValue",
    "SliceThickness",
    "ContrastBolusAgent",
    "PatientPosition",
    "Units",
)
"""Keywords of the standard that are kept; those of them that a header states."""

LONGEST_VALUE = 200


def keep_tags(series: Series) -> dict[str, str]:
    """Returns what is kept of a series, by keyword; from its first file, and of frames what the series shares.

    Raises:
        ImageError: The file cannot be read any more.
    """
    dataset, _ = read_dataset(series.frames[0].path)
    with damage_named(series.frames[0].path):
        attributes = series.frames[0].attributes
        texts = {keyword: text_of(join_values(dataset.get(keyword)) or attributes.get(keyword, "")) for keyword in KEPT}
    return {keyword: text[:LONGEST_VALUE] for keyword, text in texts.items() if text}
