"""What a DICOM file says of one of its frames, and values of its header as numbers and texts."""

import math
from collections.abc import Sequence
from typing import Any

from autoseg.imaging.geometry import Vector

TELLING_APART = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "SequenceName",
    "TriggerTime",
    "InversionTime",
    "ImageType",
    "ConvolutionKernel",
    "AcquisitionTime",
    "ContentTime",
)
"""Keywords whose values tell volumes of one series apart, in this order. Source: PS3.3, modules of CT, MR and PET."""


STATED_BY_MAKERS = (
    (0x0019, 0x0C, "SIEMENS MR HEADER"),
    (0x0043, 0x39, "GEMS_PARM_01"),
    (0x2001, 0x03, "Philips Imaging DD 001"),
)
"""Private elements with the b-value of diffusion: group, element, creator. Source: the makers' statements."""

LARGEST_B_VALUE = 100_000
"""From it on a b-value of GE has a billion added, a multiple of it. Decision: no scanner measures such ones."""


class FunctionalGroups:
    """What a file says of one frame: in the groups of the frame, in those that all frames share, or directly."""

    def __init__(self, own: Any, shared: Any, dataset: Any) -> None:
        self._groups = [group for group in (own, shared) if group is not None]
        self._dataset = dataset

    def find(self, sequence: str, keyword: str) -> Any:
        """Returns the value of a keyword in a sequence of the frame, else in the file itself; None without it."""
        for group in self._groups:
            items = group.get(sequence)
            if items:
                value = items[0].get(keyword)
                if value is not None:
                    return value
        return self._dataset.get(keyword)

    def attributes(self) -> dict[str, str]:
        """Returns what may tell the volumes of a series apart."""
        found = {keyword: join_values(self._dataset.get(keyword)) for keyword in TELLING_APART}
        content = {
            "AcquisitionNumber": self._in_groups("FrameContentSequence", "FrameAcquisitionNumber"),
            "TemporalPositionIdentifier": self._in_groups("FrameContentSequence", "TemporalPositionIndex"),
            "EchoTime": self._in_groups("MREchoSequence", "EffectiveEchoTime"),
            "DiffusionBValue": self._in_groups("MRDiffusionSequence", "DiffusionBValue"),
            "TriggerTime": self._in_groups("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
            "ImageType": self._in_groups("MRImageFrameTypeSequence", "FrameType"),
        }
        found |= {keyword: join_values(value) for keyword, value in content.items() if value is not None}
        if not found["DiffusionBValue"] and self._dataset.get("Modality") == "MR":
            found["DiffusionBValue"] = private_b_value(self._dataset)
        return {keyword: value for keyword, value in found.items() if value}

    def _in_groups(self, sequence: str, keyword: str) -> Any:
        for group in self._groups:
            items = group.get(sequence)
            if items and items[0].get(keyword) is not None:
                return items[0].get(keyword)
        return None


def private_b_value(dataset: Any) -> str:
    """Returns the b-value of diffusion that older scanners state in an element of their maker's; empty without it."""
    for group, element, creator in STATED_BY_MAKERS:
        try:
            value = float(values_of(dataset.private_block(group, creator)[element].value)[0])
        except (KeyError, IndexError, TypeError, ValueError):
            continue
        return f"{value % LARGEST_B_VALUE:g}"
    return ""


def thickness_of(group: FunctionalGroups) -> float | None:
    """Returns the spacing between slices, or else their thickness, that a frame states; None without either."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = number_of(group.find("PixelMeasuresSequence", keyword), math.nan)
        if value > 0:
            return value
    return None


def spacing_of(value: Any) -> tuple[float, float] | None:
    """Returns the spacing of rows and columns in mm; None if the value is none."""
    numbers = numbers_of(value)
    if numbers is None or len(numbers) != 2 or not all(number > 0 for number in numbers):
        return None
    return numbers[0], numbers[1]


def cosines_of(value: Any, start: int) -> list[Any] | None:
    """Returns three of the six values of a direction of rows and one of columns; None if nothing is stated.

    Raises:
        ValueError: They are not six.
    """
    values = values_of(value)
    if values and len(values) != 6:
        raise ValueError(f"directions of rows and columns have {len(values)} numbers")
    return values[start : start + 3] or None


def vector_of(value: Any) -> Vector | None:
    """Returns three numbers; None if nothing is stated.

    Raises:
        ValueError: They are not three finite numbers.
    """
    numbers = numbers_of(value)
    if numbers is None:
        return None
    if len(numbers) != 3:
        raise ValueError(f"a place or direction has {len(numbers)} numbers")
    return numbers[0], numbers[1], numbers[2]


def numbers_of(value: Any) -> list[float] | None:
    """Returns finite numbers; None without any.

    Raises:
        ValueError: One is no finite number.
    """
    numbers = [float(number) for number in values_of(value)]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"it states the number {next(number for number in numbers if not math.isfinite(number))}")
    return numbers or None


def number_of(value: Any, default: float) -> float:
    """Returns the first number of a value, or the default."""
    numbers = numbers_of(value)
    return numbers[0] if numbers else default


def integer_of(value: Any) -> int | None:
    """Returns a whole number; None for an empty value."""
    return None if value is None or not str(value).strip() else int(value)


def values_of(value: Any) -> list[Any]:
    """Returns the values of an element as a list."""
    if value is None or isinstance(value, str):
        return [] if not value else [value]
    return list(value) if isinstance(value, Sequence) else [value]


def join_values(value: Any) -> str:
    """Returns the values of an element as one text."""
    return "/".join(str(part) for part in values_of(value))


def text_of(value: Any) -> str:
    """Returns a text of the header on one line, without characters that cannot be printed."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value or "")).split())
