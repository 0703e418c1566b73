"""Which patches training begins with, and which it refuses."""

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_cases import golden_fingerprint, golden_info
from pydantic import ValidationError
from small_models import small_configuration

from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.patch_sizes import PatchSizes
from autoseg.planning.memory import training_bytes
from autoseg.planning.patch_growth import PatchStage, grow_patches
from autoseg.planning.plan import Configuration
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.plugin_settings import Plugin

DIVISORS = st.sampled_from([1, 2, 4, 8, 16, 32])


@given(st.lists(st.tuples(DIVISORS, st.integers(1, 12)), min_size=2, max_size=3), st.integers(1, 60), st.integers(2, 6))
def test_patches_grow_along_all_axes_within_the_voxels_of_a_step(axes, batch_size, stages):
    """Every patch is one that the network takes, and no step has more voxels than the last ones."""
    divisor, patch = [step for step, _ in axes], [step * count for step, count in axes]
    patches = PatchSizes.divisible_by(divisor)
    grown = grow_patches(patch, batch_size, patches, stages=stages)
    assert len(grown) < stages
    sizes = [*(stage.patch_size for stage in grown), tuple(patch)]
    assert len(set(sizes)) == len(sizes)
    for smaller, larger in pairwise(sizes):
        assert all(edge <= next_edge for edge, next_edge in zip(smaller, larger, strict=True))
    for stage in grown:
        assert patches.find_problem(stage.patch_size) is None
        ratio = prod(patch) / prod(stage.patch_size)
        assert batch_size <= stage.batch_size <= batch_size * ratio
        assert abs(stage.batch_size / batch_size - ratio**0.5) <= 0.5 / batch_size + 1e-9


def test_smallest_patch_keeps_two_voxels_at_the_coarsest_resolution():
    """A patch that is no larger has no smaller ones before it."""
    assert grow_patches((64, 64), 4, PatchSizes.divisible_by((16, 16)))[0] == PatchStage(
        patch_size=(32, 32), batch_size=8
    )
    assert grow_patches((32, 32), 4, PatchSizes.divisible_by((16, 16))) == ()


def test_patch_with_a_margin_begins_with_the_smallest_centres():
    """Voxels are those that the network sees, margin included."""
    unpadded = PatchSizes(smallest=(188, 188), step=(16, 16), margin=(92, 92))
    grown = grow_patches((572, 572), 2, unpadded)
    assert [stage.patch_size for stage in grown] == [(204, 204), (332, 332), (444, 444)]
    assert [stage.batch_size for stage in grown] == [6, 3, 3]


def edited(**changes):
    """A small configuration as somebody has edited it."""
    return Configuration.model_validate({**small_configuration().model_dump(by_alias=True), **changes})


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([((4, 4), 2)], "patch_growth must have patches of 3 axes, as patch_size has"),
        ([((4, 4, 5), 2)], r"patch_growth: patch_size \(4, 4, 5\) must be divisible by \(2, 2, 2\)"),
        ([((2, 2, 2), 2)], "patch_growth: .* leaves one voxel at the coarsest resolution"),
        ([((4, 4, 16), 2)], r"patch_growth goes from \(4, 4, 16\) to \(8, 8, 8\), which is smaller"),
        ([((6, 6, 6), 2), ((8, 4, 8), 2)], r"patch_growth goes from \(6, 6, 6\) to \(8, 4, 8\), which is smaller"),
        ([((4, 4, 4), 0)], "batch_size"),
    ],
)
def test_edited_growth_that_cannot_be_is_named(stages, problem):
    """The line names what does not fit."""
    growth = [{"patch_size": size, "batch_size": batch} for size, batch in stages]
    with pytest.raises(ValidationError, match=problem):
        edited(patch_growth=growth)


def test_network_of_one_patch_size_does_not_grow():
    """Its positions are learned for that size."""
    with pytest.raises(ValidationError, match="patch_growth must be empty: TransUNet takes patches of one size only"):
        edited_transunet(patch_growth=[{"patch_size": (32, 32), "batch_size": 2}])


