"""Plans for machines without a GPU, fast and slow; their speed is a value here and never measured."""

from dataclasses import replace
from itertools import pairwise

import pytest
from planning_cases import GOLDEN_NAMES, golden_fingerprint, golden_info

from autoseg.planning.cpu_preset import FOLD_SECONDS, TWO_AVX2_CORES, list_cpu_presets
from autoseg.planning.machine_speed import MachineSpeed, count_patch_work, fold_seconds
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.plugin_settings import Plugin

OPTIONS = PlanningOptions(dataset="Dataset001_Any", memory_budget_bytes=4 * 10**9, preset="small")


def speed_of(billions):
    """A machine of so many billion multiply-adds per second in training."""
    return MachineSpeed(
        machine="any, 2 cores", device="cpu", precision="float32", training=billions * 1e9, prediction=1.4e9 * billions
    )


def plan_for(name, billions, **changes):
    """The plan of a golden dataset for a machine of a speed; for none, without a measurement."""
    speed = None if billions is None else speed_of(billions)
    return make_plan(golden_fingerprint(name), golden_info(name), replace(OPTIONS, speed=speed, **changes))


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("billions", [TWO_AVX2_CORES / 1e9, 45, 1000])
def test_two_avx2_cores_get_the_whole_preset(name, billions):
    """They and all faster machines get exactly the preset that is asked for by its name."""
    measured, named = plan_for(name, billions), plan_for(name, None)
    assert (measured.configurations, measured.training) == (named.configurations, named.training)
    assert (measured.preset, measured.memory_budget_bytes) == (named.preset, named.memory_budget_bytes)
    assert measured.why[: len(named.why)] == named.why
    assert "as fast as two cores with AVX2, so the preset small is taken as it is" in measured.why[len(named.why)]


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("billions", [8, 16, 23])
def test_a_slow_machine_trains_a_fold_in_an_evening(name, billions):
    """Of the smaller presets the largest is taken that every configuration trains in time."""
    plan, speed = plan_for(name, billions), speed_of(billions)
    for configuration in plan.configurations.values():
        assert fold_seconds(configuration, plan.training, speed, count_patch_work(configuration)) <= FOLD_SECONDS
    assert plan.preset == "small"
    assert plan.training == plan_for(name, None).training


def test_the_plan_says_why_it_is_smaller():
    """The figure that was measured, what became smaller, and how to get the whole preset."""
    text = "\n".join(plan_for("LiverCT", 8).why)
    assert "calculates about 8 billion multiply-adds per second in float32" in text
    assert "too slow to train a fold of the whole preset small within 3 hours" in text
    assert "patches of volumes have at most 110592 voxels, not 262144" in text
    assert "the network begins with 8 features, not 16" in text
    assert "--preset small takes the whole preset" in text
    assert "3d_lowres: on this machine a training step takes about" in text


def test_slower_machines_never_get_more():
    """The multiply-adds of a step fall with the speed, down to the smallest preset, which is the last resort."""
    steps = []
    for billions in (64, 22, 11, 5, 0.5):
        configuration = plan_for("LiverCT", billions).configurations["3d_fullres"]
        steps.append(count_patch_work(configuration) * configuration.batch_size)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0] / 20
    assert "which still takes longer" in "\n".join(plan_for("LiverCT", 0.5).why)


def test_small_data_keep_the_whole_preset_on_slower_machines():
    """What counts is the time of a fold: hippocampi are learned in time at half the speed of two AVX2 cores."""
    plan = plan_for("Hippo", TWO_AVX2_CORES / 2e9)
    assert plan.configurations == plan_for("Hippo", None).configurations
    assert "a fold takes up to 3 hours, so the preset small is taken as it is" in "\n".join(plan.why)


def test_images_too_large_for_a_cpu_are_said_to_be():
    """The plan recommends the low resolution where a typical image takes long to predict."""
    why = plan_for("LiverCT", 45).why
    [full] = [text for text in why if text.startswith("3d_fullres: on this machine")]
    [low] = [text for text in why if text.startswith("3d_lowres: on this machine")]
    assert full.endswith("to predict; for images of this size, 3d_lowres is far quicker here, or take a GPU.")
    assert low.endswith("to predict.")


@pytest.mark.parametrize(("network", "is_counted"), [("vnet", True), ("monai:SwinUNETR", False)])
def test_a_network_that_was_named_stays(network, is_counted):
    """However slow the machine; the plan says so, and how long it takes where that can be counted."""
    plugin = Plugin(name=network)
    slow, named = plan_for("LiverCT", 1, network=plugin), plan_for("LiverCT", None, network=plugin)
    assert slow.configurations == named.configurations
    text = "\n".join(slow.why)
    assert "the network that was named stays as it is" in text
    assert ("3d_fullres: on this machine a training step takes" in text) == is_counted


def test_presets_shrink_step_by_step():
    """Each is smaller than the one before in patch or features, and never larger in the other."""
    presets = list(list_cpu_presets())
    for larger, smaller in pairwise(presets):
        assert smaller.volume.patch_voxels <= larger.volume.patch_voxels
        assert smaller.base_features <= larger.base_features
        assert (smaller.volume.patch_voxels, smaller.base_features) != (
            larger.volume.patch_voxels,
            larger.base_features,
        )
        assert smaller.training == larger.training
