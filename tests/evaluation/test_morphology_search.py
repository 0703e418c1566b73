"""Search for the morphology that improves the Dice."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.morphology_search import RADII_MM, find_morphology
from autoseg.evaluation.summary import SegmentedCase, score_case, summarize
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.morphology import open_mask
from autoseg.imaging.postprocessing import NO_RULES, Opening, PostprocessingRules, apply_rules
from autoseg.imaging.targets import Targets

LABELS = Targets.of_labels({"organ": 1, "lesion": 2})
SHAPE = (6, 12, 12)


def on_grid(array, spacing_mm=(1.0, 1.0, 1.0)):
    """Makes a volume of an array."""
    return Volume(array=array.astype(np.uint8), geometry=Geometry(shape=array.shape, spacing_mm=spacing_mm))


def pair(reference, prediction, targets=LABELS, **details):
    """A case and its segmentation."""
    return SegmentedCase(
        name="case", reference=on_grid(reference), prediction=on_grid(prediction), targets=targets, **details
    )


def organ():
    """A block without corners, which an opening leaves as it is, and a lesion beside it."""
    block = np.zeros(SHAPE, dtype=bool)
    block[1:5, 1:9, 1:9] = True
    array = open_mask(block, 1.0, (1.0, 1.0, 1.0)).astype(np.uint8)
    array[2:4, 10:12, 10:12] = 2
    return array


def test_a_hole_is_filled_and_a_spike_is_cut_off():
    """Each where it is wrong; the lesion stays."""
    guess = organ()
    guess[2, 3, 3] = 0
    guess[2, 4, 9:12] = 1
    rules = find_morphology([pair(organ(), guess)], NO_RULES, LABELS)
    assert rules.fill_holes == ((1,),)
    assert [(rule.structure, rule.radius_mm) for rule in rules.opening] == [((1,), 1.0)]
    assert [trial.adopted for trial in rules.evidence[:2]] == [True, True]
    cleaned = apply_rules(on_grid(guess), rules).array
    assert cleaned[2, 3, 3] == 1
    assert (cleaned[2, 4, 10:] == 0).all()
    assert (cleaned == 2).sum() == 8


def test_right_shapes_make_no_rules():
    """What would cost is tried, listed and not adopted; what changes nothing is not listed."""
    thin = organ()
    thin[3, 5, 9:12] = 1
    rules = find_morphology([pair(thin, thin)], NO_RULES, LABELS)
    assert rules.evidence
    assert rules.fill_holes == rules.opening == ()
    assert not any(trial.adopted for trial in rules.evidence)
    assert not any("fill" in trial.rule for trial in rules.evidence)


def test_rules_on_components_come_first():
    """What they have mended is no reason for an opening, and they stay."""
    guess = organ()
    guess[5, 11, 11] = 1
    first = PostprocessingRules(keep_largest_foreground=True)
    rules = find_morphology([pair(organ(), guess)], first, LABELS)
    assert rules.keep_largest_foreground
    assert rules.opening == ()


def test_what_nobody_labelled_proves_nothing():
    """Ignored voxels, structures that were not annotated, and regions, which are left as they are."""
    guess = organ()
    guess[2, 3, 3] = 0
    ignored = organ()
    ignored[2, 3, 3] = 3
    targets = Targets.of_labels({"organ": 1, "lesion": 2}, ignore=3)
    assert find_morphology([pair(ignored, guess, targets)], NO_RULES, targets).fill_holes == ()
    case = pair(organ(), guess, unannotated=("organ",))
    assert find_morphology([case], NO_RULES, LABELS).fill_holes == ()
    regions = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))
    assert find_morphology([pair(organ(), guess, regions)], NO_RULES, regions) == NO_RULES
    assert find_morphology([], NO_RULES, LABELS) == NO_RULES


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_choice_follows_the_stated_rule(seed):
    """Applying each rule and scoring by the summary leads to the same rules."""
    random = np.random.default_rng(seed)
    cases = []
    for _ in range(2):
        reference = (random.random((4, 7, 7)) < 0.85) * 1
        prediction = np.where(random.random((4, 7, 7)) < 0.1, random.integers(0, 3, (4, 7, 7)), reference)
        cases.append((reference, prediction))

    def mean_dice(name, rules):
        changed = [(reference, apply_rules(on_grid(guess), rules).array) for reference, guess in cases]
        scored = summarize([score_case(pair(*maps)) for maps in changed], LABELS.names)
        return scored.mean[name].dice

    rules = find_morphology([pair(*maps) for maps in cases], NO_RULES, LABELS)
    for name, numbers in LABELS.structures.items():
        fill = PostprocessingRules(fill_holes=(numbers,))
        assert (numbers in rules.fill_holes) == (mean_dice(name, fill) > mean_dice(name, NO_RULES))
        base = fill if numbers in rules.fill_holes else NO_RULES
        scores = {
            radius: mean_dice(
                name, base.model_copy(update={"opening": (Opening(structure=numbers, radius_mm=radius),)})
            )
            for radius in RADII_MM
        }
        found = [rule.radius_mm for rule in rules.opening if rule.structure == numbers]
        if found:
            assert scores[found[0]] == np.nanmax(list(scores.values())) > mean_dice(name, base)
        else:
            assert not np.nanmax([-1.0, *scores.values()]) > mean_dice(name, base)
