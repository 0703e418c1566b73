"""Search for the postprocessing rules that improve the Dice of held-out cases.

Every rule keeps or removes whole connected components. Each case is therefore read only once, to measure the size of
every component and its overlap with the reference. The Dice after any rule is computed from these few numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.repeats import mean_of_defined
from autoseg.evaluation.summary import SegmentedCase
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

STEPS = (1, 2, 5, 10)
"""Mantissas of the smallest sizes that are tried; each is multiplied by a power of ten. Decision: a finer grid would
fit the held-out cases only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureComponents:
    """Connected components of one structure in a prediction, in array order, and their overlap with the reference.

    Attributes:
        reference_voxels: Number of voxels of the structure in the reference.
        mm3: Volume of each component, shape (components,).
        counted: Number of voxels of each component that are not in the ignored region of the reference.
        true_positive: Number of voxels of each component that the structure has in the reference, too.
        in_foreground: Whether each component belongs to the largest component of all labels together.
    """

    reference_voxels: int
    mm3: NDArray[np.float64]
    counted: NDArray[np.intp]
    true_positive: NDArray[np.intp]
    in_foreground: NDArray[np.bool_]

    def dice(self, kept: NDArray[np.bool_]) -> float:
        """Returns the Dice of the structure if only these components are kept; NaN if both masks are then empty.

        >>> components = StructureComponents(
        ...     reference_voxels=10,
        ...     mm3=np.array([8.0, 2.0]),
        ...     counted=np.array([8, 2]),
        ...     true_positive=np.array([8, 0]),
        ...     in_foreground=np.array([True, False]),
        ... )
        >>> components.dice(np.array([True, True])), round(components.dice(np.array([True, False])), 3)
        (0.8, 0.889)
        """
        total = self.reference_voxels + int(self.counted[kept].sum())
        return 2 * int(self.true_positive[kept].sum()) / total if total else math.nan


CaseComponents = Mapping[str, StructureComponents]
"""Components of one case: name of a structure to its components, without the structures that were not annotated."""

KeptComponents = Callable[[StructureComponents], NDArray[np.bool_]]
"""Tells for each component of a structure whether a rule keeps it."""


