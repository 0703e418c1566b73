"""Labels of many small parts are found by the parts that the fingerprint counted, and change patches and the loss."""

import pytest
from planning_cases import golden_fingerprint, golden_info

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.label_facts import LabelFacts
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.scattered_labels import find_scattered_labels

FACTS = ChannelFacts(mean=1.0, median=1.0, std=1.0, minimum=0.0, maximum=9.0, percentile_00_5=0.0, percentile_99_5=9.0)
INFO = DatasetInfo(channel_names={"0": "T1"}, labels={"background": 0, "liver": 1, "lesion": 2}, file_ending=".nii.gz")


def case_of(*parts, label=2):
    """A case whose label has these numbers of parts and of voxels in the largest one, of 100 voxels."""
    labels = tuple(
        LabelFacts(label=label, voxels=100, center=(0.5, 0.5, 0.5), parts=count, largest_part=largest)
        for count, largest in parts
    )
    return CaseFacts(shape_after_crop=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0), labels=labels)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(49, 33)], ("lesion",)),
        ([(8, 50)], ("lesion",)),
        ([(7, 20)], ()),  # few parts, such as vertebrae
        ([(49, 51)], ()),  # an organ beside some specks
        ([(1, 100), (20, 20), (30, 10)], ("lesion",)),  # the typical case counts
        ([(1, 100), (1, 100), (30, 10)], ()),
        ([(None, None)], ()),  # read from a fingerprint of an earlier version
        ([], ()),
    ],
)
def test_the_typical_case_decides(parts, expected):
    """By the number of parts and the size of the largest one."""
    cases = tuple(case_of(part) for part in parts) or (case_of(),)
    fingerprint = Fingerprint(cases=cases, channels=(FACTS,), median_relative_size_after_crop=1.0)
    assert find_scattered_labels(fingerprint, INFO) == expected


def test_a_region_counts_if_any_of_its_numbers_does():
    """All regions that hold the number are named."""
    info = DatasetInfo(
        channel_names={"0": "T1"},
        labels={"background": 0, "whole": [1, 2], "core": 1},
        regions_class_order=[2, 1],
        file_ending=".nii.gz",
    )
    fingerprint = Fingerprint(cases=(case_of((20, 10)),), channels=(FACTS,), median_relative_size_after_crop=1.0)
    assert find_scattered_labels(fingerprint, info) == ("whole",)


def plan_with_parts(parts: int, **options):
    """Plans the hippocampi as if their only label consisted of so many parts of equal size."""
    fingerprint, info = golden_fingerprint("Hippo"), golden_info("Hippo")
    facts = LabelFacts(label=1, voxels=1000, center=(0.5, 0.5, 0.5), parts=parts, largest_part=1000 // parts)
    cases = tuple(case.model_copy(update={"labels": (facts,)}) for case in fingerprint.cases)
    request = PlanningOptions(dataset="Dataset004_Hippo", memory_budget_bytes=8 * 10**9, **options)
    return make_plan(fingerprint.model_copy(update={"cases": cases}), info, request)


@pytest.mark.parametrize(
    ("parts", "patches", "grows"), [(1, None, True), (20, None, False), (20, "growing", True), (1, "fixed", False)]
)
def test_patches_grow_unless_labels_are_scattered(parts, patches, grows):
    """The plan says why they do not; the user has the last word."""
    plan = plan_with_parts(parts, preset="small", patches=patches)
    assert all(bool(configuration.patch_growth) == grows for configuration in plan.configurations.values())
    assert any("Patches do not grow" in line for line in plan.why) == (parts > 1 and patches is None)


@pytest.mark.parametrize(
    ("parts", "options", "counts"),
    [
        (1, {"preset": "small"}, False),
        (20, {"preset": "small"}, True),
        (20, {}, False),  # a GPU would wait for the parts, which a CPU finds
        (20, {"rules": "nnunet", "preset": "plain"}, False),  # as the reference method trains
        (20, {"preset": "small", "network": Plugin(name="vnet")}, False),  # as its paper trains it
    ],
)
def test_parts_count_alike_if_labels_are_scattered(parts, options, counts):
    """In the loss, not in the choice of patches; the plan says why."""
    plan = plan_with_parts(parts, **options)
    assert (plan.training.loss.component_weight == 1.0) == counts
    assert plan.training.foreground_sampling == "voxels"
    assert any(line.startswith("The loss is measured once more around each part") for line in plan.why) == counts