def edited_transunet(**changes):
    """A 2D configuration of a network with a fixed patch."""
    fields = small_configuration(2).model_dump(by_alias=True)
    network = {"name": "transunet", "settings": {"patch": [64, 64]}}
    return Configuration.model_validate({**fields, "network": network, "patch_size": (64, 64), **changes})


@pytest.mark.parametrize(
    ("progress", "edge"), [(0.0, 4), (0.33, 4), (0.34, 6), (0.6666, 6), (0.6667, 8), (0.999, 8), (1.0, 8)]
)
def test_each_stage_has_an_equal_share(progress, edge):
    """The full patch comes last, and stays when the training is done."""
    growth = [{"patch_size": (4, 4, 4), "batch_size": 9}, {"patch_size": (6, 6, 6), "batch_size": 4}]
    assert edited(patch_growth=growth).stage_at(progress).patch_size == (edge,) * 3


@pytest.mark.parametrize(("progress", "edge"), [(0.0, 4), (0.239, 4), (0.24, 6), (0.599, 6), (0.6, 8), (1.0, 8)])
def test_time_is_shared_by_the_voxels_of_a_step(progress, edge):
    """Steps of 6, 9 and 10 units of 64 voxels get shares of the time of 6, 9 and 10 of 25."""
    growth = [{"patch_size": (4, 4, 4), "batch_size": 6}, {"patch_size": (4, 4, 6), "batch_size": 6}]
    configuration = edited(patch_growth=growth, patch_size=(4, 8, 10), batch_size=2)
    assert [stage.voxels // 64 for stage in configuration.stages] == [6, 9, 10]
    edges = {4: (4, 4, 4), 6: (4, 4, 6), 8: (4, 8, 10)}
    assert configuration.stage_at(progress, timed=True).patch_size == edges[edge]


def planned(preset="small", **options):
    """The plan of typical hippocampi."""
    fingerprint, info = golden_fingerprint("Hippo"), golden_info("Hippo")
    options = PlanningOptions(dataset="Dataset004_Hippo", memory_budget_bytes=8 * 10**9, preset=preset, **options)
    return make_plan(fingerprint, info, options)


@pytest.mark.parametrize(
    ("preset", "patches", "grows"),
    [
        ("small", None, True),
        ("small", "fixed", False),
        ("8gb", None, False),
        ("8gb", "growing", True),
        ("24gb", "growing", True),
    ],
)
def test_preset_and_option_decide_whether_patches_grow(preset, patches, grows):
    """In 2D and 3D alike, with the reason for the stages in the plan."""
    plan = planned(preset, patches=patches)
    for name, configuration in plan.configurations.items():
        assert bool(configuration.patch_growth) == grows
        sentences = [sentence for sentence in plan.why if sentence.startswith(f"{name}: patches grow")]
        assert len(sentences) == grows
        for stage in configuration.patch_growth:
            assert f"{stage.batch_size} of {' x '.join(map(str, stage.patch_size))}" in sentences[0]
            needed = training_bytes(configuration.architecture, stage.patch_size, stage.batch_size)
            assert needed <= configuration.estimated_bytes


@pytest.mark.parametrize(
    ("network", "grows"),
    [("vnet", True), ("unet", True), ("attention_unet", True), ("transunet", False)],
)
def test_networks_of_the_literature_grow_if_they_take_other_sizes(network, grows):
    """A network whose patch is fixed keeps it, and the plan says so."""
    plan = planned(network=Plugin(name=network, settings=NETWORKS[network].complete({})))
    for name, configuration in plan.configurations.items():
        assert bool(configuration.patch_growth) == grows
        if not grows:
            assert (
                f"{name}: the patch does not grow during the training, because the network takes one size." in plan.why
            )


def test_network_of_an_installed_package_does_not_grow():
    """Nothing is known about its patches."""
    configuration = edited(network={"name": "somebodys_network"})
    assert not configuration.takes_other_patches
    assert edited().takes_other_patches
