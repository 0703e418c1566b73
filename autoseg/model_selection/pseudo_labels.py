"""Which segmentations of scans without labels are good enough to learn from; pseudo_labels.json.

A segmentation is kept if two things hold:

1. The mirror images of the scan agree within the folds at least as well as in those held-out cases whose mean Dice is
   that which is asked for. The held-out cases choose the threshold: each was segmented by the fold that held it out,
   and its Dice is known.
2. The folds agree with their mean by at least this Dice. Where they differ more, they cannot all be that good.

Example: the held-out cases, by agreement; a Dice of at least 0.80 is asked for.

    agreement   0.70   0.80   0.85   0.90   0.95
    Dice        0.40   0.78   0.81   0.84   0.86
    mean Dice of this case and all to its right
                0.738  0.823  0.837  0.85   0.86      the threshold is 0.80
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.errors import UsageError
from autoseg.evaluation.summary import CaseResult
from autoseg.model_selection.unlabelled_scans import ComparedScan
from autoseg.runtime.artifact import Artifact, Score

FEWEST_CASES = 4
"""Held-out cases from which on they choose a threshold. Decision: fewer say nothing about how Dice and agreement go
together."""

SHARE_ABOVE = 0.25
"""Share of the held-out cases that lie above a threshold, at least. Decision: the mean Dice of one or two cases is
chance."""


class AgreementThreshold(BaseModel):
    """What is asked of a segmentation without a label, chosen on held-out cases.

    Attributes:
        least_dice: Dice that is asked for.
        agreement: The least agreement of mirror images; undefined if it could not be chosen, and then nothing is asked.
        cases: Number of held-out cases that were looked at.
        dice_above: Their mean Dice from the threshold on.
        dice_of_all: Their mean Dice.
        spearman: Rank correlation of agreement and Dice on them; undefined if it could not be measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_dice: Score
    agreement: Score
    cases: int
    dice_above: Score
    dice_of_all: Score
    spearman: Score

    def judge(self, scan: ComparedScan) -> str:
        """Returns why a segmentation is not kept; empty if it is."""
        if scan.is_empty:
            return "nothing was found"
        if not math.isnan(self.agreement) and not scan.agreement >= self.agreement:
            return f"mirror images agree by {scan.agreement:.3f}, and {self.agreement:.3f} is asked for"
        if scan.fold_agreement < self.least_dice:
            return f"folds agree by {scan.fold_agreement:.3f}, and {self.least_dice:.3f} is asked for"
        return ""

    def describe(self) -> str:
        """Returns a line for people."""
        if math.isnan(self.agreement):
            return (
                f"kept is where folds agree by {self.least_dice:.3f}; held-out cases cannot say how well mirror images "
                "must agree, since there are too few, or the plan mirrors along no axis"
            )
        return (
            f"kept is where mirror images agree by {self.agreement:.3f} and folds by {self.least_dice:.3f}: from there "
            f"on {self.cases} held-out cases have a mean Dice of {self.dice_above:.3f}, all of them "
            f"{self.dice_of_all:.3f} (Spearman of agreement and Dice {self.spearman:.2f})"
        )


class JudgedScan(BaseModel):
    """A scan that was considered.

    Attributes:
        case: Its name.
        reason: Why it is not among the cases; empty if it is.
        agreement, fold_agreement: See `inference.fold_comparison`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    reason: str
    agreement: Score
    fold_agreement: Score


class PseudoLabels(Artifact):
    """Where the labels of a dataset come from that a model made; pseudo_labels.json in the folder of the dataset.

    Attributes:
        dataset: Name of the dataset that the model was trained on.
        configuration: Its configuration.
        plan_name: Its plan, if that is not the usual one.
        model: Digest of each fold that made the labels.
        threshold: What was asked of them.
        scans: All scans that were considered.
    """

    dataset: str
    configuration: str
    plan_name: str | None = None
    model: tuple[str, ...]
    threshold: AgreementThreshold
    scans: tuple[JudgedScan, ...]

    @property
    def kept(self) -> list[str]:
        """Names of the cases that were labelled by the model."""
        return [scan.case for scan in self.scans if not scan.reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Agreement and Dice of held-out cases for which both are known."""

    agreement: NDArray[np.float64]
    dice: NDArray[np.float64]

    def dice_from(self, agreement: float) -> float:
        """Returns the mean Dice of the cases that agree at least so well."""
        return float(self.dice[self.agreement >= agreement].mean())


