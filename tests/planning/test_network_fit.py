"""Plans for networks of the literature: patches that they take, within the memory, or a reason for none."""

import itertools
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_plans import CUBE, GB, SLICE, named, plan_of
from planning_cases import fingerprint_of, info_of

from autoseg.errors import DatasetError, UsageError
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai import complete
from autoseg.planning.memory import BYTES_PER_WEIGHT, CONTEXT_BYTES, bytes_per_patch, training_bytes, weight_bytes
from autoseg.planning.network_fit import fit_network, patches_for
from autoseg.planning.plan import Plan
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.presets import PRESETS
from autoseg.planning.settings import TrainingSettings


@given(
    st.sampled_from(sorted(NETWORKS)),
    st.lists(
        st.tuples(st.tuples(*[st.integers(1, 900)] * 3), st.tuples(*[st.floats(0.1, 9)] * 3)), min_size=1, max_size=4
    ),
    st.floats(1, 40),
    st.sampled_from((None, "small", "8gb")),
)
@settings(max_examples=60, deadline=None)
def test_any_dataset_gets_a_plan_or_a_clear_refusal(name, cases, gigabytes, preset):
    """Every patch is one that the network takes, within the memory; the plan loads as it was saved."""
    fingerprint = fingerprint_of([shape for shape, _ in cases], [spacing for _, spacing in cases])
    network = named(name)
    try:
        plan = plan_of(fingerprint, network, gigabytes=gigabytes, preset=preset)
    except (DatasetError, UsageError):
        return
    assert Plan.parse(plan.model_dump_json(), source="memory") == plan
    for one in plan.configurations.values():
        assert one.network == fit_network(network, one.patch_size)
        assert one.architecture.dimensions in NETWORKS[name].dimensions
        divisor = NETWORKS[name].divisor(network.settings, one.architecture.dimensions)
        assert all(size % step == 0 for size, step in zip(one.patch_size, divisor, strict=True))
        assert one.patch_size != divisor
        assert one.estimated_bytes <= 0.9 * gigabytes * GB
        assert one.estimated_bytes == training_bytes(one.architecture, one.patch_size, one.batch_size, one.network)
        assert one.weights == NETWORKS[name].count(network.settings, one.architecture, one.patch_size).weights


@pytest.mark.parametrize("name", NETWORKS)
def test_more_memory_never_buys_fewer_voxels(name):
    """More memory never gives fewer voxels of a step, in any configuration."""
    sizes = [{}]
    for gigabytes in (3, 4, 6, 9, 12, 20, 36):
        plan = plan_of(CUBE, named(name), gigabytes=gigabytes, preset="8gb")
        sizes.append({key: one.step_voxels for key, one in plan.configurations.items()})
    for before, after in itertools.pairwise(sizes):
        assert all(after[key] >= voxels for key, voxels in before.items() if key in after)
    assert sizes[-1] != sizes[1]


def test_memory_is_that_of_the_named_network():
    """The estimate is that of its own weights and maps, which grow with its features."""
    plan = plan_of(CUBE, named("vnet"))
    one = plan.configurations["3d_fullres"]
    two_classes = one.architecture.model_copy(update={"out_channels": 2})
    assert weight_bytes(two_classes, one.network) == BYTES_PER_WEIGHT * 61_982_682
    narrow = named("vnet", features=8)
    assert bytes_per_patch(one.architecture, one.patch_size, narrow) < (
        0.6 * bytes_per_patch(one.architecture, one.patch_size, one.network)
    )
    fixed, each = CONTEXT_BYTES + weight_bytes(one.architecture, narrow), one.batch_size
    total = training_bytes(one.architecture, one.patch_size, each, narrow)
    assert total == fixed + each * bytes_per_patch(one.architecture, one.patch_size, narrow)


def test_patches_shrink_along_what_they_cover_most():
    """The worked example of `patches_for`; small images are padded to two voxels at the coarsest resolution."""
    found = [one.patch_size for one in patches_for(named("unet"), (1.0, 1.0), (50.0, 30.0))]
    assert found == [(64, 32), (48, 32), (48, 16), (32, 16)]
    assert [one.patch_size for one in patches_for(named("unet"), (1.0, 1.0), (9.0, 5.0))] == [(32, 16)]
    topology = next(patches_for(named("resnet_unet"), (1.0, 1.0, 1.0), (70.0, 40.0, 20.0)))
    assert topology.patch_size == (96, 64, 32)
    assert topology.divisor == (32, 32, 32)
    assert prod(topology.patch_size) == topology.voxels


