"""Removing what cannot be right from a segmentation: components beside the largest one, and such as are too small.

The rules are found on held-out cases (see `evaluation.rules`), saved in postprocessing.json, and applied to every
prediction.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from scipy import ndimage

from autoseg.imaging.geometry import Box, Volume
from autoseg.runtime.artifact import Artifact, Score


def _several(value: object) -> object:
    return (value,) if isinstance(value, int) else value  # as it was written before there were regions


Structure = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_several)]
"""The numbers that its voxels have in a label map."""


class Trial(BaseModel):
    """A rule that was tried on held-out cases, and what it did to the mean Dice of the labels that it touches.

    Attributes:
        rule: What was tried, for people.
        before, after: Label name to mean Dice, 0 to 1; undefined where the label is in no case.
        adopted: Whether the rule was found useful.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    before: dict[str, Score]
    after: dict[str, Score]
    adopted: bool

    def describe(self) -> str:
        """What was tried, and what came of it, in one line."""
        change = f"mean Dice {_mean(self.before):.4f} -> {_mean(self.after):.4f}"
        return f"{self.rule}: {change}, {'adopted' if self.adopted else 'not adopted'}"


class SmallestSize(BaseModel):
    """How large a component of a structure must be to stay.

    Attributes:
        structure: The numbers of its voxels in a label map.
        mm3: Components of less are removed. For planes this is an area in mm2; see `geometry.voxel_size`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structure: Structure
    mm3: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PostprocessingRules(Artifact):
    """What is done to a segmentation before it is written; postprocessing.json.

    Attributes:
        keep_largest_foreground: Keep only the largest component of all labels together; done first.
        keep_largest: Numbers of the structures of which only the largest component is kept, each structure on its own.
        smallest: Structures whose small components are removed; done last.
        evidence: What was tried to find these rules.
    """

    keep_largest_foreground: bool = False
    keep_largest: tuple[Structure, ...] = ()
    smallest: tuple[SmallestSize, ...] = ()
    evidence: tuple[Trial, ...] = ()

    def describe(self) -> str:
        """The rules in one line."""
        kept = ["the foreground"] if self.keep_largest_foreground else []
        kept += [_name(numbers) for numbers in self.keep_largest]
        steps = [f"keep the largest component of {', then of '.join(kept)}"] if kept else []
        for mm3 in sorted({rule.mm3 for rule in self.smallest}):
            names = [_name(rule.structure) for rule in self.smallest if rule.mm3 == mm3]
            steps.append(f"remove components of {', '.join(names)} below {mm3:g} mm3")
        return f"postprocessing: {', then '.join(steps) or 'none'}"


NO_RULES = PostprocessingRules()


def apply_rules(label_map: Volume, rules: PostprocessingRules) -> Volume:
    """Sets the voxels that the rules remove to background.

    Args:
        label_map: Shape (z, y, x); it is left as it is.
        rules: Structures that the map does not hold are passed over.

    Returns:
        A new label map of the same grid and number type.
    """
    result = label_map.array.copy()
    if rules.keep_largest_foreground:
        result[~largest_component(result > 0)] = 0
    for numbers in rules.keep_largest:
        mask = _find_structure(result, numbers)
        result[mask & ~largest_component(mask)] = 0
    for rule in rules.smallest:
        mask = _find_structure(result, rule.structure)
        result[mask & ~large_components(mask, rule.mm3, label_map.geometry.voxel_size)] = 0
    return Volume(array=result, geometry=label_map.geometry)


def apply_to_mask(mask: Volume, numbers: tuple[int, ...], rules: PostprocessingRules) -> Volume:
    """The mask (z, y, x) of a structure that has these numbers in a label map, after the rules that concern it."""
    array = mask.array
    if numbers in rules.keep_largest:
        array = largest_component(array > 0).astype(array.dtype)
    for rule in rules.smallest:
        if rule.structure == numbers:
            array = large_components(array > 0, rule.mm3, mask.geometry.voxel_size).astype(array.dtype)
    return Volume(array=array, geometry=mask.geometry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The connected components of a mask.

    Voxels that touch by a face, an edge or a corner are connected. Source: the reference method (nnU-Net v2.8.1).

    Attributes:
        box: The smallest that holds them all.
        numbers: Shape of the box: from 1, in array order of the first voxel of each; 0 where there is none.
        voxels: How many each has, in that order.
    """

    box: Box
    numbers: NDArray[np.intp]
    voxels: NDArray[np.intp]


def find_components(mask: NDArray[np.bool_]) -> Components | None:
    """Finds the components of a mask (z, y, x); None if it is empty.

    Decision: SciPy counts them; cc3d is four times as fast, but its version 4.1.1 stops with an error at some masks
    that are one voxel thin.
    """
    box = _bounding_box(mask)
    if box is None:
        return None
    inside = np.ascontiguousarray(mask[box.slices])
    numbers = np.empty(inside.shape, dtype=np.intp)
    ndimage.label(inside, structure=np.ones((3, 3, 3)), output=numbers)
    return Components(box=box, numbers=numbers, voxels=np.bincount(numbers.ravel())[1:])


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keeps the connected component with the most voxels.

    Among components of the same size the one that comes first in array order is kept. Source: the reference method
    (nnU-Net v2.8.1); it keeps all components of the largest size. Decision: a rule that is named "largest" leaves one.

    Args:
        mask: Shape (z, y, x).

    Returns:
        A new mask of the same shape; empty if `mask` is.
    """
    result, found = np.zeros_like(mask), find_components(mask)
    if found is not None:
        result[found.box.slices] = found.numbers == 1 + found.voxels.argmax()
    return result


def large_components(mask: NDArray[np.bool_], mm3: float, voxel: float) -> NDArray[np.bool_]:
    """Keeps the connected components that are not smaller than a volume.

    Args:
        mask: Shape (z, y, x).
        mm3: The volume.
        voxel: Volume of a voxel, in mm3.

    Returns:
        A new mask of the same shape.
    """
    result, found = np.zeros_like(mask), find_components(mask)
    if found is not None:
        stays = np.concatenate([[False], found.voxels * voxel >= mm3])
        result[found.box.slices] = stays[found.numbers]
    return result


def _find_structure(label_map: NDArray[np.integer], numbers: tuple[int, ...]) -> NDArray[np.bool_]:
    return label_map == numbers[0] if len(numbers) == 1 else np.isin(label_map, numbers)


def _name(numbers: tuple[int, ...]) -> str:
    return f"label {' with '.join(map(str, numbers))}"


def _mean(dice: dict[str, float]) -> float:
    defined = [value for value in dice.values() if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds all true voxels, or None if there are none."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return None
    z, y, x = boxes[0]
    return Box(start=(z.start, y.start, x.start), stop=(z.stop, y.stop, x.stop))