def choose_threshold(results: Sequence[CaseResult], least_dice: float | None = None) -> AgreementThreshold:
    """Chooses what is asked of a segmentation without a label, from the scores of held-out cases.

    Args:
        results: Scores of the held-out cases of all folds, with the agreement of each.
        least_dice: Dice that is asked for, 0 to 1; by default the median of the held-out cases. Decision: bad cases
            pull the mean below the median, so those are left out that do so, and the others are kept.

    Raises:
        UsageError: The Dice is none, no held-out case has one, or no agreement promises it.

    Example:
        >>> from autoseg.evaluation.scores import UNDEFINED
        >>> def case(dice, agreement):
        ...     scores = {"liver": UNDEFINED.model_copy(update={"dice": dice})}
        ...     return CaseResult(name="a", scores=scores, agreement=agreement)
        >>> pairs = [(0.4, 0.7), (0.78, 0.8), (0.81, 0.85), (0.84, 0.9), (0.86, 0.95)]
        >>> choose_threshold([case(*pair) for pair in pairs], least_dice=0.8).agreement
        0.8
    """
    if least_dice is not None and not 0 < least_dice < 1:
        raise UsageError(f"--least-dice {least_dice:g} is no Dice", "take a number between 0 and 1, such as 0.8")
    dice = [case.mean_dice for case in results if not math.isnan(case.mean_dice)]
    if not dice:
        raise UsageError("no held-out case has a Dice", "train and validate folds first, with 'autoseg train -f cv'")
    asked = float(np.median(dice)) if least_dice is None else least_dice
    pairs = [(case.agreement, case.mean_dice) for case in results if not math.isnan(case.agreement + case.mean_dice)]
    chosen = math.nan
    known = _Known(agreement=np.array([first for first, _ in pairs]), dice=np.array([second for _, second in pairs]))
    if len(pairs) >= FEWEST_CASES:
        chosen = _find_least_agreement(known, asked, is_demanded=least_dice is not None)
    return AgreementThreshold(
        least_dice=asked,
        agreement=chosen,
        cases=len(pairs),
        dice_above=known.dice_from(chosen) if not math.isnan(chosen) else math.nan,
        dice_of_all=float(np.mean(dice)),
        spearman=_rank_correlation(known) if len(pairs) >= FEWEST_CASES else math.nan,
    )


def _find_least_agreement(known: _Known, asked: float, *, is_demanded: bool) -> float:
    """Returns the least agreement from which on held-out cases have the Dice; else that from which on they are best."""
    ordered = np.sort(known.agreement)
    most = len(ordered) - max(FEWEST_CASES - 1, math.ceil(SHARE_ABOVE * len(ordered)))
    candidates = np.unique(ordered[: most + 1]).tolist()
    means = [known.dice_from(agreement) for agreement in candidates]
    for agreement, mean in zip(candidates, means, strict=True):
        if mean >= asked:
            return float(agreement)
    best = int(np.argmax(means))
    if is_demanded:
        what = f"no agreement promises a Dice of {asked:g}: the held-out cases that agree best have {means[best]:.3f}"
        raise UsageError(what, "ask for less with --least-dice, or train longer")
    return float(candidates[best])


def _rank_correlation(known: _Known) -> float:
    from scipy.stats import spearmanr  # noqa: PLC0415 - importing scipy.stats takes half a second

    if len(set(known.agreement.tolist())) < 2 or len(set(known.dice.tolist())) < 2:
        return math.nan
    return float(spearmanr(known.agreement, known.dice).statistic)
