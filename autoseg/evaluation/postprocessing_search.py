"""Finding the postprocessing rules that help, on held-out cases whose truth is known.

Every rule keeps or removes whole connected components. So each case is looked at once: how large the components of each
structure are, and how much of them is right. The Dice that any rule leads to follows from these few numbers.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.summary import mean_of_defined
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_combinations import split_label_map
from autoseg.imaging.postprocessing import (
    Components,
    PostprocessingRules,
    SmallestSize,
    Trial,
    find_components,
    largest_component,
)
from autoseg.imaging.targets import Targets

Dice = dict[str, float]
"""Label name to Dice, NaN where it is undefined."""

STEPS = (1, 2, 5, 10)
"""What a smallest size may be, times a power of ten. Decision: finer ones would fit the held-out cases only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A case that was held out, and what was made of it.

    Attributes:
        reference: Label map of shape (z, y, x).
        prediction: Label map on the same grid, before any postprocessing.
        targets: Structures of the two. Such as overlap may have more numbers than those of the dataset.
        unknown: Names of those that nobody looked for in the reference.
    """

    reference: NDArray[np.integer]
    prediction: Volume
    targets: Targets
    unknown: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The components that a prediction has of one structure, in array order, beside the truth.

    Attributes:
        reference: Voxels of the structure in the reference.
        mm3: Volume of each component.
        counted: Voxels of each that are not among those that nobody labelled.
        right: Those of them that the reference has too.
        in_foreground: Which of them are part of the largest component of all labels together.
    """

    reference: int
    mm3: NDArray[np.float64]
    counted: NDArray[np.intp]
    right: NDArray[np.intp]
    in_foreground: NDArray[np.bool_]

    def dice(self, kept: NDArray[np.bool_]) -> float:
        """Dice of the structure if these components stay and all others go; NaN if nothing is there or found."""
        both = self.reference + int(self.counted[kept].sum())
        return 2 * int(self.right[kept].sum()) / both if both else math.nan


CaseTrial = Mapping[str, Judged]
"""What is known of one case: name of a structure to its components; without those that nobody looked for."""

Chosen = Callable[[Judged], NDArray[np.bool_]]
"""Which components of a structure stay."""


