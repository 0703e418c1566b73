"""Search for the morphology that improves the Dice."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.morphology_search import RADII_MM, find_morphology
from autoseg.evaluation.summary import SegmentedCase, score_case, summarize
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.morphology import open_mask
from autoseg.imaging.postprocessing import NO_RULES, Opening, PostprocessingRules, apply_rules, apply_to_mask
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
    """Ignored voxels, and structures that were not annotated."""
    guess = organ()
    guess[2, 3, 3] = 0
    ignored = organ()
    ignored[2, 3, 3] = 3
    targets = Targets.of_labels({"organ": 1, "lesion": 2}, ignore=3)
    assert find_morphology([pair(ignored, guess, targets)], NO_RULES, targets).fill_holes == ()
    case = pair(organ(), guess, unannotated=("organ",))
    assert find_morphology([case], NO_RULES, LABELS).fill_holes == ()
    assert find_morphology([], NO_RULES, LABELS) == NO_RULES


REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))


def tumour():
    """A tumour of rounded blocks, one in the other."""
    outer, inner = np.zeros((2, 9, 14, 14), dtype=bool)
    outer[1:8, 1:11, 1:11], inner[2:7, 3:9, 3:9] = True, True
    outer, inner = (open_mask(mask, 1.0, (1.0, 1.0, 1.0)) for mask in (outer, inner))
    return outer.astype(np.uint8) + inner


def test_regions_are_filled_and_opened_by_the_numbers_of_all_their_regions():
    """A hole of the core, which is tumour, becomes core; its spike becomes tumour, and one of the tumour nothing."""
    guess = tumour()
    guess[4, 5, 5] = 1
    guess[4, 6, 5] = 0  # beside it: a hole in both
    guess[4, 5, 9:11] = 2
    guess[4, 5, 11:14] = 1
    rules = find_morphology([pair(tumour(), guess, REGIONS)], NO_RULES, REGIONS)
    assert rules.fill_holes == ((1, 2), (2,))
    assert [(rule.structure, rule.radius_mm) for rule in rules.opening] == [((1, 2), 1.0), ((2,), 1.0)]
    cleaned = apply_rules(on_grid(guess), rules, REGIONS).array
    different = np.argwhere(cleaned != tumour()).tolist()
    assert different == [[4, 5, 9], [4, 5, 11]]  # where a ball that fits into the block reaches


def test_a_change_that_makes_another_region_worse_is_not_made():
    """What fills a hole of the core becomes tumour as well, which is wrong more often than the core gains by it."""
    reference = np.zeros((9, 14, 14), dtype=np.uint8)
    reference[1:8, 1:11, 1:11] = 1
    reference[2:7, 2:7, 2:7], reference[2:7, 8:11, 2:11] = 2, 2
    guess = reference.copy()
    guess[2:7, 8:11, 2:11] = 1  # half of the core is missing
    hole = ((4, 4, 4, 4, 4), (4, 4, 4, 5, 5), (3, 4, 5, 3, 4))
    guess[hole], reference[hole] = 0, (2, 2, 0, 0, 0)
    core = Targets(structures={"core": (2,)}, exclusive=False, region_class_order=(2,))
    alone = find_morphology([pair(2 * (reference == 2), 2 * (guess == 2), core)], NO_RULES, core)
    assert alone.fill_holes == ((2,),)
    both = find_morphology([pair(reference, guess, REGIONS)], NO_RULES, REGIONS)
    assert both.fill_holes == ()
    [trial] = [trial for trial in both.evidence if trial.rule == "fill the holes of 'core'"]
    assert trial.after["core"] > trial.before["core"]
    assert not trial.adopted


def test_masks_that_overlap_freely_are_changed_each_on_its_own():
    """A hole of one that lies in the other is filled as well, and neither is changed by the other's rules."""
    targets = Targets(structures={"lung": (1, 3), "ribs": (2, 3)}, exclusive=False)
    reference = np.where(tumour() > 0, 1, 0)
    reference[4, :, 5] += 2
    guess = reference.copy()
    guess[4, 5, 5] = 2  # a hole of the lung, in a rib
    rules = find_morphology([pair(reference, guess, targets)], NO_RULES, targets)
    assert rules.fill_holes == ((1, 3),)
    mask = apply_to_mask(on_grid(np.isin(guess, (1, 3))), (1, 3), rules).array > 0
    assert (mask == np.isin(reference, (1, 3))).all()


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
