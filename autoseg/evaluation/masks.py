"""Masks of each structure of a case, cropped to the structure, so that measuring a small structure is fast."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from autoseg.imaging.geometry import Box
from autoseg.imaging.targets import Numbers, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPair:
    """Masks of one structure in the reference and in the prediction, cropped to a box that contains both.

    Attributes:
        reference, prediction: Shape (z, y, x) of the box. Outside the box both masks are empty.
    """

    reference: NDArray[np.bool_]
    prediction: NDArray[np.bool_]


def crop_masks(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], targets: Targets
) -> Iterator[tuple[str, MaskPair]]:
    """Yields the name and the cropped masks of each structure, in the order of the structures.

    The label maps are read as a whole once, to find the box of each number; after that only the boxes are read. 100
    small structures therefore take little longer than one. Ignored voxels belong to neither mask.

    >>> reference, prediction = np.array([[[0, 1, 1, 0, 0]]]), np.array([[[0, 0, 1, 1, 0]]])
    >>> [(name, pair)] = crop_masks(reference, prediction, Targets.of_labels({"liver": 1}))
    >>> name, pair.reference.tolist(), pair.prediction.tolist()
    ('liver', [[[True, True, False]]], [[[False, True, True]]])

    Args:
        reference: Label map of shape (z, y, x).
        prediction: Label map of the same shape.
        targets: The structures.
    """
    if not targets.structures:
        return
    boxes = [scipy.ndimage.find_objects(label_map, max(targets.values)) for label_map in (reference, prediction)]
    for name, numbers in targets.structures.items():
        box = _join(of_map[number - 1] for of_map in boxes for number in numbers)
        ground_truth = reference[box.slices]
        pair = MaskPair(reference=_mask(ground_truth, numbers), prediction=_mask(prediction[box.slices], numbers))
        if targets.ignore is not None:
            labelled = ground_truth != targets.ignore
            pair = MaskPair(reference=pair.reference & labelled, prediction=pair.prediction & labelled)
        yield name, pair


def _join(boxes: Iterable[tuple[slice, ...] | None]) -> Box:
    """Returns the smallest box that contains all boxes, of which None is empty.

    >>> first, second = (slice(0, 2),) * 3, (slice(1, 5),) * 3
    >>> _join([first, None, second])
    Box(start=(0, 0, 0), stop=(5, 5, 5))
    """
    filled = [box for box in boxes if box is not None]
    if not filled:
        return Box(start=(0, 0, 0), stop=(0, 0, 0))
    start_z, start_y, start_x = (min(box[axis].start for box in filled) for axis in range(3))
    stop_z, stop_y, stop_x = (max(box[axis].stop for box in filled) for axis in range(3))
    return Box(start=(start_z, start_y, start_x), stop=(stop_z, stop_y, stop_x))


def _mask(label_map: NDArray[np.integer], numbers: Numbers) -> NDArray[np.bool_]:
    return label_map == numbers[0] if len(numbers) == 1 else np.isin(label_map, numbers)
