"""Which values foreign masks hold, and the label numbers that they get."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import DatasetError
from autoseg.imaging.files import read_label_map
from autoseg.runtime.reporting import Reporter

MOST_LABELS = 256
FEWEST_SEAMS = 4  # values along edges only that are taken for traces of smoothing, if they are the majority


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskValues:
    """The values of a mask.

    Attributes:
        seen: All of them.
        solid: Those that somewhere fill a cross of five pixels in a slice. Decision: a drawn label nearly always fills
            such a cross, while the grey seams that smoothing, anti-aliasing and JPEG leave along edges do not.
    """

    seen: frozenset[int]
    solid: frozenset[int]


def read_values(path: Path) -> MaskValues:
    """Reads a mask, and looks at it slice by slice.

    Raises:
        ImageError: It cannot be read or holds values that are no whole numbers.
    """
    seen: set[int] = set()
    solid: set[int] = set()
    for plane in read_label_map(path).array:
        centre = plane[1:-1, 1:-1]
        sides = (plane[:-2, 1:-1], plane[2:, 1:-1], plane[1:-1, :-2], plane[1:-1, 2:])
        filled = np.logical_and.reduce([centre == side for side in sides])
        seen |= set(np.unique(plane).tolist())
        solid |= set(np.unique(centre[filled]).tolist())
    return MaskValues(seen=frozenset(seen), solid=frozenset(solid))


def number_values(masks: Sequence[MaskValues], folder: Path, reporter: Reporter) -> dict[int, int]:
    """Numbers the values of all masks 0, 1, 2, ...; 0 stays background whether it occurs or not.

    Args:
        masks: Their values.
        folder: Where they lie, for errors.
        reporter: Is told if numbers change.

    Raises:
        DatasetError: The masks hold negative values, nothing at all, or traces of smoothing.
    """
    values = frozenset({0}).union(*(mask.seen for mask in masks))
    thin = values.difference(*(mask.solid for mask in masks))
    if min(values) < 0:
        raise DatasetError(f"{folder}: a mask holds the value {min(values)}", "number the labels from 0 upwards")
    if len(values) > MOST_LABELS or (len(thin) >= FEWEST_SEAMS and 2 * len(thin) > len(values)):
        raise DatasetError(
            f"the masks in {folder} hold {len(values)} values, {len(thin)} of them along edges only: they were blurred "
            f"or compressed with loss",
            "save masks as PNG, with one whole number per label and without smoothing",
        )
    if len(values) < 2:
        raise DatasetError(f"the masks in {folder} are all empty", "check that they are the masks")
    numbers = {value: number for number, value in enumerate(sorted(values))}
    if not stay(numbers):
        changes = ", ".join(f"{value} becomes {number}" for value, number in numbers.items())
        reporter.say(f"Mask values are renumbered: {changes}")
    return numbers


def stay(numbers: dict[int, int]) -> bool:
    """Whether each value is its own number already."""
    return all(value == number for value, number in numbers.items())


def renumber(array: NDArray[np.integer], numbers: dict[int, int]) -> NDArray[np.integer]:
    """Puts the number of each value in its place: its rank among the values."""
    return np.searchsorted(sorted(numbers), array)