def test_what_a_network_cannot_do_is_left_out_with_the_reason():
    """2D networks have no 3D configuration and vice versa; the plan names the network and its training."""
    volumes, planes = plan_of(CUBE, named("vnet")), plan_of(CUBE, named("unet_3plus"))
    assert "2d" not in volumes.configurations
    assert planes.configurations.keys() == {"2d"}
    assert "There is no 2d: V-Net takes images in 3D only." in volumes.why
    assert "There is no 3D configuration: UNet 3+ takes images in 2D only." in planes.why
    [told] = [sentence for sentence in volumes.why if sentence.startswith("Network vnet: V-Net (Milletari")]
    assert "but for overlap squared_dice, optimizer adam" in told
    assert planes.configurations["2d"].architecture.deep_supervision
    assert {"2d", "3d_fullres"} <= plan_of(CUBE, named("resnet_unet")).configurations.keys()


def test_cascade_needs_channels_for_what_came_before():
    """V-Net takes at most as many channels as it has features."""
    large = fingerprint_of([(300, 512, 512)] * 5, [(1.0, 0.7, 0.7)] * 5)
    assert "3d_cascade_fullres" in plan_of(large, named("vnet"), info=info_of("CT", classes=16)).configurations
    plan = plan_of(large, named("vnet"), info=info_of("CT", classes=17))
    assert plan.configurations.keys() == {"3d_fullres", "3d_lowres"}
    assert "There is no cascade: V-Net takes at most 16 channels with these settings, not 17." in plan.why


def test_network_that_fits_nothing_is_refused_in_one_line():
    """The error has the reasons."""
    with pytest.raises(
        UsageError, match=r"^V-Net cannot look at the images of Dataset001_Any\. .*; choose another net"
    ):
        plan_of(SLICE, named("vnet"))
    with pytest.raises(
        UsageError, match=r"a memory budget of 1\.0 GB does not hold a training step with two patches of"
    ):
        plan_of(CUBE, named("vnet"), gigabytes=1)


def test_preset_gives_memory_and_schedule_alone():
    """The network does not depend on the preset; the preset for CPUs keeps its small patches."""
    small, large = (plan_of(CUBE, named("unet_3d"), preset=preset) for preset in ("small", None))
    assert small.preset == "small"
    assert small.training.epochs == 100
    assert small.configurations["3d_fullres"].network == large.configurations["3d_fullres"].network
    assert small.configurations["3d_fullres"].patch_voxels <= 64**3 < large.configurations["3d_fullres"].patch_voxels


@pytest.mark.parametrize("preset", ["small", "8gb"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_trained_as_its_page_says(name, preset):
    """The changes of the network are in the plan and in its reasons; all else is that of the preset."""
    spec, network = NETWORKS[name], named(name)
    says = spec.training(spec.parse(network.settings))
    plan = plan_of(CUBE if 3 in spec.dimensions else SLICE, network, preset=preset)
    usual = plan_of(CUBE if 3 in spec.dimensions else SLICE, None, preset=preset)
    expected = TrainingSettings.model_validate({**usual.training.model_dump(), **says})
    assert plan.training == expected
    [told] = [sentence for sentence in plan.why if sentence.startswith(f"Network {name}: ")]
    assert (", and trained like any other, but for " in told) == bool(says)
    assert ("optimizer adam" in told) == ("optimizer" in says)


def test_what_normalizes_nothing_is_trained_gently():
    """V-Net without norms gets a lower learning rate, since that of a preset would make its loss infinite."""
    paper, normed = named("vnet"), named("vnet", batch_norm=True)
    for preset in ("small", "8gb"):
        gentle, usual = (plan_of(CUBE, network, preset=preset).training for network in (paper, normed))
        assert (gentle.optimizer, usual.optimizer) == ("adam", "sgd")
        assert gentle.loss.overlap == usual.loss.overlap == "squared_dice"
        assert usual.learning_rate == PRESETS[preset].training.learning_rate


@pytest.mark.parametrize(
    ("name", "optimizer"), [("UNETR", "adam"), ("SwinUNETR", "adam"), ("UNet", "sgd"), ("Unknown", "sgd")]
)
def test_monai_transformers_are_trained_gently(name, optimizer):
    """Networks of the table have their own training, and the plan says so; all others that of the preset."""
    plan = plan_of(CUBE, Plugin(name=f"monai:{name}", settings=complete(f"monai:{name}", {})))
    assert plan.training.optimizer == optimizer
    [told] = [sentence for sentence in plan.why if sentence.startswith(f"Network monai:{name}: ")]
    assert (", and trained like any other, but for optimizer adam" in told) == (optimizer == "adam")
