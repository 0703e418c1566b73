"""The masks of each structure of a case, cut out, so that measuring a small structure costs little."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.imaging.geometry import Box
from autoseg.imaging.targets import Numbers, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPair:
    """A structure in the reference and in the prediction, inside a box that holds all of both.

    Attributes:
        reference, prediction: Shape (z, y, x) of the box. What lies outside the box belongs to neither.
    """

    reference: NDArray[np.bool_]
    prediction: NDArray[np.bool_]


def cut_masks(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], targets: Targets
) -> Iterator[tuple[str, MaskPair]]:
    """Gives each structure's name and masks, in the order of the structures; made when they are asked for.

    The label maps are read whole once, to find where each number is; after that only the boxes are. So 100 small
    structures take little longer than one. Voxels that nobody labelled belong to neither mask.

    Args:
        reference: Label map, shape (z, y, x).
        prediction: Label map of the same shape.
        targets: The structures.
    """
    if not targets.structures:
        return
    boxes = [ndimage.find_objects(label_map, max(targets.values)) for label_map in (reference, prediction)]
    for name, numbers in targets.structures.items():
        box = _join(found[number - 1] for found in boxes for number in numbers)
        ground_truth = reference[box.slices]
        pair = MaskPair(reference=_mask(ground_truth, numbers), prediction=_mask(prediction[box.slices], numbers))
        if targets.ignore is not None:
            labelled = ground_truth != targets.ignore
            pair = MaskPair(reference=pair.reference & labelled, prediction=pair.prediction & labelled)
        yield name, pair


def _join(boxes: Iterable[tuple[slice, ...] | None]) -> Box:
    """The smallest box that holds the given ones, of which None is empty."""
    given = [box for box in boxes if box is not None]
    if not given:
        return Box(start=(0, 0, 0), stop=(0, 0, 0))
    start_z, start_y, start_x = (min(box[axis].start for box in given) for axis in range(3))
    stop_z, stop_y, stop_x = (max(box[axis].stop for box in given) for axis in range(3))
    return Box(start=(start_z, start_y, start_x), stop=(stop_z, stop_y, stop_x))


def _mask(label_map: NDArray[np.integer], numbers: Numbers) -> NDArray[np.bool_]:
    return label_map == numbers[0] if len(numbers) == 1 else np.isin(label_map, numbers)
