"""Finding the postprocessing rules that help, on held-out cases whose truth is known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.metrics import case_overlaps
from autoseg.evaluation.summary import mean_of_defined
from autoseg.postprocessing import PostprocessingRules, Trial, apply_rules

Dice = dict[str, float]
"""Label name to Dice, NaN where it is undefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTrial:
    """The Dice of one case with every combination of rules that may be chosen.

    Labels do not touch each other's voxels, so the rule of a label changes the Dice of that label only, and one map
    with the rules of all labels shows what each of them does alone.

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


def try_rules(reference: NDArray[np.integer], prediction: NDArray[np.integer], labels: Mapping[str, int]) -> CaseTrial:
    """Tries all rules on one case.

    Args:
        reference: Label map of shape (z, y, x).
        prediction: Label map of the same shape, before any postprocessing.
        labels: Name to number, the background left out.
    """
    of_foreground = PostprocessingRules(keep_largest_foreground=True)
    of_labels = PostprocessingRules(keep_largest=tuple(labels.values()))

    def score(label_map: NDArray[np.integer]) -> Dice:
        overlaps = case_overlaps(reference, label_map, labels.values())
        return {name: overlaps[number].dice for name, number in labels.items()}

    largest = apply_rules(prediction, of_foreground)
    return CaseTrial(
        untouched=score(prediction),
        foreground=score(largest),
        labels=score(apply_rules(prediction, of_labels)),
        both=score(apply_rules(largest, of_labels)),
    )


def choose_rules(trials: Sequence[CaseTrial], labels: Mapping[str, int]) -> PostprocessingRules:
    """Chooses the rules that help.

    The largest component of the foreground is kept if that makes the foreground mean Dice better and the mean Dice of
    no label worse. Then, if there are several labels, the largest component of each label is kept if that makes the
    mean Dice of this label better. "Better" is strict: a rule that changes nothing is not adopted. Means leave out
    undefined values, as in `summary`. Source: the reference method (nnU-Net v2.8.1, remove_connected_components).

    Args:
        trials: One per held-out case.
        labels: Name to number, the background left out.
    """
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
            number for number, trial in zip(labels.values(), evidence[1:], strict=False) if trial.adopted
        ),
        evidence=tuple(evidence),
    )


def find_rules(
    cases: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]], labels: Mapping[str, int]
) -> PostprocessingRules:
    """Tries all rules on each case and chooses those that help; see `choose_rules`.

    Args:
        cases: (reference, prediction) per held-out case. A generator is best: one case at a time is held, and each is
            read once.
        labels: Name to number, the background left out.
    """
    return choose_rules([try_rules(reference, prediction, labels) for reference, prediction in cases], labels)


def _mean_dice(cases: Sequence[Dice], labels: Iterable[str]) -> Dice:
    return {name: mean_of_defined(case[name] for case in cases) for name in labels}


def _label_trial(name: str, before: float, after: float) -> Trial:
    return Trial(
        rule=f"keep the largest component of {name!r}",
        before={name: before},
        after={name: after},
        adopted=after > before,
    )