def try_rules(case: HeldOut) -> CaseTrial:
    """Finds out about one case what any rule would do to it."""
    targets, label_map = case.targets, case.prediction.array
    unlabelled = None if targets.ignore is None else case.reference == targets.ignore
    foreground = None if targets.as_masks else largest_component(label_map > 0)  # masks have no rule in common
    voxel = case.prediction.geometry.voxel_size

    def judge(ground_truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> Judged:
        found, total = find_components(mask), int(ground_truth.sum())
        if found is None:
            none = np.zeros(0, dtype=np.intp)
            return Judged(reference=total, mm3=np.zeros(0), counted=none, right=none, in_foreground=none > 0)
        return Judged(
            reference=total,
            mm3=found.voxels.astype(np.float64) * voxel,
            counted=found.voxels if unlabelled is None else found.voxels - _count(found, unlabelled),
            right=_count(found, ground_truth),
            in_foreground=np.ones(len(found.voxels), bool) if foreground is None else _count(found, foreground) > 0,
        )

    truths, masks = split_label_map(case.reference, targets), split_label_map(label_map, targets)
    return {
        name: judge(ground_truth, mask)
        for name, ground_truth, mask in zip(targets.names, truths, masks, strict=True)
        if name not in case.unknown
    }


def _count(found: Components, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """How many voxels each component shares with a mask of the whole case."""
    shared = found.numbers[mask[found.box.slices]]
    return np.bincount(shared, minlength=len(found.voxels) + 1)[1:]


def choose_rules(trials: Sequence[CaseTrial], targets: Targets) -> PostprocessingRules:
    """Chooses the rules that help.

    The largest component of the foreground is kept if that makes the foreground mean Dice better and the mean Dice of
    no label worse. Then, if there are several labels, the largest component of each label is kept if that makes the
    mean Dice of this label better. "Better" is strict: a rule that changes nothing is not adopted. Means leave out
    undefined values, as in `summary`. Source: the reference method (nnU-Net v2.8.1, remove_connected_components).

    Last, of each label that keeps more than its largest component, those that are too small are removed if that makes
    its mean Dice better; see `_try_sizes`. Decision: the reference method knows no such rule.

    Each rule of a label is tried alone. Labels that exclude each other, and masks, do not touch each other's voxels.
    Regions may; what the rule of one does to another is not tried.

    Args:
        trials: One per held-out case.
        targets: Structures of the cases.
    """
    labels = targets.names
    before = {name: _mean_dice(trials, name, _all) for name in labels}
    after = {name: _mean_dice(trials, name, _in_foreground) for name in labels}
    better = mean_of_defined(after.values()) > mean_of_defined(before.values())
    adopted = better and not any(after[name] < before[name] for name in labels)
    evidence = [Trial(rule="keep the largest component of the foreground", before=before, after=after, adopted=adopted)]
    left = _in_foreground if adopted else _all
    largest = []
    if len(labels) > 1:
        evidence += [_try_largest(trials, name, left) for name in labels]
        largest = [name for name, trial in zip(labels, evidence[1:], strict=True) if trial.adopted]
    smallest = []
    for name in labels:
        if name not in largest and (found := _try_sizes(trials, name, left)) is not None:
            evidence.append(found[1])
            smallest += [SmallestSize(structure=targets.structures[name], mm3=found[0])] if found[1].adopted else []
    return PostprocessingRules(
        keep_largest_foreground=adopted,
        keep_largest=tuple(targets.structures[name] for name in largest),
        smallest=tuple(smallest),
        evidence=tuple(evidence),
    )


def find_rules(cases: Iterable[HeldOut], targets: Targets) -> PostprocessingRules:
    """Tries all rules on each case and chooses those that help; see `choose_rules`.

    Args:
        cases: A generator is best: one case at a time is held, and each is read once.
        targets: Structures of the dataset.
    """
    return choose_rules([try_rules(case) for case in cases], targets)


def _all(judged: Judged) -> NDArray[np.bool_]:
    return np.ones(len(judged.mm3), dtype=bool)


def _in_foreground(judged: Judged) -> NDArray[np.bool_]:
    return judged.in_foreground


def _mean_dice(trials: Sequence[CaseTrial], name: str, kept: Chosen) -> float:
    return mean_of_defined(trial[name].dice(kept(trial[name])) for trial in trials if name in trial)


def _try_largest(trials: Sequence[CaseTrial], name: str, left: Chosen) -> Trial:
    """Keeps the largest component of a label, of those that are left."""

    def largest(judged: Judged) -> NDArray[np.bool_]:
        sizes = np.where(left(judged), judged.mm3, 0.0)
        chosen = np.zeros(len(sizes), dtype=bool)
        if len(sizes) and sizes.max() > 0:
            chosen[sizes.argmax()] = True
        return chosen

    before, after = _mean_dice(trials, name, left), _mean_dice(trials, name, largest)
    rule = f"keep the largest component of {name!r}"
    return Trial(rule=rule, before={name: before}, after={name: after}, adopted=after > before)


def _try_sizes(trials: Sequence[CaseTrial], name: str, left: Chosen) -> tuple[float, Trial] | None:
    """Removes components of a label below some size, of those that are left.

    Sizes are tried just above those of components that hit nothing, in steps of 1, 2, 5, 10, ...; the smallest of the
    best one is taken.

    Returns:
        The size in mm3 and how it did; None if every component hits something.
    """
    sizes = sorted({_next_step(size) for trial in trials for size in _misses_mm3(trial, name, left)})
    if not sizes:
        return None

    def dice_from(size: float) -> float:
        return _mean_dice(trials, name, lambda judged: left(judged) & (judged.mm3 >= size))

    scores = [dice_from(size) for size in sizes]
    before, after = _mean_dice(trials, name, left), max(scores, key=lambda score: -1.0 if math.isnan(score) else score)
    best = sizes[scores.index(after)]
    rule = f"remove components of {name!r} below {best:g} mm3"
    return best, Trial(rule=rule, before={name: before}, after={name: after}, adopted=after > before)


def _misses_mm3(trial: CaseTrial, name: str, left: Chosen) -> Iterator[float]:
    """Volumes of components of which nothing is right, though some of it counts."""
    if name not in trial:
        return iter(())
    judged = trial[name]
    return map(float, judged.mm3[left(judged) & (judged.right == 0) & (judged.counted > 0)])


def _next_step(size: float) -> float:
    """The first of 1, 2, 5, 10, 20, 50, ... and 0.5, 0.2, 0.1, ... that is larger."""
    power = math.floor(math.log10(size)) - 1
    steps = (float(f"{step}e{power + more}") for more in range(3) for step in STEPS)
    return next(step for step in steps if step > size)
