"""What every object says of its model and its structures: who made it, names, codes and colours."""

import colorsys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg._version import __version__
from autoseg.dicom.codes import CATEGORIES, SIDE_CODES, Code, LabelCode
from autoseg.dicom.source import Source
from autoseg.imaging.targets import Numbers

MANUFACTURER = "autoseg"

LONGEST_TEXT = 64
"""Characters of a text of the value representation LO. Source: DICOM PS3.5, section 6.2."""

GOLDEN_ANGLE = 0.381966
"""Share of the circle of hues between the colours of neighbouring structures, so that all of them differ."""

SERIES_OFFSETS = {"seg": 1, "labelmap": 2, "rtstruct": 3, "probabilities": 4, "disagreement": 5}
"""Added to a thousand times the number of the source's series. Decision: the objects stand behind their source in a
list sorted by number, and those of two sources differ."""

MOST_SERIES = 2_000_000
"""Largest number of a source's series whose thousandfold still is an integer of DICOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """What an object says of the model that made it; nothing of the data that the model was trained on.

    Attributes:
        name: Name of the model.
        digest: Sixteen characters that identify its networks, plan and postprocessing.
    """

    name: str
    digest: str

    @property
    def version(self) -> str:
        """Version of the program and digest of the model."""
        return f"{__version__}, model {self.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicedSegmentation:
    """A segmentation on the slices of its source, with all that an object says of it.

    Attributes:
        label: Label map of shape (slices, rows, columns).
        structures: Name of each structure, as the user wrote it, to its numbers in the label map. Structures that share
            a number overlap.
        codes: Name of each structure to its code.
        source: The series that was segmented.
        model: The model that segmented it.
    """

    label: NDArray[np.integer]
    structures: Mapping[str, Numbers]
    codes: Mapping[str, LabelCode]
    source: Source
    model: ModelIdentity

    @property
    def may_overlap(self) -> bool:
        """Whether two structures share a number."""
        return may_overlap(self.structures)


def may_overlap(structures: Mapping[str, Numbers]) -> bool:
    """Returns whether two structures share a number.

    Example:
        >>> may_overlap({"whole": (1, 2), "core": (2,)}), may_overlap({"kidney": (1,), "tumour": (2,)})
        (True, False)
    """
    numbers = [number for own in structures.values() for number in own]
    return len(set(numbers)) < len(numbers)


def clean_text(text: str, longest: int = LONGEST_TEXT) -> str:
    r"""Returns a text as a value of an attribute: without control characters and backslashes, which part values.

    Example:
        >>> clean_text("left\\right lung")
        'left/right lung'
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text.replace("\\", "/"))
    return " ".join(printable.split())[:longest].rstrip()


def name_segments(names: Iterable[str]) -> list[str]:
    r"""Returns the names of structures as texts of attributes; those that would become equal or empty get a number.

    Example:
        >>> name_segments(["liver", "a\nb", "a b"])
        ['liver', 'a b', 'a b (3)']
    """
    texts: list[str] = []
    for number, name in enumerate(names, start=1):
        text, suffix = clean_text(name), f" ({number})"
        unusable = not text or text in texts
        texts.append(f"{text[: LONGEST_TEXT - len(suffix)]}{suffix}".strip() if unusable else text)
    return texts


def list_colours(count: int) -> list[tuple[int, int, int]]:
    """Returns the recommended display colours of structures, red, green and blue, 0 to 255.

    Example:
        >>> list_colours(2)
        [(230, 69, 69), (69, 230, 116)]
    """
    return [
        (round(255 * red), round(255 * green), round(255 * blue))
        for red, green, blue in (colorsys.hsv_to_rgb(number * GOLDEN_ANGLE % 1, 0.7, 0.9) for number in range(count))
    ]


def describe_object(kind: str, source: Source, model: ModelIdentity) -> dict[str, Any]:
    """Returns what an object says of itself and its maker, by the names of highdicom's arguments; all UIDs are new.

    Args:
        kind: A key of `SERIES_OFFSETS`.
        source: The series that was segmented.
        model: The model that segmented it.
    """
    from pydicom.uid import generate_uid

    ending = f", {kind}"
    return {
        "series_instance_uid": generate_uid(prefix=None),
        "sop_instance_uid": generate_uid(prefix=None),
        "series_number": min(source.series_number, MOST_SERIES) * 1000 + SERIES_OFFSETS[kind],
        "instance_number": 1,
        "series_description": clean_text(f"{MANUFACTURER} {model.name}", LONGEST_TEXT - len(ending)) + ending,
        "content_description": clean_text(model.version),
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": clean_text(model.name) or MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": model.digest,
    }


def coded(code: Code) -> Any:
    """Returns a code as highdicom's type."""
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def coded_structure(code: LabelCode) -> Any:
    """Returns the code of a structure as highdicom's type, with its side as a modifier."""
    structure = coded(code)
    if code.side is not None:
        structure.SegmentedPropertyTypeModifierCodeSequence = [coded(SIDE_CODES[code.side])]
    return structure


def identify_algorithm(model: ModelIdentity) -> Any:
    """Returns the identification of the algorithm: the model's name, version and digest."""
    from highdicom import AlgorithmIdentificationSequence

    return AlgorithmIdentificationSequence(
        name=clean_text(f"{MANUFACTURER} {model.name}"),
        family=coded(Code(value="123110", meaning="Artificial Intelligence", scheme="DCM")),
        version=clean_text(model.version),
    )


def describe_segments(segmentation: SlicedSegmentation) -> list[Any]:
    """Returns the descriptions of segments 1, 2, ..., each with its name, code, algorithm and colour."""
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription

    described = []
    labels, colours = name_segments(segmentation.structures), list_colours(len(segmentation.structures))
    for number, name in enumerate(segmentation.structures):
        code = segmentation.codes[name]
        segment = SegmentDescription(
            segment_number=number + 1,
            segment_label=labels[number],
            segmented_property_category=coded(CATEGORIES[code.category]),
            segmented_property_type=coded_structure(code),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=identify_algorithm(segmentation.model),
            anatomic_regions=None if code.region is None else [coded(code.region)],
            display_color=CIELabColor.from_rgb(*colours[number]),
        )
        described.append(segment)
    return described
