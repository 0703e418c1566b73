"""Search for the morphology that improves the Dice of held-out cases, after the rules on components.

Unlike the effect of components, that of morphology does not follow from a few numbers: each is tried on the masks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.repeats import mean_of_defined
from autoseg.evaluation.summary import SegmentedCase
from autoseg.imaging.morphology import fill_holes, open_mask
from autoseg.imaging.postprocessing import Opening, PostprocessingRules, Trial, apply_rules
from autoseg.imaging.targets import Targets

RADII_MM = (1.0, 2.0, 3.0)
"""Radii of openings that are tried. Decision: larger ones remove what is no thin part any more."""

Change = tuple[bool, float]
"""Whether holes are filled, and the radius in mm of the opening that follows; 0 for none."""

CHANGES: tuple[Change, ...] = tuple(product((False, True), (0.0, *RADII_MM)))

CaseScores = Mapping[str, Mapping[Change, float]]
"""Name of a structure to the Dice after each change; without the structures that were not annotated."""


def find_morphology(
    cases: Iterable[SegmentedCase], rules: PostprocessingRules, targets: Targets
) -> PostprocessingRules:
    """Adds the morphology that improves the Dice to rules on components.

    For each label: its holes are filled if that increases its mean Dice, and then it is opened by the radius of the
    highest mean Dice if that is still higher. Increases are strict, and a trial that changes nothing is not listed.

    Args:
        cases: Held-out cases; with a generator, only one case at a time is held in memory.
        rules: The rules on components, which are applied first.
        targets: Structures of the dataset. Regions and masks are left as they are: what fills a hole of a region has
            no number.
    """
    if not targets.exclusive:
        return rules
    scores = [_try_changes(case, rules) for case in cases]
    filled, opened, evidence = [], [], list(rules.evidence)
    for name, numbers in targets.structures.items():
        means = {change: _mean(scores, name, change) for change in CHANGES}
        before, after = means[False, 0.0], means[True, 0.0]
        fills = after > before
        if not _same(before, after):
            evidence.append(_describe(f"fill the holes of {name!r}", name, before, after))
        filled += [numbers] if fills else []
        before = means[fills, 0.0]
        radius = max(
            RADII_MM, key=lambda radius: -math.inf if math.isnan(means[fills, radius]) else means[fills, radius]
        )
        after = means[fills, radius]
        if not _same(before, after):
            evidence.append(_describe(f"open {name!r} by {radius:g} mm", name, before, after))
        opened += [Opening(structure=numbers, radius_mm=radius)] if after > before else []
    return rules.model_copy(update={"fill_holes": tuple(filled), "opening": tuple(opened), "evidence": tuple(evidence)})


def _try_changes(case: SegmentedCase, rules: PostprocessingRules) -> CaseScores:
    """Returns the Dice of each structure of a case after each change."""
    cleaned, reference = apply_rules(case.prediction, rules).array, case.reference.array
    geometry = case.prediction.geometry
    counted = np.ones(reference.shape, bool) if case.targets.ignore is None else reference != case.targets.ignore
    background = cleaned == 0

    def score(numbers: Sequence[int]) -> dict[Change, float]:
        truth, mask = np.isin(reference, numbers), np.isin(cleaned, numbers)
        whole = mask | (fill_holes(mask, geometry.dimensions) & background)
        scores: dict[Change, float] = {}
        for fills, start in ((False, mask), (True, whole)):
            for radius in (0.0, *RADII_MM):
                if fills and (whole == mask).all():
                    scores[fills, radius] = scores[False, radius]
                else:
                    changed = open_mask(start, radius, geometry.spacing_mm) if radius else start
                    scores[fills, radius] = _dice(truth & counted, changed & counted)
        return scores

    structures = case.targets.structures
    return {name: score(numbers) for name, numbers in structures.items() if name not in case.unannotated}


def _dice(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    total = int(truth.sum()) + int(mask.sum())
    return 2 * int((truth & mask).sum()) / total if total else math.nan


def _mean(scores: Sequence[CaseScores], name: str, change: Change) -> float:
    return mean_of_defined(of_case[name][change] for of_case in scores if name in of_case)


def _same(before: float, after: float) -> bool:
    return before == after or (math.isnan(before) and math.isnan(after))


def _describe(rule: str, name: str, before: float, after: float) -> Trial:
    return Trial(rule=rule, before={name: before}, after={name: after}, adopted=after > before)
