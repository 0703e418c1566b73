"""Decides whether patches may be mirrored from left to right where labels such as left and right kidney have sides.

The mirror image of a left kidney is not a left kidney. So either the two labels are swapped whenever a patch is
mirrored from left to right, or patches are not mirrored that way at all; in training and in prediction alike. Swapping
is right only if the structures mirror each other, as kidneys do and the atria of the heart do not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Shape
from autoseg.planning.settings import AugmentationSettings
from autoseg.planning.sides import PairNumbers, differ_in_numbers_only, pair_sides_by_name
from autoseg.planning.spacing import AXIS_NAMES
from autoseg.planning.symmetry import compare_positions

# Decision: the last axis of a file, (z, y, x), is taken to run from side to side where no file says so, as the rows of
# pictures and of axial slices do.
USUAL_AXIS = 2

# Decision: a rotation by 180 degrees within a plane and a flip of that plane's other axis are, together, a flip from
# left to right. Below 90 degrees left stays left; this is the angle by which the reference method rotates volumes.
LARGEST_TURN_DEGREES = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePair:
    """A pair of labels, one on the left and one on the right.

    Attributes:
        labels: The numbers of the labels; for a pair by name, the left one first.
        source: Whether the pair was found by the names or by the positions of the labels.
        mirrored: Whether they mirror each other about the middle of the image; None if too few cases show it.
    """

    labels: PairNumbers
    source: Literal["name", "position"]
    mirrored: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirroring:
    """The labels with sides, and the axis that runs from one side of the body to the other.

    Attributes:
        pairs: Pairs of labels.
        unpaired: Labels whose name says a side and whose counterpart is missing.
        axes: Axes of the files, (z, y, x) = (0, 1, 2), that run from side to side in some case. More than one if cases
            disagree; then no case's mirror image is trusted.
        axis_is_known: Whether the files give the axis; otherwise it is the usual one.
        reversed_cases: Number of cases that are stored along it in the opposite direction of most cases.
    """

    pairs: tuple[SidePair, ...]
    unpaired: tuple[int, ...]
    axes: tuple[int, ...]
    axis_is_known: bool
    reversed_cases: int

    @property
    def has_sides(self) -> bool:
        """Whether any label has a side."""
        return bool(self.pairs or self.unpaired)

    @property
    def axis(self) -> int | None:
        """The axis from side to side; None if cases disagree."""
        return self.axes[0] if len(self.axes) == 1 else None

    @property
    def swaps(self) -> bool:
        """Whether a flip along `axis` swaps the labels of every pair; if not, patches are not flipped along it."""
        safe = self.axis is not None and not self.unpaired
        return safe and bool(self.pairs) and all(pair.mirrored for pair in self.pairs)


def choose_mirroring(fingerprint: Fingerprint, info: DatasetInfo) -> Mirroring:
    """Finds the labels that have sides, and whether they mirror each other.

    Two labels are a pair if their names become equal when side words are exchanged, or, if their names differ in a
    number or a letter alone, by clearly mirrored positions. A pair by name is tested by its positions too. A label with
    a side word and no counterpart must never be mirrored. The axis from left to right is the one that the files name.

    A fingerprint without measurements of labels, such as one of nnU-Net, shows no positions: no pair is then swapped.
    With `sides` empty in dataset.json, labels have no sides. Decision: regions with sides are never swapped, because
    the label numbers that they share may have other counterparts.

    Args:
        fingerprint: Measurements of the training cases.
        info: The content of dataset.json.
    """
    axes, axis_is_known, reversed_cases = _left_right_axes(fingerprint)
    by_name, unpaired = pair_sides_by_name(info)
    if not info.targets.exclusive:
        unpaired += tuple(output for pair in by_name for output in pair)
        return Mirroring(
            pairs=(), unpaired=unpaired, axes=axes, axis_is_known=axis_is_known, reversed_cases=reversed_cases
        )
    pairs = [
        SidePair(labels=labels, source="name", mirrored=_are_mirrored(fingerprint, labels, axes)) for labels in by_name
    ]
    if axis_is_known and len(axes) == 1 and info.sides != ():
        sided = {*unpaired, *(label for labels in by_name for label in labels)}
        others = {name: number for name, number in info.targets.output_of.items() if number not in sided}
        for labels in _pair_by_position(fingerprint, others, axes[0]):
            pairs.append(SidePair(labels=labels, source="position", mirrored=True))
    return Mirroring(
        pairs=tuple(pairs), unpaired=unpaired, axes=axes, axis_is_known=axis_is_known, reversed_cases=reversed_cases
    )


def mirror_settings(
    mirroring: Mirroring, axis_order: Shape, dimensions: int, settings: AugmentationSettings
) -> AugmentationSettings:
    """Restricts the augmentation of a patch such that the network can distinguish left from right.

    Patches that contain the axis from side to side are flipped along it with their labels swapped, or not at all, and
    are rotated by at most `LARGEST_TURN_DEGREES`. 2D patches that are perpendicular to it keep their settings, as do
    all patches where no label has a side.

    Args:
        mirroring: The labels with sides, and the axis from side to side.
        axis_order: The axis order of the plan.
        dimensions: Number of axes of the patch; two are the last two of `axis_order`.
        settings: The augmentation that suits the shape of the patch.
    """
    patch_axes = axis_order[3 - dimensions :]
    sideways = {position for position, axis in enumerate(patch_axes) if axis in mirroring.axes}
    if not (mirroring.has_sides and sideways):
        return settings
    changes: dict[str, object] = {}
    if any(dimensions == 2 or sideways != {about} for about in settings.rotation_axes):
        changes["rotation_degrees"] = min(settings.rotation_degrees, LARGEST_TURN_DEGREES)
    if not mirroring.swaps:
        changes["mirror_axes"] = tuple(axis for axis in settings.mirror_axes if axis not in sideways)
    elif sideways <= set(settings.mirror_axes):
        changes["swap_axis"] = min(sideways)
        changes["swapped_labels"] = tuple(pair.labels for pair in mirroring.pairs)
    return AugmentationSettings.model_validate(settings.model_dump() | changes)


def explain_mirroring(mirroring: Mirroring, info: DatasetInfo) -> Iterator[str]:
    """Yields sentences on whether patches are flipped from left to right, and why; none if no label has a side."""
    if not mirroring.has_sides:
        return
    along = " and ".join(AXIS_NAMES[axis] for axis in mirroring.axes)
    if mirroring.swaps:
        first, *others = (_describe(pair, info) for pair in mirroring.pairs)
        more = {0: "", 1: ", as does another pair of labels"}.get(len(others), f", as do {len(others)} more pairs")
        yield (
            f"Patches are flipped from left to right, along {along}, and {first} then change places{more}: their "
            "positions mirror each other."
        )
    else:
        yield f"Patches are not flipped from left to right, along {along}, because {_explain_no_swap(mirroring, info)}."
    if not mirroring.axis_is_known:
        yield f"No image says which axis runs from left to right; it is taken to be {along}, as usual."
    yield (
        f"Patches that hold that axis turn by {LARGEST_TURN_DEGREES:g} degrees at most, because a half turn and a flip "
        "along another axis would together be a flip from left to right."
    )
    if mirroring.reversed_cases:
        yield (
            f"Left and right are stored the other way round in {mirroring.reversed_cases} cases than in the others; a "
            "network learns to tell sides apart best from cases that are all stored one way."
        )


def _left_right_axes(fingerprint: Fingerprint) -> tuple[tuple[int, ...], bool, int]:
    """Returns the axes from side to side, whether some case names one, and how many cases are stored reversed."""
    sideways = [
        (axis, letter)
        for case in fingerprint.cases
        for axis, letter in enumerate(case.orientation or "")
        if letter in "LR"
    ]
    if not sideways:
        return (USUAL_AXIS,), False, 0
    letters = [letter for _, letter in sideways]
    return tuple(sorted({axis for axis, _ in sideways})), True, min(letters.count("L"), letters.count("R"))


def _are_mirrored(fingerprint: Fingerprint, labels: PairNumbers, axes: tuple[int, ...]) -> bool | None:
    positions = compare_positions(fingerprint, labels, axes[0]) if len(axes) == 1 else None
    return None if positions is None else positions.are_mirrored


def _pair_by_position(fingerprint: Fingerprint, labels: Mapping[str, int], axis: int) -> Iterator[PairNumbers]:
    """Pairs the labels whose positions clearly mirror each other, each label once, the best match first.

    Decision: only labels that differ in a number or a letter, such as "organ_1" and "organ_2". Positions alone would
    pair the ascending with the descending colon, and a mirror image does not turn one into the other.
    """
    matches = []
    for (first_name, first), (second_name, second) in combinations(labels.items(), 2):
        if not differ_in_numbers_only(first_name, second_name):
            continue
        positions = compare_positions(fingerprint, (first, second), axis)
        if positions is not None and positions.are_clearly_mirrored:
            matches.append((positions.relative_offset, (first, second)))
    taken: set[int] = set()
    for _, pair in sorted(matches):
        if taken.isdisjoint(pair):
            taken.update(pair)
            yield pair


def _explain_no_swap(mirroring: Mirroring, info: DatasetInfo) -> str:
    """Returns why labels are not swapped; of several reasons the first that a user can do something about."""
    if mirroring.unpaired:
        name = _name(mirroring.unpaired[0], info)
        others = f", like {len(mirroring.unpaired) - 1} more" if len(mirroring.unpaired) > 1 else ""
        if not info.targets.exclusive:
            return f"{name} has a side in its name and may overlap other regions{others}"
        return f"{name} has a side in its name and no counterpart among the labels{others}"
    unmirrored = [pair for pair in mirroring.pairs if not pair.mirrored]
    distinguished = f"{_describe(unmirrored[0], info)} are told apart"
    if len(mirroring.axes) > 1:
        return f"{distinguished}, and not all cases are stored along the same axes"
    if unmirrored[0].mirrored is None:
        return f"{distinguished}, and too few cases show where both lie"
    return f"{distinguished}, and their positions do not mirror each other"


def _describe(pair: SidePair, info: DatasetInfo) -> str:
    return " and ".join(_name(label, info) for label in pair.labels)


def _name(label: int, info: DatasetInfo) -> str:
    return next(name for name, output in info.targets.output_of.items() if output == label)
