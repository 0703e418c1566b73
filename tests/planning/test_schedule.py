"""The number of epochs of a plan, compared with what ten public datasets needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_cases import fingerprint_of, golden_fingerprint, golden_info, info_of, plan_of

from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import LADDER, RULES
from autoseg.planning.schedule import FEWEST_EPOCHS, MOST_EPOCHS, choose_epochs

# Shape at the spacing of training, and the epochs that the quickest and the slowest of five folds needed: `schedule`.
DECATHLON = {
    "BrainTumour": ((138, 169, 138), 41, 338),
    "Heart": ((115, 320, 232), 44, 233),
    "Liver": ((482, 512, 512), 459, 855),
    "Hippocampus": ((36, 50, 35), 20, 26),
    "Prostate": ((20, 320, 319), 38, 403),
    "Lung": ((252, 512, 512), 495, 947),
    "Pancreas": ((96, 512, 512), 396, 855),
    "HepaticVessel": ((150, 512, 512), 730, 936),
    "Spleen": ((187, 512, 512), 442, 823),
    "Colon": ((150, 512, 512), 339, 927),
}


@pytest.mark.parametrize("name", DECATHLON)
def test_every_fold_of_ten_datasets_gets_what_it_needed(name):
    """Hardly any dataset gets the 1000 epochs of the reference method if it does not need them."""
    shape, _, slowest = DECATHLON[name]
    epochs = choose_epochs(shape[0] * shape[1] * shape[2])
    assert epochs >= slowest
    assert epochs <= max(FEWEST_EPOCHS, 1.8 * slowest)


@given(st.floats(1, 1e10), st.floats(1, 1e10))
def test_larger_images_never_get_fewer_epochs(one, other):
    """The number is within 100 and 1000, in tens."""
    fewer, more = choose_epochs(min(one, other)), choose_epochs(max(one, other))
    assert FEWEST_EPOCHS <= fewer <= more <= MOST_EPOCHS
    assert fewer % 10 == more % 10 == 0


def test_plan_says_how_long_and_why():
    """The number of the plan is in its reasons, with the size that it follows from, for any preset."""
    fingerprint = fingerprint_of([(138, 169, 138)] * 40, [(1, 1, 1)] * 40)
    for preset in (None, *LADDER):
        plan = plan_of(fingerprint, info_of("T1"), preset=preset)
        assert plan.training.epochs == 410
        [reason] = [sentence for sentence in plan.why if sentence.startswith("Training lasts")]
        assert "Training lasts 410 epochs of 250 steps, because a typical image has 3.2 million voxels: " in reason


def test_small_preset_keeps_its_short_schedule():
    """The small preset is made for minutes on a CPU, whatever the images."""
    for name in ("Hippo", "LiverCT"):
        plan = plan_of(golden_fingerprint(name), golden_info(name), preset="small")
        assert (plan.training.epochs, plan.training.steps_per_epoch) == (100, 50)
        assert "Training lasts 100 epochs of 50 steps, few, because the preset is made for a CPU." in plan.why


@pytest.mark.parametrize("preset", RULES["nnunet"].presets)
def test_reference_method_takes_its_thousand_epochs(preset):
    """The reference method's number holds for small images too."""
    options = PlanningOptions(dataset="D", memory_budget_bytes=40 * 10**9, preset=preset, rules="nnunet")
    plan = make_plan(golden_fingerprint("Hippo"), golden_info("Hippo"), options)
    assert (plan.training.epochs, plan.training.steps_per_epoch) == (1000, 250)
    assert "Training lasts 1000 epochs of 250 steps, as in the reference method." in plan.why


def test_pictures_keep_the_number_of_their_preset():
    """2D images keep the number of the preset, since only volumes were measured."""
    plan = plan_of(golden_fingerprint("Nat2D"), golden_info("Nat2D"))
    assert plan.training.epochs == 250
    assert any("how many pictures need was not measured" in sentence for sentence in plan.why)
