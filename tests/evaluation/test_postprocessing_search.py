"""Search for the postprocessing rules that improve the Dice."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.postprocessing_search import find_rules
from autoseg.evaluation.summary import SegmentedCase, score_case, summarize
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.postprocessing import PostprocessingRules, SmallestSize, apply_rules
from autoseg.imaging.targets import Targets

LABELS = Targets.of_labels({"organ": 1, "lesion": 2})
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))


def row(text):
    """Makes a label map of one row: "110.2" is two voxels of label 1, two of background, one of label 2."""
    return np.array([[[int(letter) if letter.isdigit() else 0 for letter in text]]], dtype=np.uint8)


def on_grid(array, spacing_mm=(1.0, 1.0, 1.0)):
    """Makes a volume of an array."""
    return Volume(array=array, geometry=Geometry(shape=array.shape, spacing_mm=spacing_mm))


def apply(array, rules):
    """Applies rules to an array."""
    return apply_rules(on_grid(array), rules).array


def pair(reference, prediction, targets=LABELS, **details):
    """A case and its segmentation."""
    return SegmentedCase(name="case", reference=reference, prediction=prediction, targets=targets, **details)


def find(cases, targets=LABELS, **details):
    """Finds the rules for cases of one dataset."""
    held_out = (pair(on_grid(reference), on_grid(prediction), targets, **details) for reference, prediction in cases)
    return find_rules(held_out, targets)


def mean_dice(cases, rules):
    """Computes the mean Dice of each label and of the foreground by the summary."""
    results = []
    for reference, prediction in cases:
        results.append(score_case(pair(on_grid(reference), apply_rules(on_grid(prediction), rules))))
    return summarize(results, LABELS.names)


def test_false_islands_make_the_foreground_rule():
    """If islands of every label far from the organ are false, they are removed together."""
    rules = find([(row("1122......"), row("1122..2..1"))])
    assert rules.keep_largest_foreground
    assert rules.keep_largest == ()
    assert rules.evidence[0].adopted
    assert rules.evidence[0].before["organ"] == pytest.approx(0.8)
    assert rules.evidence[0].after == {"organ": 1.0, "lesion": 1.0}


def test_true_islands_keep_the_foreground_rule_away():
    """If one label gets worse, the foreground rule is rejected, but the other label may have its own rule."""
    rules = find([(row("1111...2...2..."), row("1111.1.2...2..1"))])
    assert not rules.keep_largest_foreground
    assert rules.keep_largest == ((1,),)
    assert [trial.adopted for trial in rules.evidence] == [False, True, False]  # and every other component is right
    assert rules.evidence[0].after["lesion"] == 0


def test_perfect_predictions_make_no_rules():
    """A rule that changes nothing is not adopted."""
    perfect = row("1122..")
    assert not any(trial.adopted for trial in find([(perfect, perfect)]).evidence)


def test_one_label_has_no_rule_of_its_own():
    """With one label both rules are the same, and only the first is tried."""
    rules = find([(row("11..."), row("11..1"))], Targets.of_labels({"organ": 1}))
    assert rules.keep_largest_foreground
    assert len(rules.evidence) == 1


def test_the_rule_of_a_label_follows_the_rule_of_the_foreground():
    """Errors that the foreground rule corrects are no reason for another rule."""
    rules = find([(row("1122......."), row("1122.....22"))])
    assert rules.keep_largest_foreground
    assert rules.keep_largest == ()
    assert rules.evidence[2].before == {"lesion": rules.evidence[0].after["lesion"]}


def test_no_cases_make_no_rules():
    """Without cases no rule is adopted."""
    rules = find([])
    assert not rules.keep_largest_foreground
    assert rules.keep_largest == ()
    assert math.isnan(rules.evidence[0].before["organ"])


def test_cases_are_taken_one_by_one():
    """Cases may come from a generator: each is read once."""
    taken = []

    def cases():
        for index in range(3):
            taken.append(index)
            yield row("11.."), row("11.1")

    assert find(cases()).keep_largest_foreground
    assert taken == [0, 1, 2]


MAPS = st.lists(st.integers(0, 2), min_size=9, max_size=9).map(lambda values: np.array([[values]], dtype=np.uint8))


@given(st.lists(st.tuples(MAPS, MAPS), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_the_choice_follows_the_stated_rule_step_by_step(cases):
    """Trying each rule in turn, with scores from the summary, leads to the same rules and the same evidence."""
    before = mean_dice(cases, PostprocessingRules())
    after = mean_dice(cases, PostprocessingRules(keep_largest_foreground=True))
    worse = [name for name in LABELS.names if after.mean[name].dice < before.mean[name].dice]
    adopted = after.foreground_mean.dice > before.foreground_mean.dice and not worse
    kept = []
    for name, numbers in LABELS.structures.items():
        now = PostprocessingRules(keep_largest_foreground=adopted, keep_largest=tuple(kept))
        then = PostprocessingRules(keep_largest_foreground=adopted, keep_largest=(*kept, numbers))
        if mean_dice(cases, then).mean[name].dice > mean_dice(cases, now).mean[name].dice:
            kept.append(numbers)
    rules = find(cases)
    assert rules.keep_largest_foreground == adopted
    assert rules.keep_largest == tuple(kept)
    final = mean_dice(cases, rules)
    last = {name: trial for trial in rules.evidence[1:] for name in trial.before}
    for name, trial in last.items():
        expected = trial.after[name] if trial.adopted else trial.before[name]
        assert final.mean[name].dice == pytest.approx(expected, nan_ok=True)


def test_the_rule_of_a_region_is_tried_alone():
    """The rule of a region that contains the core is not affected by the rule of the core."""
    cases = [(row("112211..11"), row("112211.211"))]
    rules = find(cases, REGIONS)
    assert [trial.adopted for trial in rules.evidence] == [False, False, True]
    assert rules.keep_largest == ((2,),)
    assert rules.describe() == "postprocessing: keep the largest component of label 2"


def test_the_rule_of_a_region_keeps_its_largest_component_of_all_numbers():
    """Voxels outside the largest component become background, whichever number they have."""
    rules = PostprocessingRules(keep_largest=((1, 2),))
    np.testing.assert_array_equal(apply(row("1122..21.3"), rules), row("1122.....3"))
    assert rules.describe() == "postprocessing: keep the largest component of label 1 with 2"
    assert PostprocessingRules.parse('{"keep_largest": [2, [1, 2]]}', source="").keep_largest == ((2,), (1, 2))


SIZES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


@given(st.lists(st.tuples(MAPS, MAPS), min_size=1, max_size=4))
@settings(max_examples=10, deadline=None)
def test_sizes_are_chosen_as_if_each_were_applied(cases):
    """Relabelling every case for every size leads to the same sizes as counting components once."""
    rules = find(cases)
    usual = rules.model_copy(update={"smallest": ()})
    cleaned = [(ground_truth, apply(guess, usual)) for ground_truth, guess in cases]
    found = {rule.structure: rule.mm3 for rule in rules.smallest}
    for name, numbers in LABELS.structures.items():
        if numbers in rules.keep_largest:
            assert numbers not in found
            continue
        before = mean_dice(cleaned, PostprocessingRules()).mean[name].dice
        sizes = [PostprocessingRules(smallest=(SmallestSize(structure=numbers, mm3=size),)) for size in SIZES]
        scores = [mean_dice(cleaned, one).mean[name].dice for one in sizes]
        best = np.nanmax([-1.0, *scores])
        if numbers in found:
            assert best > before
            assert scores[SIZES.index(found[numbers])] == best
            assert all(score < best or math.isnan(score) for score in scores[: SIZES.index(found[numbers])])
        else:
            assert not best > before


def test_islands_that_hit_nothing_give_the_size():
    """The first of 1, 2, 5, 10, ... above the largest false island is taken if no true one is lost for it."""
    case = row("11111.22222.......11111"), row("11111.22222.11.1..11111")
    rules = find([case])
    assert rules.smallest == (SmallestSize(structure=(1,), mm3=5.0),)
    assert rules.evidence[-1].rule == "remove components of 'organ' below 5 mm3"
    assert rules.evidence[-1].adopted
    assert rules.describe() == "postprocessing: remove components of label 1 below 5 mm3"
    np.testing.assert_array_equal(apply(case[1], rules), case[0])


def test_true_islands_are_worth_more_than_false_ones_of_their_size():
    """A size that costs as much as it gains is tried and listed, and not adopted."""
    rules = find([(row("1111.1.1.1.1"), row("1111.1.1.1.1....1"[:12])), (row("1.1.1......."), row("1.1.1.....1."))])
    assert rules.smallest == ()
    assert rules.evidence[-1].rule == "remove components of 'organ' below 2 mm3"
    assert not rules.evidence[-1].adopted


def test_sizes_are_volumes():
    """Voxels of 0.3 x 0.5 x 2 mm: islands of one voxel are 0.3 mm3, and 0.5 mm3 is the next step."""
    reference, prediction = row("11111...11111"), row("11111.1.11111")
    maps = (on_grid(array, spacing_mm=(0.3, 0.5, 2.0)) for array in (reference, prediction))
    rules = find_rules([pair(*maps)], LABELS)
    assert [rule.mm3 for rule in rules.smallest] == [0.5]


def test_voxels_that_nobody_labelled_prove_nothing():
    """Islands in ignored voxels or of structures that were not annotated are no reason for a rule."""
    targets = Targets.of_labels({"organ": 1, "lesion": 2}, ignore=3)
    reference, prediction = row("11.11.333.22.22..."), row("11.11.111.22.22.2.")
    assert [trial.before.keys() for trial in find([(reference, prediction)], targets).evidence[3:]] == [{"lesion"}]
    rules = find([(reference, prediction)], targets, unannotated=("lesion",))
    assert len(rules.evidence) == 3
    assert not any(trial.adopted for trial in rules.evidence)


def test_masks_have_sizes_each():
    """For structures that overlap freely, the islands of one do not affect the other."""
    targets = Targets(structures={"ribs": (1, 3), "lung": (2, 3)}, exclusive=False)
    rules = find([(row("1133222.1133222.."), row("1133222.1133222.1"))], targets)
    assert rules.smallest == (SmallestSize(structure=(1, 3), mm3=2.0),)
    assert not rules.keep_largest_foreground