def measure_components(case: SegmentedCase) -> CaseComponents:
    """Measures the components of a case, from which the effect of every rule follows."""
    targets, reference, label_map = case.targets, case.reference.array, case.prediction.array
    ignored = None if targets.ignore is None else reference == targets.ignore
    foreground = None if targets.as_masks else largest_component(label_map > 0)  # masks have no rule in common
    voxel = case.prediction.geometry.voxel_size

    def measure(ground_truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> StructureComponents:
        components, total = find_components(mask), int(ground_truth.sum())
        if components is None:
            none = np.zeros(0, dtype=np.intp)
            return StructureComponents(
                reference_voxels=total, mm3=np.zeros(0), counted=none, true_positive=none, in_foreground=none > 0
            )
        voxels = components.voxels
        return StructureComponents(
            reference_voxels=total,
            mm3=voxels.astype(np.float64) * voxel,
            counted=voxels if ignored is None else voxels - _count_shared(components, ignored),
            true_positive=_count_shared(components, ground_truth),
            in_foreground=np.ones(len(voxels), bool)
            if foreground is None
            else _count_shared(components, foreground) > 0,
        )

    ground_truths, masks = split_label_map(reference, targets), split_label_map(label_map, targets)
    return {
        name: measure(ground_truth, mask)
        for name, ground_truth, mask in zip(targets.names, ground_truths, masks, strict=True)
        if name not in case.unannotated
    }


def _count_shared(components: Components, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns the number of voxels that each component shares with a mask of the whole case."""
    shared = components.numbers[mask[components.box.slices]]
    return np.bincount(shared, minlength=len(components.voxels) + 1)[1:]


def choose_rules(cases: Sequence[CaseComponents], targets: Targets) -> PostprocessingRules:
    """Chooses the rules that improve the Dice.

    The largest component of the foreground is kept if that increases the foreground mean Dice and decreases the mean
    Dice of no label. Then, if there are several labels, the largest component of each label is kept if that increases
    the mean Dice of this label. Increases are strict: a rule that changes nothing is not adopted. Means leave out
    undefined values, as in `summary`. Source: the reference method (nnU-Net v2.8.1, remove_connected_components).

    Last, small components are removed from each label that keeps more than its largest component if that increases its
    mean Dice; see `_try_sizes`. Decision: the reference method knows no such rule.

    The rule of each label is tried alone. Labels that exclude each other, and masks, do not share voxels. Regions may;
    the effect of the rule of one region on another one is not tried.

    Args:
        cases: Components of each held-out case.
        targets: Structures of the cases.
    """
    labels = targets.names
    before = {name: _mean_dice(cases, name, _all) for name in labels}
    after = {name: _mean_dice(cases, name, _in_foreground) for name in labels}
    better = mean_of_defined(after.values()) > mean_of_defined(before.values())
    adopted = better and not any(after[name] < before[name] for name in labels)
    evidence = [Trial(rule="keep the largest component of the foreground", before=before, after=after, adopted=adopted)]
    kept = _in_foreground if adopted else _all
    largest = []
    if len(labels) > 1:
        evidence += [_try_largest(cases, name, kept) for name in labels]
        largest = [name for name, trial in zip(labels, evidence[1:], strict=True) if trial.adopted]
    smallest = []
    for name in labels:
        if name not in largest and (best := _try_sizes(cases, name, kept)) is not None:
            mm3, trial = best
            evidence.append(trial)
            smallest += [SmallestSize(structure=targets.structures[name], mm3=mm3)] if trial.adopted else []
    return PostprocessingRules(
        keep_largest_foreground=adopted,
        keep_largest=tuple(targets.structures[name] for name in largest),
        smallest=tuple(smallest),
        evidence=tuple(evidence),
    )


def find_rules(cases: Iterable[SegmentedCase], targets: Targets) -> PostprocessingRules:
    """Tries all rules on each case and chooses those that improve the Dice; see `choose_rules`.

    >>> from autoseg.imaging.geometry import Geometry, Volume
    >>> geometry = Geometry(shape=(1, 1, 6), spacing_mm=(1.0, 1.0, 1.0))
    >>> reference = Volume(array=np.array([[[1, 1, 1, 0, 0, 0]]], dtype=np.uint8), geometry=geometry)
    >>> with_island = Volume(array=np.array([[[1, 1, 1, 0, 0, 1]]], dtype=np.uint8), geometry=geometry)
    >>> targets = Targets.of_labels({"liver": 1})
    >>> case = SegmentedCase(name="a", reference=reference, prediction=with_island, targets=targets)
    >>> find_rules([case], targets).describe()
    'postprocessing: keep the largest component of the foreground'

    Args:
        cases: Held-out cases; with a generator, only one case at a time is held in memory.
        targets: Structures of the dataset.
    """
    return choose_rules([measure_components(case) for case in cases], targets)


def _all(components: StructureComponents) -> NDArray[np.bool_]:
    return np.ones(len(components.mm3), dtype=bool)


def _in_foreground(components: StructureComponents) -> NDArray[np.bool_]:
    return components.in_foreground


def _mean_dice(cases: Sequence[CaseComponents], name: str, kept: KeptComponents) -> float:
    return mean_of_defined(case[name].dice(kept(case[name])) for case in cases if name in case)


def _try_largest(cases: Sequence[CaseComponents], name: str, kept: KeptComponents) -> Trial:
    """Tries to keep only the largest component of a label, among the components that earlier rules kept."""

    def largest(components: StructureComponents) -> NDArray[np.bool_]:
        sizes = np.where(kept(components), components.mm3, 0.0)
        chosen = np.zeros(len(sizes), dtype=bool)
        if len(sizes) and sizes.max() > 0:
            chosen[sizes.argmax()] = True
        return chosen

    before, after = _mean_dice(cases, name, kept), _mean_dice(cases, name, largest)
    rule = f"keep the largest component of {name!r}"
    return Trial(rule=rule, before={name: before}, after={name: after}, adopted=after > before)


def _try_sizes(cases: Sequence[CaseComponents], name: str, kept: KeptComponents) -> tuple[float, Trial] | None:
    """Tries to remove the components of a label below some size, among the components that earlier rules kept.

    The sizes that are tried lie just above those of false positive components, on the grid 1, 2, 5, 10, ... mm3. Of
    sizes with the same Dice the smallest is taken.

    Returns:
        The best size in mm3 and its trial; None if there is no false positive component.
    """
    sizes = sorted({_next_step(size) for case in cases for size in _false_positive_mm3(case, name, kept)})
    if not sizes:
        return None

    def dice_from(size: float) -> float:
        return _mean_dice(cases, name, lambda components: kept(components) & (components.mm3 >= size))

    scores = [dice_from(size) for size in sizes]
    before, after = _mean_dice(cases, name, kept), max(scores, key=lambda score: -1.0 if math.isnan(score) else score)
    best = sizes[scores.index(after)]
    rule = f"remove components of {name!r} below {best:g} mm3"
    return best, Trial(rule=rule, before={name: before}, after={name: after}, adopted=after > before)


def _false_positive_mm3(case: CaseComponents, name: str, kept: KeptComponents) -> Iterator[float]:
    """Yields the volumes of components without a true positive voxel that do not lie in the ignored region alone."""
    if name not in case:
        return iter(())
    components = case[name]
    false_positive = (components.true_positive == 0) & (components.counted > 0)
    return map(float, components.mm3[kept(components) & false_positive])


def _next_step(size: float) -> float:
    """Returns the smallest of ..., 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, ... that is larger than a size.

    >>> [_next_step(size) for size in (0.3, 1.0, 4.9, 60.0)]
    [0.5, 2.0, 5.0, 100.0]
    """
    power = math.floor(math.log10(size)) - 1
    steps = (float(f"{step}e{power + more}") for more in range(3) for step in STEPS)
    return next(step for step in steps if step > size)
