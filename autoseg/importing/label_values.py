"""The values of foreign masks, and the label numbers that they are mapped to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import DatasetError
from autoseg.imaging.image_files import read_label_map
from autoseg.runtime.reporting import Reporter

MOST_LABELS = 256
FEWEST_EDGE_VALUES = 4  # so many values that occur along edges only, if the majority, are taken for traces of smoothing


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskValues:
    """The values of a mask.

    Attributes:
        values: All values.
        solid: Values that fill a cross of five pixels somewhere in a slice. Decision: a drawn label nearly always fills
            such a cross, while the grey values that smoothing, anti-aliasing and JPEG leave along edges do not.
    """

    values: frozenset[int]
    solid: frozenset[int]


def read_values(path: Path) -> MaskValues:
    """Reads the values of a mask, slice by slice.

    Raises:
        ImageError: The mask cannot be read or holds values that are not whole numbers.
    """
    values: set[int] = set()
    solid: set[int] = set()
    for plane in read_label_map(path).array:
        centre = plane[1:-1, 1:-1]
        sides = (plane[:-2, 1:-1], plane[2:, 1:-1], plane[1:-1, :-2], plane[1:-1, 2:])
        filled = np.logical_and.reduce([centre == side for side in sides])
        values |= set(np.unique(plane).tolist())
        solid |= set(np.unique(centre[filled]).tolist())
    return MaskValues(values=frozenset(values), solid=frozenset(solid))


def number_values(masks: Sequence[MaskValues], folder: Path, reporter: Reporter) -> dict[int, int]:
    """Numbers the values of all masks 0, 1, 2, ...; 0 stays background whether it occurs or not.

    Args:
        masks: Values of each mask.
        folder: Folder of the masks, for errors.
        reporter: Is told if values are renumbered.

    Returns:
        Mask value to label number.

    Raises:
        DatasetError: The masks hold negative values, background only, or traces of smoothing.
    """
    values = frozenset({0}).union(*(mask.values for mask in masks))
    thin = values.difference(*(mask.solid for mask in masks))
    if min(values) < 0:
        raise DatasetError(f"{folder}: a mask holds the value {min(values)}", "number the labels from 0 upwards")
    if len(values) > MOST_LABELS or (len(thin) >= FEWEST_EDGE_VALUES and 2 * len(thin) > len(values)):
        raise DatasetError(
            f"the masks in {folder} hold {len(values)} values, {len(thin)} of them along edges only: they were blurred "
            f"or compressed with loss",
            "save masks as PNG, with one whole number per label and without smoothing",
        )
    if len(values) < 2:
        raise DatasetError(f"the masks in {folder} are all empty", "check that they are the masks")
    numbers = {value: number for number, value in enumerate(sorted(values))}
    if not is_identity(numbers):
        changes = ", ".join(f"{value} becomes {number}" for value, number in numbers.items())
        reporter.say(f"Mask values are renumbered: {changes}")
    return numbers


def is_identity(numbers: dict[int, int]) -> bool:
    """Returns whether no value is renumbered.

    Example:
        >>> is_identity({0: 0, 1: 1}), is_identity({0: 0, 255: 1})
        (True, False)
    """
    return all(value == number for value, number in numbers.items())


def renumber(array: NDArray[np.integer], numbers: dict[int, int]) -> NDArray[np.integer]:
    """Replaces each value of a mask by its label number, which is the rank of the value.

    Example:
        >>> renumber(np.array([[0, 255], [128, 0]]), {0: 0, 128: 1, 255: 2}).tolist()
        [[0, 2], [1, 0]]
    """
    return np.searchsorted(sorted(numbers), array)
