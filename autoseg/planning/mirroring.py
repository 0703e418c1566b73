"""Whether patches may be flipped from left to right, if labels such as left and right kidney have sides.

The mirror image of a left kidney is no left kidney. So either the two labels change places whenever a patch is flipped
from left to right, or patches are not flipped that way at all; in training and in prediction alike. The first is
right only if the structures mirror each other, as kidneys do and the atria of the heart do not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Shape
from autoseg.planning.settings import AugmentationSettings
from autoseg.planning.sides import PairNumbers, pair_by_name, tell_nothing_apart
from autoseg.planning.spacing import AXIS_NAMES
from autoseg.planning.symmetry import measure_positions

# Decision: the last axis of a file, (z, y, x), is taken to run from side to side where no file says so, as the rows of
# pictures and of axial slices do.
USUAL_AXIS = 2

# Decision: a half turn within a plane and a flip of that plane's other axis are, together, a flip from left to right.
# Below a quarter turn left stays left; this is the angle by which the reference method turns volumes.
LARGEST_TURN_DEGREES = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePair:
    """Two labels of which one lies left and one lies right.

    Attributes:
        labels: Their numbers; of a pair by name, the left one first.
        source: What made them a pair: their names, or where they lie.
        mirrored: Whether they mirror each other about the middle of the image; None if too few cases tell.
    """

    labels: PairNumbers
    source: Literal["name", "position"]
    mirrored: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirroring:
    """Which labels have sides, and which axis runs from one side of the body to the other.

    Attributes:
        pairs: Of labels.
        lone: Labels whose name says a side and whose counterpart is missing.
        axes: Axes of the files, (z, y, x) = (0, 1, 2), that run from side to side in some case. More than one if cases
            disagree; then no case's mirror image is trusted.
        known: Whether the files told the axis; otherwise it is the usual one.
        reversed_cases: How many cases run along it against the direction of most.
    """

    pairs: tuple[SidePair, ...]
    lone: tuple[int, ...]
    axes: tuple[int, ...]
    known: bool
    reversed_cases: int

    @property
    def has_sides(self) -> bool:
        """Whether any label has a side."""
        return bool(self.pairs or self.lone)

    @property
    def axis(self) -> int | None:
        """The axis from side to side; None if cases disagree."""
        return self.axes[0] if len(self.axes) == 1 else None

    @property
    def swaps(self) -> bool:
        """Whether a flip along `axis` may exchange the labels of every pair; if not, patches are not flipped so."""
        safe = self.axis is not None and not self.lone
        return safe and bool(self.pairs) and all(pair.mirrored for pair in self.pairs)


def choose_mirroring(fingerprint: Fingerprint, info: DatasetInfo) -> Mirroring:
    """Finds the labels that have sides, and whether they mirror each other.

    Labels are a pair if their names are equal once side words are exchanged, or, if their names say no more than a
    number or a letter, by clearly mirrored positions. A pair by name is tested by its positions too. A label with a
    side word and no counterpart must never be seen mirrored. Left to right is the axis that the files name.

    A fingerprint without facts of labels, such as one of nnU-Net, shows no positions: no pair may then be exchanged.
    With `sides` empty in dataset.json, labels have no sides. Decision: regions with sides are never exchanged, because
    the numbers that they share in a label map may have other counterparts.
    """
    axes, known, reversed_cases = _left_right_axes(fingerprint)
    by_name, lone = pair_by_name(info)
    if not info.targets.exclusive:
        lone += tuple(output for pair in by_name for output in pair)
        return Mirroring(pairs=(), lone=lone, axes=axes, known=known, reversed_cases=reversed_cases)
    pairs = [
        SidePair(labels=labels, source="name", mirrored=_are_mirrored(fingerprint, labels, axes)) for labels in by_name
    ]
    if known and len(axes) == 1 and info.sides != ():
        sided = {*lone, *(label for labels in by_name for label in labels)}
        others = {name: number for name, number in info.targets.output_of.items() if number not in sided}
        for labels in _pair_by_position(fingerprint, others, axes[0]):
            pairs.append(SidePair(labels=labels, source="position", mirrored=True))
    return Mirroring(pairs=tuple(pairs), lone=lone, axes=axes, known=known, reversed_cases=reversed_cases)


def mirror_settings(
    mirroring: Mirroring, axis_order: Shape, dimensions: int, settings: AugmentationSettings
) -> AugmentationSettings:
    """Changes the settings that suit a patch such that the network can tell left from right.

    Patches that hold the axis from side to side are flipped along it with their labels exchanged, or not at all, and
    turn by at most `LARGEST_TURN_DEGREES`. Planes that are stacked along it stay as they are, as does everything where
    no label has a side.

    Args:
        mirroring: Of the dataset.
        axis_order: Of the plan.
        dimensions: Axes of the patch, 2 or 3; two are the last two of `axis_order`.
        settings: Those that suit the shape of the patch.
    """
    patch_axes = axis_order[3 - dimensions :]
    sideways = {place for place, axis in enumerate(patch_axes) if axis in mirroring.axes}
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
    """Says in sentences whether patches are flipped from left to right, and why; nothing where labels have no sides."""
    if not mirroring.has_sides:
        return
    along = " and ".join(AXIS_NAMES[axis] for axis in mirroring.axes)
    if mirroring.swaps:
        first, *others = (_describe(pair, info) for pair in mirroring.pairs)
        too = {0: "", 1: ", as does another pair of labels"}.get(len(others), f", as do {len(others)} more pairs")
        yield (
            f"Patches are flipped from left to right, along {along}, and {first} then change places{too}: their "
            "positions mirror each other."
        )
    else:
        yield f"Patches are not flipped from left to right, along {along}, because {_obstacle(mirroring, info)}."
    if not mirroring.known:
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
    """The axes from side to side, whether some case names one, and how many cases run against most of them."""
    found = [
        (axis, letter)
        for case in fingerprint.cases
        for axis, letter in enumerate(case.orientation or "")
        if letter in "LR"
    ]
    if not found:
        return (USUAL_AXIS,), False, 0
    letters = [letter for _, letter in found]
    return tuple(sorted({axis for axis, _ in found})), True, min(letters.count("L"), letters.count("R"))


def _are_mirrored(fingerprint: Fingerprint, labels: PairNumbers, axes: tuple[int, ...]) -> bool | None:
    positions = measure_positions(fingerprint, labels, axes[0]) if len(axes) == 1 else None
    return None if positions is None else positions.are_mirrored


def _pair_by_position(fingerprint: Fingerprint, labels: Mapping[str, int], axis: int) -> Iterator[PairNumbers]:
    """Pairs the labels whose positions clearly mirror each other, each once, the best match first.

    Decision: only labels that differ by a number or a letter, such as "organ_1" and "organ_2". Positions alone would
    make a pair of ascending and descending colon, and a mirror image does not turn one into the other.
    """
    matches = []
    for (first, one), (second, other) in combinations(labels.items(), 2):
        positions = measure_positions(fingerprint, (one, other), axis) if tell_nothing_apart(first, second) else None
        if positions is not None and positions.are_clearly_mirrored:
            matches.append((positions.relative_offset, (one, other)))
    taken: set[int] = set()
    for _, pair in sorted(matches):
        if taken.isdisjoint(pair):
            taken.update(pair)
            yield pair


def _obstacle(mirroring: Mirroring, info: DatasetInfo) -> str:
    """Why labels may not be exchanged; of several reasons the first that a user can do something about."""
    if mirroring.lone:
        name = _name(mirroring.lone[0], info)
        others = f", like {len(mirroring.lone) - 1} more" if len(mirroring.lone) > 1 else ""
        if not info.targets.exclusive:
            return f"{name} has a side in its name and may overlap other regions{others}"
        return f"{name} has a side in its name and no counterpart among the labels{others}"
    spoiling = [pair for pair in mirroring.pairs if not pair.mirrored]
    distinguished = f"{_describe(spoiling[0], info)} are told apart"
    if len(mirroring.axes) > 1:
        return f"{distinguished}, and not all cases are stored along the same axes"
    if spoiling[0].mirrored is None:
        return f"{distinguished}, and too few cases show where both lie"
    return f"{distinguished}, and their positions do not mirror each other"


def _describe(pair: SidePair, info: DatasetInfo) -> str:
    return " and ".join(_name(label, info) for label in pair.labels)


def _name(label: int, info: DatasetInfo) -> str:
    return next(name for name, output in info.targets.output_of.items() if output == label)
