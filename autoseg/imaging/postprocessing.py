"""Postprocessing: removes components of a segmentation that are most likely wrong, fills holes, removes thin parts.

The rules are found on held-out cases (see `evaluation.postprocessing_search` and `evaluation.morphology_search`), saved
in postprocessing.json or best.json, and applied to every prediction.

>>> rules = PostprocessingRules(keep_largest=((1,),), smallest=(SmallestSize(structure=(2,), mm3=4.0),))
>>> rules.describe()
'postprocessing: keep the largest component of label 1, then remove components of label 2 below 4 mm3'
>>> from autoseg.imaging.geometry import Geometry
>>> geometry = Geometry(shape=(1, 1, 8), spacing_mm=(2.0, 1.0, 1.0))
>>> label = Volume(array=np.array([[[1, 1, 0, 1, 2, 2, 0, 2]]]), geometry=geometry)
>>> apply_rules(label, rules).array.tolist()
[[[1, 1, 0, 0, 2, 2, 0, 0]]]
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from autoseg.imaging.geometry import Box, Vector, Volume
from autoseg.imaging.morphology import fill_holes, open_mask
from autoseg.imaging.renumbering import numbers_with, numbers_without, renumber
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import Artifact, Score


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, int) else value  # old files hold one number per structure


Structure = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_as_tuple)]
"""The numbers that the voxels of a structure have in a label map."""


class Trial(BaseModel):
    """A rule that was tried on held-out cases, and the mean Dice of the structures that it changes.

    Attributes:
        rule: Description of the rule.
        before, after: Name of a structure to mean Dice, 0 to 1; undefined where the structure is in no case.
        adopted: Whether the rule improved the segmentations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    before: dict[str, Score]
    after: dict[str, Score]
    adopted: bool

    def describe(self) -> str:
        """Returns the rule and its effect in one line."""
        change = f"mean Dice {_mean(self.before):.4f} -> {_mean(self.after):.4f}"
        return f"{self.rule}: {change}, {'adopted' if self.adopted else 'not adopted'}"


class SmallestSize(BaseModel):
    """The size from which on a component of a structure is kept.

    Attributes:
        structure: The numbers of its voxels in a label map.
        mm3: Components of less are removed. For planes this is an area in mm2; see `geometry.voxel_size`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structure: Structure
    mm3: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Opening(BaseModel):
    """An opening of a structure, which removes its thin parts; see `morphology.open_mask`.

    Attributes:
        structure: The numbers of its voxels in a label map.
        radius_mm: Radius of the ball that must fit into what is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structure: Structure
    radius_mm: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PostprocessingRules(Artifact):
    """The rules that are applied to a segmentation before it is written; postprocessing.json.

    Attributes:
        keep_largest_foreground: Keep only the largest component of all labels together; done first.
        keep_largest: Numbers of the structures of which only the largest component is kept, each structure on its own.
        smallest: Structures whose small components are removed; done after that.
        fill_holes: Numbers of the structures whose holes are filled, where no other structure loses a voxel by it; done
            after that. See `renumbering`.
        opening: Structures that are opened; done last.
        evidence: The trials that led to these rules.
    """

    keep_largest_foreground: bool = False
    keep_largest: tuple[Structure, ...] = ()
    smallest: tuple[SmallestSize, ...] = ()
    fill_holes: tuple[Structure, ...] = ()
    opening: tuple[Opening, ...] = ()
    evidence: tuple[Trial, ...] = ()

    def describe(self) -> str:
        """Returns the rules in one line."""
        largest = ["the foreground"] if self.keep_largest_foreground else []
        largest += [_name(numbers) for numbers in self.keep_largest]
        steps = [f"keep the largest component of {', then of '.join(largest)}"] if largest else []
        for mm3 in sorted({rule.mm3 for rule in self.smallest}):
            names = [_name(rule.structure) for rule in self.smallest if rule.mm3 == mm3]
            steps.append(f"remove components of {', '.join(names)} below {mm3:g} mm3")
        return f"postprocessing: {', then '.join([*steps, *self.describe_morphology()]) or 'none'}"

    def describe_morphology(self) -> list[str]:
        """Returns a few words about each step that changes the shape of components."""
        holes = [f"fill the holes of {', '.join(map(_name, self.fill_holes))}"] if self.fill_holes else []
        return holes + [f"open {_name(rule.structure)} by {rule.radius_mm:g} mm" for rule in self.opening]


NO_RULES = PostprocessingRules()


def apply_rules(label_map: Volume, rules: PostprocessingRules, targets: Targets | None = None) -> Volume:
    """Sets the voxels that the rules on components remove to background; fills holes and opens structures.

    Args:
        label_map: Shape (z, y, x); it is not changed.
        rules: The rules; structures that the map does not hold are ignored.
        targets: Structures of the label map; left out, no voxel belongs to several.

    Returns:
        A new label map of the same grid and number type.
    """
    result = label_map.array.copy()
    if rules.keep_largest_foreground:
        result[~largest_component(result > 0)] = 0
    for numbers in rules.keep_largest:
        mask = find_structure(result, numbers)
        result[mask & ~largest_component(mask)] = 0
    for rule in rules.smallest:
        mask = find_structure(result, rule.structure)
        result[mask & ~large_components(mask, rule.mm3, label_map.geometry.voxel_size)] = 0
    for numbers in rules.fill_holes:
        fill_structure(result, numbers, targets, label_map.geometry.dimensions)
    for opening in rules.opening:
        open_structure(result, opening, targets, label_map.geometry.spacing_mm)
    return Volume(array=result, geometry=label_map.geometry)


