"""Which scans are suggested: uncertain ones, and no two that are alike."""

import math
from pathlib import Path

import numpy as np
import pytest

from autoseg.evaluation.scores import UNDEFINED
from autoseg.evaluation.summary import CaseResult
from autoseg.model_selection.suggestions import (
    CorrectionEstimate,
    choose_farthest,
    measure_disagreement,
    standardize,
    suggest_scans,
)
from autoseg.model_selection.unlabelled_scans import ComparedScan

LENGTH = 129  # of a descriptor of one channel
CORRECTION = CorrectionEstimate(factor=2.0)


def compared(name, agreement, place):
    """A scan with this agreement, whose descriptor is the same number everywhere."""
    return ComparedScan(
        case=name,
        model=(),
        files=(),
        segmentation=f"{name}.nii.gz",
        agreement=agreement,
        fold_agreement=agreement,
        descriptor=(place,) * LENGTH,
    )


def test_twins_are_not_suggested_one_after_the_other():
    """Of the three most uncertain scans two are alike; the second suggestion is the third scan."""
    scans = [compared("a", 0.1, 5.0), compared("b", 0.11, 5.01), compared("c", 0.2, -5.0)]
    two = suggest_scans(scans, [(0.0,) * LENGTH], 2, CORRECTION, Path("folder"))
    assert {one.case[0] for one in two} == {"c", "b"}
    assert [one.rank for one in two] == [1, 2]
    assert two[0].segmentation == str(Path("folder") / f"{two[0].case}.nii.gz")


def test_sure_scans_are_not_suggested_however_odd_they_are():
    """The pool is three times as large as what is asked for."""
    sure = [compared(f"sure{number}", 0.99, 100.0 * number) for number in range(1, 5)]
    unsure = [compared(f"unsure{number}", 0.3, float(number)) for number in range(3)]
    assert all(
        one.case.startswith("unsure")
        for one in suggest_scans([*sure, *unsure], [(0.0,) * LENGTH], 1, CORRECTION, Path())
    )


def test_a_scan_in_which_nothing_was_found_is_the_least_sure():
    """Its agreement is undefined."""
    assert measure_disagreement(compared("a", math.nan, 0.0)) == 1.0
    assert measure_disagreement(compared("a", 0.75, 0.0)) == 0.25


def test_more_than_there_are_and_none_at_all():
    """All scans, each once; without labelled cases the first is the most uncertain one."""
    scans = [compared(f"s{number}", 0.5 + number / 10, float(number)) for number in range(3)]
    suggestions = suggest_scans(scans, [], 10, CORRECTION, Path())
    assert sorted(one.case for one in suggestions) == ["s0", "s1", "s2"]
    assert suggestions[0].case == "s0"
    assert math.isnan(suggestions[0].distance)
    assert suggest_scans([], [], 10, CORRECTION, Path()) == []


def test_the_farthest_is_chosen_again_and_again():
    """Compared with brute force: each choice has the largest distance from the nearest that is known or chosen."""
    random = np.random.default_rng(1)
    candidates, known = random.normal(size=(12, 3)), random.normal(size=(2, 3))
    chosen = list(known)
    for index, distance in choose_farthest(candidates, known, 5):
        nearest = [min(np.linalg.norm(candidate - vector) for vector in chosen) for candidate in candidates]
        assert distance == pytest.approx(max(nearest))
        assert nearest[index] == pytest.approx(distance)
        chosen.append(candidates[index])


def test_parts_of_a_descriptor_count_alike():
    """Intensities, form and size have a variance of a third each; what is the same everywhere has none."""
    values = standardize(np.random.default_rng(2).normal(size=(500, LENGTH)).tolist())
    variances = (values**2).sum(axis=0) / len(values)
    for part in (slice(0, 64), slice(64, 128), slice(128, 129)):
        assert variances[part].sum() == pytest.approx(1 / 3)
    assert not standardize([[3.0] * LENGTH] * 4).any()


def test_the_share_to_correct_is_that_of_held_out_cases_of_the_same_agreement():
    """Cases that are wrong three times as much as mirror images differ; those without agreement do not count."""
    random = np.random.default_rng(3)
    results = []
    for number, agreement in enumerate(random.uniform(0.7, 0.95, size=40)):
        wrong = round(3000 * (1 - agreement))
        counts = {
            "true_positive": 1000 - wrong // 2,
            "false_positive": wrong // 2,
            "false_negative": wrong - wrong // 2,
        }
        scores = {"liver": UNDEFINED.model_copy(update=counts)}
        results.append(CaseResult(name=f"c{number}", scores=scores, agreement=agreement))
    estimate = CorrectionEstimate.fit([*results, results[0].model_copy(update={"agreement": math.nan})])
    assert estimate.of(compared("a", 0.8, 0.0)) == pytest.approx(0.6, abs=0.01)
    assert math.isnan(estimate.of(compared("a", math.nan, 0.0)))
    assert math.isnan(CorrectionEstimate.fit([]).of(compared("a", 0.8, 0.0)))
