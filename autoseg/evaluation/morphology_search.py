"""Search for the morphology that improves the Dice of held-out cases, after the rules on components.

Unlike the effect of components, that of morphology does not follow from a few numbers: each is tried on the masks.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.repeats import mean_of_defined
from autoseg.evaluation.summary import SegmentedCase
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_combinations import split_label_map
from autoseg.imaging.postprocessing import (
    Opening,
    PostprocessingRules,
    Trial,
    apply_rules,
    apply_to_mask,
    fill_structure,
    find_structure,
    open_structure,
)
from autoseg.imaging.targets import Numbers, Targets

RADII_MM = (1.0, 2.0, 3.0)
"""Radii of openings that are tried. Decision: larger ones remove what is no thin part any more."""

Change = tuple[bool, float]
"""Whether holes are filled, and the radius in mm of the opening that follows; 0 for none."""

CHANGES: tuple[Change, ...] = tuple(product((False, True), (0.0, *RADII_MM)))

Dice = Mapping[str, float]
"""Name of a structure to its Dice."""

CaseScores = Mapping[str, Mapping[Change, Dice]]
"""Name of the structure that is changed to the Dice of the structures that it may affect, after each change; without
the structures that were not annotated."""


def find_morphology(
    cases: Iterable[SegmentedCase], rules: PostprocessingRules, targets: Targets
) -> PostprocessingRules:
    """Adds the morphology that improves the Dice to rules on components.

    For each structure: its holes are filled if that increases its mean Dice, and then it is opened by the radius of the
    highest mean Dice if that is still higher. A change of a region must not lower the mean Dice of another one, which
    may share voxels with it. Increases are strict, and a trial that changes nothing is not listed.

    Args:
        cases: Held-out cases; with a generator, only one case at a time is held in memory.
        rules: The rules on components, which are applied first.
        targets: Structures of the dataset.
    """
    scores = [_try_changes(case, rules, targets) for case in cases]
    filled, opened, evidence = [], [], list(rules.evidence)
    for name, numbers in targets.structures.items():
        means = {change: _mean(scores, name, change) for change in CHANGES}
        before, after = means[False, 0.0], means[True, 0.0]
        fills = _is_better(before, after, name)
        if not _same(before, after, name):
            evidence.append(_describe(f"fill the holes of {name!r}", before, after, name))
        filled += [numbers] if fills else []
        before = means[fills, 0.0]
        radius = max(RADII_MM, key=lambda radius: _rank(before, means[fills, radius], name))
        after = means[fills, radius]
        if not _same(before, after, name):
            evidence.append(_describe(f"open {name!r} by {radius:g} mm", before, after, name))
        opened += [Opening(structure=numbers, radius_mm=radius)] if _is_better(before, after, name) else []
    return rules.model_copy(update={"fill_holes": tuple(filled), "opening": tuple(opened), "evidence": tuple(evidence)})


def _try_changes(case: SegmentedCase, rules: PostprocessingRules, targets: Targets) -> CaseScores:
    """Returns the Dice of the structures of a case after each change of each."""
    if targets.as_masks:
        truths, masks = (split_label_map(volume.array, case.targets) for volume in (case.reference, case.prediction))
        pairs = zip(targets.structures.items(), truths, masks, strict=True)
        return {
            name: {change: {name: dice} for change, dice in _try_on_mask(truth, mask, numbers, case, rules)}
            for (name, numbers), truth, mask in pairs
            if name not in case.unannotated
        }
    cleaned = apply_rules(case.prediction, rules, targets)
    return {
        name: dict(_try_on_map(case, cleaned, name, targets)) for name in targets.names if name not in case.unannotated
    }


def _try_on_mask(
    truth: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    numbers: Numbers,
    case: SegmentedCase,
    rules: PostprocessingRules,
) -> Iterator[tuple[Change, float]]:
    """Yields the Dice of a structure that has a mask of its own, after each change."""
    volume = apply_to_mask(Volume(array=mask.astype(np.uint8), geometry=case.prediction.geometry), numbers, rules)
    counted = _find_counted(case)
    for fills, radius in CHANGES:
        opening = (Opening(structure=numbers, radius_mm=radius),) if radius else ()
        change = PostprocessingRules(fill_holes=(numbers,) if fills else (), opening=opening)
        changed = apply_to_mask(volume, numbers, change).array > 0
        yield (fills, radius), _dice(truth & counted, changed & counted)


def _try_on_map(
    case: SegmentedCase, cleaned: Volume, name: str, targets: Targets
) -> Iterator[tuple[Change, dict[str, float]]]:
    """Yields the Dice of the structures of a label map after each change of one of them.

    Those of labels that exclude each other do not change with another one.
    """
    numbers, counted, geometry = targets.structures[name], _find_counted(case), cleaned.geometry
    judged = [name] if targets.exclusive else [each for each in targets.names if each not in case.unannotated]
    truths = {each: find_structure(case.reference.array, targets.structures[each]) & counted for each in judged}
    whole = cleaned.array.copy()
    fill_structure(whole, numbers, targets, geometry.dimensions)
    is_filled = bool((whole != cleaned.array).any())
    found: dict[Change, dict[str, float]] = {}
    for fills, radius in CHANGES:
        if fills and not is_filled:
            found[fills, radius] = found[False, radius]
        else:
            changed = (whole if fills else cleaned.array).copy()
            if radius:
                open_structure(changed, Opening(structure=numbers, radius_mm=radius), targets, geometry.spacing_mm)
            found[fills, radius] = {
                each: _dice(truth, find_structure(changed, targets.structures[each]) & counted)
                for each, truth in truths.items()
            }
        yield (fills, radius), found[fills, radius]


def _find_counted(case: SegmentedCase) -> NDArray[np.bool_]:
    """Returns the mask of the voxels that were annotated."""
    reference = case.reference.array
    return np.ones(reference.shape, bool) if case.targets.ignore is None else reference != case.targets.ignore


def _dice(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    total = int(truth.sum()) + int(mask.sum())
    return 2 * int((truth & mask).sum()) / total if total else math.nan


def _mean(scores: Sequence[CaseScores], name: str, change: Change) -> Dice:
    changed = [of_case[name][change] for of_case in scores if name in of_case]
    names = sorted({name}.union(*changed))
    return {each: mean_of_defined(dice[each] for dice in changed if each in dice) for each in names}


def _is_better(before: Dice, after: Dice, name: str) -> bool:
    """Tells whether a structure is better, and no other one is worse."""
    return after[name] > before[name] and not any(after[each] < before[each] for each in before)


def _rank(before: Dice, after: Dice, name: str) -> tuple[bool, float]:
    """Returns what is higher for a better change: one that may be made, then the Dice of the structure."""
    is_harmless = not any(after[each] < before[each] for each in before if each != name)
    return is_harmless, -math.inf if math.isnan(after[name]) else after[name]


def _same(before: Dice, after: Dice, name: str) -> bool:
    return before[name] == after[name] or (math.isnan(before[name]) and math.isnan(after[name]))


def _describe(rule: str, before: Dice, after: Dice, name: str) -> Trial:
    adopted = _is_better(before, after, name)
    return Trial(rule=rule, before={name: before[name]}, after={name: after[name]}, adopted=adopted)
