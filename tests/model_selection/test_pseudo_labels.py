"""What is kept of the labels that a model makes: chosen on held-out cases, and never more than they promise."""

import math

import numpy as np
import pytest

from autoseg.errors import UsageError
from autoseg.evaluation.scores import UNDEFINED
from autoseg.evaluation.summary import CaseResult
from autoseg.model_selection.pseudo_labels import choose_threshold
from autoseg.model_selection.unlabelled_scans import ComparedScan


def held_out(pairs):
    """Results of held-out cases with these agreements and Dice."""
    return [
        CaseResult(
            name=f"c{number}", scores={"liver": UNDEFINED.model_copy(update={"dice": dice})}, agreement=agreement
        )
        for number, (agreement, dice) in enumerate(pairs)
    ]


def compared(agreement=0.9, fold_agreement=0.9):
    """A scan whose folds agree so well."""
    values = {"case": "u", "model": (), "files": (), "segmentation": "u.nii.gz", "descriptor": ()}
    return ComparedScan(**values, agreement=agreement, fold_agreement=fold_agreement)


def test_the_least_agreement_that_promises_the_dice_is_chosen():
    """One bad case pulls the mean below what is asked for, and is the only one that is cut off."""
    pairs = [(0.5, 0.1), (0.8, 0.78), (0.85, 0.8), (0.9, 0.82), (0.95, 0.84)]
    threshold = choose_threshold(held_out(pairs), 0.8)
    assert threshold.agreement == 0.8
    assert threshold.dice_above == pytest.approx(0.81)
    assert threshold.spearman == pytest.approx(1.0)
    assert choose_threshold(held_out(pairs)).least_dice == 0.8  # the median


def test_a_few_good_cases_are_no_promise():
    """At least three cases, and a quarter of them, lie above a threshold."""
    pairs = [(0.5 + number / 100, 0.5) for number in range(20)] + [(0.9, 0.95), (0.95, 0.95)]
    with pytest.raises(UsageError, match=r"no agreement promises a Dice of 0\.9: the held-out cases that agree"):
        choose_threshold(held_out(pairs), 0.9)


def test_the_promise_holds_on_cases_that_chose_nothing():
    """On new cases of the same kind, those that are kept are about as good as those that chose the threshold."""
    random = np.random.default_rng(0)
    dice = random.beta(8, 2, size=2000)
    agreement = (dice + random.normal(0, 0.05, size=2000)).clip(0, 1)
    threshold = choose_threshold(held_out(zip(agreement[:200], dice[:200], strict=True)), 0.85)
    kept = dice[200:][agreement[200:] >= threshold.agreement]
    assert kept.mean() == pytest.approx(0.85, abs=0.02)
    assert kept.mean() > dice.mean() + 0.02


def test_without_agreement_the_folds_alone_decide():
    """A plan that mirrors along no axis has one vote per fold, and too few cases choose nothing."""
    for pairs in ([(math.nan, 0.8)] * 6, [(0.9, 0.8)] * 3):
        threshold = choose_threshold(held_out(pairs))
        assert math.isnan(threshold.agreement)
        assert "kept is where folds agree by 0.800; held-out cases cannot say" in threshold.describe()
        assert threshold.judge(compared(agreement=0.1)) == ""
        assert threshold.judge(compared(fold_agreement=0.7)) == "folds agree by 0.700, and 0.800 is asked for"


def test_each_refusal_has_its_reason():
    """Nothing found, mirror images apart, folds apart."""
    threshold = choose_threshold(held_out([(0.8, 0.75), (0.85, 0.8), (0.9, 0.85), (0.95, 0.9)]), 0.8)
    assert threshold.judge(compared()) == ""
    assert threshold.judge(compared(math.nan, math.nan)) == "nothing was found"
    assert threshold.judge(compared(agreement=0.7)).startswith("mirror images agree by 0.700, and 0.800 is asked for")
    assert threshold.judge(compared(agreement=math.nan)).startswith("mirror images agree by nan")
    assert threshold.judge(compared(fold_agreement=0.79)).startswith("folds agree by 0.790")


@pytest.mark.parametrize("least_dice", [0, 1, -0.5, math.nan])
def test_what_is_no_dice_is_refused(least_dice):
    """In one line."""
    with pytest.raises(UsageError, match="is no Dice; take a number between 0 and 1"):
        choose_threshold(held_out([(0.9, 0.8)] * 5), least_dice)


def test_held_out_cases_without_a_dice_are_refused():
    """There is nothing to choose by."""
    with pytest.raises(UsageError, match="no held-out case has a Dice"):
        choose_threshold(held_out([(0.9, math.nan)]))