def fill_structure(
    label_map: NDArray[np.integer], numbers: tuple[int, ...], targets: Targets | None, dimensions: int
) -> None:
    """Fills the holes of a structure of a label map, in place; see `renumbering.numbers_with`."""
    holes = fill_holes(mask := find_structure(label_map, numbers), dimensions) & ~mask
    renumber(label_map, holes, numbers_with(numbers, targets))


def open_structure(
    label_map: NDArray[np.integer], opening: Opening, targets: Targets | None, spacing_mm: Vector
) -> None:
    """Opens a structure of a label map, in place; see `renumbering.numbers_without`."""
    mask = find_structure(label_map, opening.structure)
    thin = mask & ~open_mask(mask, opening.radius_mm, spacing_mm)
    renumber(label_map, thin, numbers_without(opening.structure, targets))


def apply_to_mask(mask: Volume, numbers: tuple[int, ...], rules: PostprocessingRules) -> Volume:
    """Applies the rules of one structure to its mask.

    Args:
        mask: Mask (z, y, x) of the structure; it is not changed.
        numbers: Numbers that the structure has in a label map.
        rules: The rules; those of other structures, and of the foreground as a whole, are ignored.

    Returns:
        A mask of the same grid and number type.
    """
    array = mask.array
    if numbers in rules.keep_largest:
        array = largest_component(array > 0).astype(array.dtype)
    for rule in rules.smallest:
        if rule.structure == numbers:
            array = large_components(array > 0, rule.mm3, mask.geometry.voxel_size).astype(array.dtype)
    if numbers in rules.fill_holes:
        array = fill_holes(array > 0, mask.geometry.dimensions).astype(array.dtype)
    for opening in rules.opening:
        if opening.structure == numbers:
            array = open_mask(array > 0, opening.radius_mm, mask.geometry.spacing_mm).astype(array.dtype)
    return Volume(array=array, geometry=mask.geometry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The connected components of a mask.

    Voxels that touch by a face, an edge or a corner are connected. Source: the reference method (nnU-Net v2.8.1).

    Attributes:
        box: The smallest box that holds all components.
        numbers: Array of the shape of the box: the number of the component of each voxel, from 1 in array order of
            their first voxels; 0 outside the mask.
        voxels: Number of voxels of each component, in the order of their numbers.
    """

    box: Box
    numbers: NDArray[np.intp]
    voxels: NDArray[np.intp]


def find_components(mask: NDArray[np.bool_]) -> Components | None:
    """Finds the connected components of a mask (z, y, x); None if it is empty.

    Decision: SciPy labels them; cc3d is four times as fast, but its version 4.1.1 fails on some masks that are one
    voxel thin.

    Example:
        >>> components = find_components(np.array([[[True, True, False, True]]]))
        >>> components.numbers.tolist(), components.voxels.tolist()
        ([[[1, 1, 0, 2]]], [2, 1])
    """
    box = _bounding_box(mask)
    if box is None:
        return None
    inside = np.ascontiguousarray(mask[box.slices])
    numbers = np.empty(inside.shape, dtype=np.intp)
    scipy.ndimage.label(inside, structure=np.ones((3, 3, 3)), output=numbers)
    return Components(box=box, numbers=numbers, voxels=np.bincount(numbers.ravel())[1:])


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keeps the connected component with the most voxels.

    Among components of the same size the first in array order is kept. Source: the reference method (nnU-Net v2.8.1),
    which keeps all components of the largest size. Decision: a rule that is named "largest" keeps one.

    Args:
        mask: Shape (z, y, x).

    Returns:
        A new mask of the same shape; empty if `mask` is.

    Example:
        >>> largest_component(np.array([[[True, False, True, True]]])).astype(int).tolist()
        [[[0, 0, 1, 1]]]
    """
    result, components = np.zeros_like(mask), find_components(mask)
    if components is not None:
        result[components.box.slices] = components.numbers == 1 + components.voxels.argmax()
    return result


def large_components(mask: NDArray[np.bool_], mm3: float, voxel: float) -> NDArray[np.bool_]:
    """Keeps the connected components that are not smaller than a volume.

    Args:
        mask: Shape (z, y, x).
        mm3: The volume; for a plane, an area in mm2.
        voxel: Volume of a voxel in mm3, or area of a plane's pixel in mm2.

    Returns:
        A new mask of the same shape.

    Example:
        >>> large_components(np.array([[[True, False, True, True]]]), mm3=4.0, voxel=2.0).astype(int).tolist()
        [[[0, 0, 1, 1]]]
    """
    result, components = np.zeros_like(mask), find_components(mask)
    if components is not None:
        is_large = np.concatenate([[False], components.voxels * voxel >= mm3])
        result[components.box.slices] = is_large[components.numbers]
    return result


def find_structure(label_map: NDArray[np.integer], numbers: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns the mask of the voxels of a label map that have one of some numbers."""
    return label_map == numbers[0] if len(numbers) == 1 else np.isin(label_map, numbers)


def _name(numbers: tuple[int, ...]) -> str:
    return f"label {' with '.join(map(str, numbers))}"


def _mean(dice: dict[str, float]) -> float:
    defined = [value for value in dice.values() if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """Returns the smallest box that holds all true voxels, or None if there are none."""
    boxes = scipy.ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return None
    z, y, x = boxes[0]
    return Box(start=(z.start, y.start, x.start), stop=(z.stop, y.stop, x.stop))
