"""The values of foreign masks, and the label numbers that they are mapped to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.info import BACKGROUND, IGNORE
from autoseg.errors import DatasetError
from autoseg.imaging.image_files import read_label_map
from autoseg.runtime.reporting import Reporter, list_names

MOST_LABELS = 256
TWO_WAYS = (1, 255)
"""The two values by which programs save the only label of a mask."""

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


def read_values(path: Path, time_point: int | None = None) -> MaskValues:
    """Reads the values of a mask, slice by slice.

    Args:
        path: The mask.
        time_point: Which of its volumes to read, if it is a series over time.

    Raises:
        ImageError: The mask cannot be read or holds values that are not whole numbers.
    """
    return values_of(read_label_map(path, time_point).array)


def values_of(array: NDArray[np.integer]) -> MaskValues:
    """Returns the values of a mask (z, y, x)."""
    values: set[int] = set()
    solid: set[int] = set()
    for plane in array:
        centre = plane[1:-1, 1:-1]
        sides = (plane[:-2, 1:-1], plane[2:, 1:-1], plane[1:-1, :-2], plane[1:-1, 2:])
        filled = np.logical_and.reduce([centre == side for side in sides])
        values |= set(np.unique(plane).tolist())
        solid |= set(np.unique(centre[filled]).tolist())
    return MaskValues(values=frozenset(values), solid=frozenset(solid))


def number_values(masks: Sequence[MaskValues], folder: Path, reporter: Reporter) -> dict[int, int]:
    """Numbers the values of all masks 0, 1, 2, ...; 0 stays background whether it occurs or not.

    Negative values come last, since those who use them mostly mean voxels that nobody labelled, which must have the
    highest number. If masks hold 1 or 255, but none holds both, they were saved in two ways, and mean the same.

    Args:
        masks: Values of each mask.
        folder: Folder of the masks, for errors.
        reporter: Is told if values are renumbered.

    Returns:
        Mask value to label number.

    Raises:
        DatasetError: The masks hold background only, or traces of smoothing.
    """
    values = check_drawn(masks, folder)
    if len(values) < 2:
        raise DatasetError(f"the masks in {folder} are all empty", "check that they are the masks")
    if values == {0, *TWO_WAYS} and not any(mask.values.issuperset(TWO_WAYS) for mask in masks):
        reporter.say("Some masks hold 0 and 1, others 0 and 255: both are the same label")
        return {0: 0, **dict.fromkeys(TWO_WAYS, 1)}
    numbers = {value: number for number, value in enumerate(sorted(values, key=lambda value: (value < 0, value)))}
    if min(values) < 0:
        named = "' and '".join(f"label_{value}" for value in sorted(values) if value < 0)
        reporter.say(
            f"Masks hold negative values, which become the labels '{named}'; if nobody labelled such voxels, name the "
            "last one 'ignore' in dataset.json"
        )
    report_numbers(numbers, reporter)
    return numbers


def report_numbers(numbers: Mapping[int, int], reporter: Reporter) -> None:
    """Says which values get other numbers."""
    if not is_identity(numbers):
        changes = ", ".join(f"{value} becomes {number}" for value, number in numbers.items())
        reporter.say(f"Mask values are renumbered: {changes}")


def check_drawn(masks: Sequence[MaskValues], source: Path) -> frozenset[int]:
    """Returns all values of masks and 0, and refuses those of masks that were blurred.

    Args:
        masks: Values of each mask.
        source: The mask, or the folder of the masks, for errors.

    Raises:
        DatasetError: There are too many values, or most occur along edges only.
    """
    values = frozenset({0}).union(*(mask.values for mask in masks))
    thin = values.difference(*(mask.solid for mask in masks))
    if len(values) > MOST_LABELS or (len(thin) >= FEWEST_EDGE_VALUES and 2 * len(thin) > len(values)):
        which = f"the masks in {source} hold" if source.is_dir() else f"{source} holds"
        raise DatasetError(
            f"{which} {len(values)} values, {len(thin)} of them along edges only: blurred or compressed with loss",
            "save masks as PNG, with one whole number per label and without smoothing",
        )
    return values


def is_identity(numbers: Mapping[int, int]) -> bool:
    """Returns whether no value is renumbered.

    Example:
        >>> is_identity({0: 0, 1: 1}), is_identity({0: 0, 255: 1})
        (True, False)
    """
    return all(value == number for value, number in numbers.items())


def renumber(array: NDArray[np.integer], numbers: dict[int, int]) -> NDArray[np.integer]:
    """Replaces each value of a mask by its label number.

    Raises:
        DatasetError: The mask holds a value without a number.

    Example:
        >>> renumber(np.array([[0, 255], [128, 0]]), {0: 0, 128: 1, 255: 2}).tolist()
        [[0, 2], [1, 0]]
    """
    values = np.array(sorted(numbers))
    ranks = np.minimum(np.searchsorted(values, array), len(values) - 1)
    if (unknown := values[ranks] != array).any():
        named = list_names(values.tolist(), count_rest=False)
        raise DatasetError(f"a mask holds {array[unknown][0]}, and the labels are {named}", "correct the mask")
    return np.array([numbers[value] for value in values.tolist()], dtype=np.int32)[ranks]


def close_gaps(labels: Mapping[str, Any]) -> tuple[dict[str, int], dict[int, int]] | None:
    """Renumbers the labels of a foreign dataset.json whose numbers have gaps or are negative.

    Args:
        labels: Number to name, as in the Decathlon, or name to number.

    Returns:
        Name to new number, and value in the masks to new number; None if the numbers are 0, 1, 2, ... already, or are
        regions or no numbers. "ignore" gets the last number.

    Example:
        >>> close_gaps({"0": "background", "614": "left", "277": "right"})
        ({'background': 0, 'left': 2, 'right': 1}, {0: 0, 277: 1, 614: 2})
        >>> close_gaps({"background": 0, "left": 1})
    """
    by_name = {str(name): number for number, name in labels.items()} if BACKGROUND not in labels else dict(labels)
    try:
        values = {name: int(number) for name, number in by_name.items()}
    except (TypeError, ValueError):
        return None
    if len(set(values.values())) < len(values) or 0 not in values.values():
        return None
    order = sorted(values, key=lambda name: (name == IGNORE, values[name] < 0, values[name]))
    numbers = {values[name]: number for number, name in enumerate(order)}
    return None if is_identity(numbers) else ({name: numbers[value] for name, value in values.items()}, numbers)
