"""SNOMED codes of structures: found by the name of a label, or given by the user in dataset.json.

`anatomy.json` lists the structures whose codes are known: the code, its meaning, and further names of it. Source: the
context groups 4031, 7151, 7153, 7159, 7160 and 7166 of DICOM PS3.16, as pydicom publishes them; a test compares each
code and meaning with pydicom's.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from autoseg.imaging.label_words import SIDE_WORDS, Words, split_words

Side = Literal["left", "right"]

SIDES: tuple[tuple[str, str], ...] = (*SIDE_WORDS, ("l", "r"), ("lt", "rt"), ("lh", "rh"))
"""Words that mean a side in the name of a structure whose code is known. Decision: short forms count here, since the
rest of the name is known anatomy."""


class Code(BaseModel):
    """A coded concept, as DICOM writes it.

    Attributes:
        value: Code value, such as "10200004".
        meaning: Code meaning, such as "Liver".
        scheme: Coding scheme designator; "SCT" is SNOMED CT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str = Field(pattern=r"^[^\s\\]{1,16}$")
    meaning: str = Field(pattern=r"^[^\\\x00-\x1f]{1,64}$")
    scheme: str = Field(default="SCT", pattern=r"^[^\s\\]{1,16}$")


class LabelCode(Code):
    """The code of a label.

    Attributes:
        category: Whether the structure is anatomy, an abnormality such as a tumour, or a tissue.
        side: Side of a structure that the body has twice; null without one.
        region: Where an abnormality lies; null if it is not known.
    """

    category: Literal["anatomy", "abnormality", "tissue"] = "anatomy"
    side: Side | None = None
    region: Code | None = None


CATEGORIES: Mapping[str, Code] = {
    "anatomy": Code(value="91723000", meaning="Anatomical Structure"),
    "abnormality": Code(value="49755003", meaning="Morphologically Abnormal Structure"),
    "tissue": Code(value="85756007", meaning="Tissue"),
}
"""Segmented property categories. Source: context group 7150 of DICOM PS3.16."""

SIDE_CODES: Mapping[Side, Code] = {
    "left": Code(value="7771000", meaning="Left"),
    "right": Code(value="24028007", meaning="Right"),
}
"""Source: context group 244 of DICOM PS3.16."""

UNKNOWN = LabelCode(value="85756007", meaning="Tissue", category="tissue")
"""The code of a structure whose name is not known. Decision: nearly all are tissue, and readers expect a code."""


def find_code(name: str, sides: Iterable[tuple[str, str]] | None = None) -> LabelCode:
    """Returns the code of a structure by its name; `UNKNOWN` if the name is not known.

    The order of the words and their spelling in capitals do not matter. Side words are taken away if the name is not
    known with them. A name such as "liver tumour" is an abnormality in a region.

    Args:
        name: Name of a label.
        sides: Pairs of words for left and right; by default those of many languages.

    Example:
        >>> find_code("Kidney_left").meaning, find_code("Kidney_left").side
        ('Kidney', 'left')
        >>> find_code("liver tumour").meaning, find_code("liver tumour").region.meaning
        ('Neoplasm', 'Liver')
        >>> find_code("label 7").meaning
        'Tissue'
    """
    words = split_words(name)
    if known := _known(words):
        return known
    rest, side = _without_sides(words, SIDES if sides is None else sides)
    known = _known(rest) or _known_abnormality(rest)
    return UNKNOWN if known is None else known.model_copy(update={"side": side})


def find_codes(
    names: Iterable[str],
    given: Mapping[str, LabelCode] | None = None,
    sides: Iterable[tuple[str, str]] | None = None,
) -> dict[str, LabelCode]:
    """Returns the code of each label: the one that the user gave, else the one that its name has; see `find_code`."""
    pairs = None if sides is None else list(sides)
    return {name: (given or {}).get(name) or find_code(name, pairs) for name in names}


def _known(words: Words) -> LabelCode | None:
    return _table().get(_key(words))


def _known_abnormality(words: Words) -> LabelCode | None:
    """Returns the code of an abnormality in a region, such as ("liver", "tumour")."""
    for index in range(len(words)):
        lesion, region = _known(words[index : index + 1]), _known(words[:index] + words[index + 1 :])
        if lesion and region and lesion.category == "abnormality" and region.category == "anatomy":
            return lesion.model_copy(update={"region": Code(value=region.value, meaning=region.meaning)})
    return None


def _without_sides(words: Words, sides: Iterable[tuple[str, str]]) -> tuple[Words, Side | None]:
    """Returns the words that mean no side, and the side that the others mean; None if they mean both or none."""
    meanings: dict[str, Side] = {}
    for left, right in sides:
        meanings.update(dict.fromkeys(split_words(left), "left"))
        meanings.update(dict.fromkeys(split_words(right), "right"))
    rest = tuple(word for word in words if word not in meanings)
    meant = {meanings[word] for word in words if word in meanings}
    return rest, meant.pop() if len(meant) == 1 else None


def _key(words: Words) -> Words:
    return tuple(sorted(words))


@cache
def _table() -> dict[Words, LabelCode]:
    """Returns the words of each known name, sorted, to its code."""
    groups = json.loads((files("autoseg.dicom") / "anatomy.json").read_text(encoding="utf-8"))
    return {
        _key(split_words(name)): LabelCode(value=value, meaning=names[0], category=category)
        for category, codes in groups.items()
        for value, names in codes.items()
        for name in names
    }
