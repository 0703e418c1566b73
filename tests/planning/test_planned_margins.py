"""Plans for networks with a margin."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_cases import fingerprint_of, info_of
from small_models import small_configuration

from autoseg.errors import AutosegError
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.memory import bytes_per_patch
from autoseg.planning.network_fit import patches_for
from autoseg.planning.plan import Configuration, Plan
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.plugin_settings import Plugin

VALID = {"padded": False}
FORMS = [("unet", 2), ("unet_3d", 3)]


def named(name, **given):
    """Returns the network as a plan names it."""
    return Plugin(name=name, settings=NETWORKS[name].complete({**VALID, **given}))


def plan_of(fingerprint, network, *, gigabytes=8.0, preset="8gb"):
    """Returns a plan for a network."""
    options = PlanningOptions(
        dataset="Dataset001_Any", memory_budget_bytes=int(gigabytes * 1e9), preset=preset, network=network
    )
    return make_plan(fingerprint, info_of("MR"), options)


@given(
    st.sampled_from(FORMS),
    st.lists(
        st.tuples(st.tuples(*[st.integers(1, 600)] * 3), st.tuples(*[st.floats(0.3, 5)] * 3)), min_size=1, max_size=3
    ),
    st.floats(1, 40),
    st.sampled_from((None, "small", "8gb")),
    st.integers(2, 5),
)
@settings(max_examples=25, deadline=None)
def test_any_dataset_gets_patches_that_the_network_takes(form, cases, gigabytes, preset, depth):
    """Patches are within the memory, or there is a clear error; the plan loads as it was saved."""
    network = named(form[0], depth=depth)
    fingerprint = fingerprint_of([shape for shape, _ in cases], [spacing for _, spacing in cases])
    try:
        plan = plan_of(fingerprint, network, gigabytes=gigabytes, preset=preset)
    except AutosegError:
        return
    assert Plan.parse(plan.model_dump_json(), source="memory") == plan
    for one in plan.configurations.values():
        assert one.patches == NETWORKS[form[0]].patches(network.settings, form[1])
        assert one.patches.find_problem(one.patch_size) is None
        assert min(one.centre_size) > 0
        assert one.estimated_bytes <= 0.9 * gigabytes * 1e9


def test_centres_cover_the_image_and_give_way():
    """The worked example of `patches_for`."""
    found = [one.patch_size for one in patches_for(named("unet"), (1.0, 1.0), (50.0, 30.0))]
    assert found[:2] == [(236, 220), (236, 204)]
    assert found[-1] == (188, 188)
    whole = next(patches_for(named("unet_3d"), (1.0,) * 3, (44.0, 44.0, 28.0)))
    assert whole.patch_size == (132, 132, 116)


def test_more_memory_buys_larger_patches_and_says_what_is_predicted():
    """If the preset allows no patch that the network takes, it gets the smallest."""
    cube = fingerprint_of([(150, 160, 170)] * 5, [(1.0, 1.0, 1.0)] * 5)
    plans = [plan_of(cube, named("unet_3d"), gigabytes=gigabytes) for gigabytes in (4, 8, 16, 32)]
    voxels = [plan.configurations["3d_fullres"].step_voxels for plan in plans]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]
    one = plans[-1].configurations["3d_fullres"]
    predicted = " x ".join(map(str, one.centre_size))
    assert any(f"of a patch it predicts the {predicted} voxels in the middle" in line for line in plans[-1].why)
    small = plan_of(cube, named("unet_3d"), preset="small").configurations["3d_fullres"]
    assert small.patch_size == (92, 92, 92)


def test_memory_counts_losses_of_the_centre_alone():
    """Each additional class takes memory for its logits and its losses."""
    spec = NETWORKS["unet"]
    many, more = (spec.make_architecture(VALID, 2, in_channels=1, out_channels=classes) for classes in (300, 301))
    for network, voxels in ((named("unet"), 388**2), (named("unet", padded=True), 576**2)):
        patch = (572, 572) if voxels == 388**2 else (576, 576)
        each = bytes_per_patch(more, patch, network) - bytes_per_patch(many, patch, network)
        assert each == (2 + 9 + 8) * voxels


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ([100, 100], r"edges of 188, 204, 220, ... voxels, of which 92 on each side are margin; .* is \(188, 188\)$"),
        ([576, 572], r"patch_size \(576, 572\) must have edges .* the nearest is \(572, 572\)$"),
        ([572, 572], None),
    ],
)
def test_patch_that_the_network_does_not_take_is_one_line(patch, text):
    """The error names sizes that the network takes."""
    known = small_configuration(2).model_dump() | {
        "patch_size": patch,
        "network": {"name": "unet", "settings": VALID},
    }
    if text is None:
        assert Configuration.model_validate(known).centre_size == (388, 388)
        return
    with pytest.raises(ValueError, match=text.replace("$", r"(?= \[)")):
        Configuration.model_validate(known)
