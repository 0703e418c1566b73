"""Removing what cannot be right from a segmentation: components beside the largest one.

The rules are found on held-out cases (see `evaluation.rules`), saved in postprocessing.json, and applied to every
prediction.
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from scipy import ndimage

from autoseg.artifact import Artifact, Score
from autoseg.geometry import Box


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


class PostprocessingRules(Artifact):
    """What is done to a segmentation before it is written; postprocessing.json.

    Attributes:
        keep_largest_foreground: Keep only the largest component of all labels together; done first.
        keep_largest: Numbers of the structures of which only the largest component is kept, each structure on its own.
        evidence: What was tried to find these rules.
    """

    keep_largest_foreground: bool = False
    keep_largest: tuple[Structure, ...] = ()
    evidence: tuple[Trial, ...] = ()

    def describe(self) -> str:
        """The rules in one line."""
        kept = ["the foreground"] if self.keep_largest_foreground else []
        kept += [f"label {' with '.join(map(str, numbers))}" for numbers in self.keep_largest]
        if not kept:
            return "postprocessing: none"
        return f"postprocessing: keep the largest component of {', then of '.join(kept)}"


NO_RULES = PostprocessingRules()


def apply_rules(label_map: NDArray[np.integer], rules: PostprocessingRules) -> NDArray[np.integer]:
    """Sets the voxels that the rules remove to background.

    Args:
        label_map: Shape (z, y, x); it is left as it is.
        rules: Structures that the map does not hold are passed over.

    Returns:
        A new label map of the same shape and number type.
    """
    result = label_map.copy()
    if rules.keep_largest_foreground:
        result[~largest_component(result > 0)] = 0
    for numbers in rules.keep_largest:
        mask = result == numbers[0] if len(numbers) == 1 else np.isin(result, numbers)
        result[mask & ~largest_component(mask)] = 0
    return result


def apply_to_mask(
    mask: NDArray[np.integer], numbers: tuple[int, ...], rules: PostprocessingRules
) -> NDArray[np.integer]:
    """The mask (z, y, x) of a structure that has these numbers in a label map, after the rules that concern it."""
    return largest_component(mask > 0).astype(mask.dtype) if numbers in rules.keep_largest else mask


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keeps the connected component with the most voxels.

    Voxels that touch by a face, an edge or a corner are connected. Among components of the same size the one that comes
    first in array order is kept. Source of the connectivity: the reference method (nnU-Net v2.8.1); it keeps all
    components of the largest size. Decision: a rule that is named "largest" leaves one. Decision: SciPy counts the
    components; cc3d is four times as fast, but its version 4.1.1 stops with an error at some masks that are one voxel
    thin.

    Args:
        mask: Shape (z, y, x).

    Returns:
        A new mask of the same shape; empty if `mask` is.
    """
    result = np.zeros_like(mask)
    box = _bounding_box(mask)
    if box is None:
        return result
    inside = np.ascontiguousarray(mask[box.slices])
    components = np.empty(inside.shape, dtype=np.intp)
    ndimage.label(inside, structure=np.ones((3, 3, 3)), output=components)  # numbered from 1, in array order
    sizes = np.bincount(components.ravel())[1:]
    result[box.slices] = components == 1 + sizes.argmax()
    return result


def _bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds all true voxels, or None if there are none."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return None
    z, y, x = boxes[0]
    return Box(start=(z.start, y.start, x.start), stop=(z.stop, y.stop, x.stop))
