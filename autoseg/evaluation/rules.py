"""Finding the postprocessing rules that help, on held-out cases whose truth is known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.combinations import split_label_map
from autoseg.evaluation.metrics import case_overlaps
from autoseg.evaluation.summary import mean_of_defined
from autoseg.postprocessing import PostprocessingRules, Trial, apply_rules, largest_component
from autoseg.targets import Targets

Dice = dict[str, float]
"""Label name to Dice, NaN where it is undefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTrial:
    """The Dice of one case with every combination of rules that may be chosen.

    The rule of a label is tried alone. Labels that exclude each other do not touch each other's voxels, so one map with
    the rules of all of them shows what each does.

    Attributes:
        untouched: Without any rule.
        foreground: With the largest component of the foreground.
        labels: With the largest component of each label.
        both: With the largest component of the foreground first, then of each label.
    """

    untouched: Dice
    foreground: Dice
    labels: Dice
    both: Dice


def try_rules(reference: NDArray[np.integer], prediction: NDArray[np.integer], targets: Targets) -> CaseTrial:
    """Tries all rules on one case.

    Args:
        reference: Label map of shape (z, y, x).
        prediction: Label map of the same shape, before any postprocessing.
        targets: Structures of the two.
    """

    def score(label_map: NDArray[np.integer]) -> Dice:
        return {name: overlap.dice for name, overlap in case_overlaps(reference, label_map, targets).items()}

    if targets.as_masks:
        return _try_on_masks(reference, prediction, targets)

    def score_labels(label_map: NDArray[np.integer]) -> Dice:
        if targets.exclusive:
            return score(apply_rules(label_map, PostprocessingRules(keep_largest=tuple(targets.structures.values()))))
        alone = {name: PostprocessingRules(keep_largest=(numbers,)) for name, numbers in targets.structures.items()}
        return {name: score(apply_rules(label_map, rules))[name] for name, rules in alone.items()}

    largest = apply_rules(prediction, PostprocessingRules(keep_largest_foreground=True))
    return CaseTrial(
        untouched=score(prediction),
        foreground=score(largest),
        labels=score_labels(prediction),
        both=score_labels(largest),
    )


def _try_on_masks(reference: NDArray[np.integer], prediction: NDArray[np.integer], targets: Targets) -> CaseTrial:
    """Structures that are masks each: the largest component of one takes nothing from another."""
    untouched = {name: overlap.dice for name, overlap in case_overlaps(reference, prediction, targets).items()}
    alone = Targets.of_labels({"": 1})
    labels = {}
    for name, truth, mask in zip(
        targets.names, split_label_map(reference, targets), split_label_map(prediction, targets), strict=True
    ):
        counted = truth if targets.ignore is None else np.where(reference == targets.ignore, 2, truth)
        largest = largest_component(mask).astype(np.uint8)
        labels[name] = case_overlaps(counted.astype(np.uint8), largest, replace(alone, ignore=2))[""].dice
    return CaseTrial(untouched=untouched, foreground=untouched, labels=labels, both=labels)


def choose_rules(trials: Sequence[CaseTrial], targets: Targets) -> PostprocessingRules:
    """Chooses the rules that help.

    The largest component of the foreground is kept if that makes the foreground mean Dice better and the mean Dice of
    no label worse. Then, if there are several labels, the largest component of each label is kept if that makes the
    mean Dice of this label better. "Better" is strict: a rule that changes nothing is not adopted. Means leave out
    undefined values, as in `summary`. Source: the reference method (nnU-Net v2.8.1, remove_connected_components).

    Args:
        trials: One per held-out case.
        targets: Structures of the cases.
    """
    labels = targets.names
    before = _mean_dice([trial.untouched for trial in trials], labels)
    after = _mean_dice([trial.foreground for trial in trials], labels)
    better = mean_of_defined(after.values()) > mean_of_defined(before.values())
    adopted = better and not any(after[name] < before[name] for name in labels)
    evidence = [Trial(rule="keep the largest component of the foreground", before=before, after=after, adopted=adopted)]
    if len(labels) > 1:
        before = after if adopted else before
        after = _mean_dice([trial.both if adopted else trial.labels for trial in trials], labels)
        evidence += [_label_trial(name, before[name], after[name]) for name in labels]
    return PostprocessingRules(
        keep_largest_foreground=adopted,
        keep_largest=tuple(
            numbers for numbers, trial in zip(targets.structures.values(), evidence[1:], strict=False) if trial.adopted
        ),
        evidence=tuple(evidence),
    )


def find_rules(
    cases: Iterable[tuple[NDArray[np.integer], NDArray[np.integer], Targets]], targets: Targets
) -> PostprocessingRules:
    """Tries all rules on each case and chooses those that help; see `choose_rules`.

    Args:
        cases: Reference, prediction and their targets per held-out case. A generator is best: one case at a time is
            held, and each is read once. Structures that overlap may have more numbers than those of the dataset.
        targets: Structures of the dataset.
    """
    return choose_rules([try_rules(*case) for case in cases], targets)


def _mean_dice(cases: Sequence[Dice], labels: Iterable[str]) -> Dice:
    return {name: mean_of_defined(case[name] for case in cases) for name in labels}


def _label_trial(name: str, before: float, after: float) -> Trial:
    return Trial(
        rule=f"keep the largest component of {name!r}",
        before={name: before},
        after={name: after},
        adopted=after > before,
    )
