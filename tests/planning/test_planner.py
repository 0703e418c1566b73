"""The planner: properties for any data. The reference method's own plans are in test_reference_plans."""

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_cases import fingerprint_of, golden_fingerprint, golden_info, info_of, plan_of

from autoseg.errors import AutosegError, DatasetError, UsageError
from autoseg.planning.augmentation_choice import choose_augmentation
from autoseg.planning.memory import training_bytes
from autoseg.planning.plan import Plan
from autoseg.planning.presets import LADDER, PRESETS

GB = 10**9

shapes = st.tuples(*[st.integers(1, 2000)] * 3)
volumes = st.tuples(*[st.integers(8, 700)] * 3)
spacings = st.tuples(*[st.floats(0.05, 12)] * 3)


@st.composite
def datasets(draw, shapes=shapes):
    """Returns the fingerprint and dataset.json of a random dataset."""
    cases = draw(st.lists(st.tuples(shapes, spacings), min_size=1, max_size=5))
    names = draw(st.lists(st.sampled_from(("CT", "T1", "noNorm", "rgb_to_0_1")), min_size=1, max_size=4))
    times = draw(st.integers(1, 30))
    kept = draw(st.floats(0.1, 1))
    fingerprint = fingerprint_of(
        [shape for shape, _ in cases] * times,
        [spacing for _, spacing in cases] * times,
        channels=len(names),
        kept_share=kept,
    )
    return fingerprint, info_of(*names, classes=draw(st.integers(2, 20)))


gigabytes = st.floats(0.4, 90)
presets = st.sampled_from((None, "small", "8gb", "24gb"))


@given(datasets(), gigabytes, presets)
@settings(max_examples=200, deadline=None)
def test_any_dataset_gets_a_plan_or_a_clear_refusal(dataset, budget, preset):
    """The plan loads as it was saved, is within its budget and limits, and no axis has fewer than four voxels."""
    fingerprint, info = dataset
    try:
        plan = plan_of(fingerprint, info, gigabytes=budget, preset=preset)
    except (DatasetError, UsageError):
        return
    assert Plan.parse(plan.model_dump_json(), source="memory") == plan
    for configuration in plan.configurations.values():
        network = configuration.architecture
        limits = PRESETS[plan.preset].limits(network.dimensions)
        assert configuration.estimated_bytes <= 0.9 * budget * GB
        assert configuration.estimated_bytes == training_bytes(
            network, configuration.patch_size, configuration.batch_size
        )
        assert 2 <= configuration.batch_size <= (limits.batch_size or configuration.batch_size)
        assert limits.patch_voxels is None or configuration.patch_voxels <= limits.patch_voxels
        assert max(stage.features for stage in network.stages) <= limits.features
        for size, divisor in zip(configuration.patch_size, network.divisor, strict=True):
            assert size % divisor == 0
            assert size // divisor >= 4


@given(datasets(volumes), st.floats(0.4, 90), st.floats(1, 3), presets)
@settings(max_examples=150, deadline=None)
def test_a_larger_budget_never_buys_less(dataset, budget, factor, preset):
    """A plan for more memory exists, and has at least as many voxels per step in every configuration of both plans.

    A low resolution may end where a patch of the full one covers enough, and begin where none fitted into less memory.
    """
    fingerprint, info = dataset
    try:
        less = plan_of(fingerprint, info, gigabytes=budget, preset=preset)
    except AutosegError:
        return
    more = plan_of(fingerprint, info, gigabytes=budget * factor, preset=preset)
    assert less.configurations.keys() ^ more.configurations.keys() <= {"3d_lowres", "3d_cascade_fullres"}
    for name in less.configurations.keys() & more.configurations.keys():
        assert more.configurations[name].step_voxels >= less.configurations[name].step_voxels


def test_thin_volumes_may_need_more_memory_for_a_low_resolution():
    """With 1 GB no patch that covers a quarter fits before the eight slices of the volume are coarsened to three."""
    fingerprint, info = fingerprint_of([(8, 251, 313)], [(1.0, 1.0, 1.0)]), info_of("CT")
    less, more = (plan_of(fingerprint, info, gigabytes=budget, preset="24gb") for budget in (1, 2))
    assert list(less.configurations) == ["2d", "3d_fullres"]
    assert list(more.configurations) == ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
    assert more.configurations["3d_lowres"].median_shape[0] == 6


@given(datasets(volumes))
@settings(max_examples=25, deadline=None)
def test_memory_never_buys_less_where_the_network_grows(dataset):
    """Through all presets, just below and at the memory of each, no step has fewer voxels."""
    fingerprint, info = dataset
    seen: dict[str, int] = {}
    for name in LADDER:
        for budget in (PRESETS[name].memory_bytes - 1, PRESETS[name].memory_bytes):
            try:
                plan = plan_of(fingerprint, info, gigabytes=budget / GB, preset=None)
            except AutosegError:
                continue
            for key, configuration in plan.configurations.items():
                assert configuration.step_voxels >= seen.get(key, 0)
                seen[key] = configuration.step_voxels


def test_memory_chooses_the_network():
    """8 GB get the small network; larger memory the deeper one, as soon as no patch must shrink for it."""
    fingerprint, info = golden_fingerprint("LiverCT"), golden_info("LiverCT")
    plans = {size: plan_of(fingerprint, info, gigabytes=size, preset=None) for size in (3, 8, 11, 14, 24, 80)}
    assert plans[3].preset == "4gb"
    assert plans[8].preset == "8gb"
    assert plans[24].preset == "24gb"
    assert plans[80].preset == "80gb"
    depth = {
        size: [stage.blocks for stage in plan.configurations["3d_fullres"].architecture.stages]
        for size, plan in plans.items()
    }
    assert set(depth[8]) == {1}
    assert depth[24] == [1] + [2] * (len(depth[24]) - 1)
    refusal = "The deeper network of preset 11gb is not used"
    assert plans[11].preset == "8gb"
    assert [refusal in plans[size].why[-1] for size in plans] == [False, False, True, False, False, False]
    assert plans[14].preset == "11gb"
    assert plans[14].configurations["3d_fullres"].step_voxels >= plans[11].configurations["3d_fullres"].step_voxels


def test_large_volumes_get_all_four_configurations():
    """A CT is also planned at a low resolution, of which a patch covers a quarter, and as a cascade."""
    plan = plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"))
    assert list(plan.configurations) == ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
    full, low, cascade = (plan.configurations[name] for name in list(plan.configurations)[1:])
    assert low.patch_voxels >= 0.25 * prod(low.median_shape)
    assert all(coarse > fine for coarse, fine in zip(low.spacing_mm, full.spacing_mm, strict=True))
    assert (cascade.previous, cascade.spacing_mm) == ("3d_lowres", full.spacing_mm)
    assert cascade.architecture.in_channels == 1 + 2
    assert cascade.image_channels == full.image_channels == 1
    assert (plan.configurations["2d"].batch_dice, full.batch_dice, low.batch_dice) == (True, True, False)
    assert plan.trainable == ["2d", "3d_fullres", "3d_lowres"]


def test_patches_that_see_enough_need_no_low_resolution():
    """Small volumes have the full resolution only, and the plan says why."""
    plan = plan_of(golden_fingerprint("Hippo"), golden_info("Hippo"))
    assert list(plan.configurations) == ["2d", "3d_fullres"]
    assert not plan.configurations["3d_fullres"].batch_dice
    assert any(sentence.startswith("There is no 3d_lowres: a patch") for sentence in plan.why)


def test_labels_with_sides_keep_them():
    """Left and right structures without measured positions are not mirrored from left to right."""
    info = info_of("CT").model_copy(update={"labels": {"background": 0, "kidney_left": 1, "kidney_right": 2}})
    plan = plan_of(golden_fingerprint("LiverCT"), info)
    assert plan.configurations["3d_fullres"].augmentation.mirror_axes == (0, 1)
    assert plan.configurations["2d"].augmentation.mirror_axes == (0,)
    assert any("kidney_left and kidney_right" in sentence for sentence in plan.why)


def test_small_plans_suit_two_cores():
    """The small preset limits a CT patch to 64 voxels along each edge, with a shorter schedule and 128 features."""
    plan = plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"), gigabytes=4, preset="small")
    volume = plan.configurations["3d_fullres"]
    assert volume.patch_size == (64, 64, 64)
    assert volume.batch_size == 2
    assert [stage.features for stage in volume.architecture.stages] == [16, 32, 64, 128, 128]
    assert [stage.convolutions for stage in volume.architecture.stages] == [1, 2, 2, 2, 2]
    assert plan.training == PRESETS["small"].training
    assert plan.preset == "small"


def test_every_decision_has_a_sentence():
    """The reasons name the spacing, axis order, each channel, and patch, batch and memory of each configuration."""
    plan = plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"), gigabytes=8, preset="8gb")
    text = "\n".join(plan.why)
    volume = plan.configurations["3d_fullres"]
    for words in (
        "1 x 0.7676 x 0.7676 mm",
        "order z, y, x",
        "Channel 0 (CT)",
        " x ".join(str(size) for size in volume.patch_size),
        "432 x 512 x 512",
        "3d_lowres: ",
        "3d_cascade_fullres: ",
        "1000 epochs of 250 steps",
        f"a batch has {volume.batch_size} patches",
        f"{volume.estimated_bytes / 1e9:.1f} GB of 8.0 GB",
        "2d: ",
        "3d_fullres: ",
    ):
        assert words in text
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in plan.why)


def test_planes_get_no_volume_configuration():
    """2D images have a 2D configuration only, and the plan says why."""
    plan = plan_of(golden_fingerprint("Nat2D"), golden_info("Nat2D"))
    assert list(plan.configurations) == ["2d"]
    assert any("1 slice makes no volume" in sentence for sentence in plan.why)


def test_narrow_volumes_are_planned_in_3d_only():
    """If slices are too narrow to be halved but the stack is long, only the 3D configuration is left."""
    fingerprint = fingerprint_of([(64, 5, 5)] * 3, [(1, 1, 1)] * 3)
    plan = plan_of(fingerprint, info_of("T2"))
    assert list(plan.configurations) == ["3d_fullres"]
    assert any(sentence.startswith("There is no 2d") for sentence in plan.why)


def test_images_of_a_few_voxels_are_refused():
    """Images that cannot be halved once cannot be planned for."""
    fingerprint = fingerprint_of([(5, 6, 7)] * 3, [(1, 1, 1)] * 3)
    with pytest.raises(DatasetError, match=r"5 x 6 x 7 voxels .* use images"):
        plan_of(fingerprint, info_of("T2"))


@pytest.mark.parametrize("preset", [None, "8gb", "small"])
def test_a_budget_that_holds_nothing_is_refused_with_the_smallest_that_does(preset):
    """The error states a sufficient budget, and the same options with that budget give a plan."""
    fingerprint = fingerprint_of([(100, 200, 200)] * 3, [(1, 1, 1)] * 3)
    budget, plan = 10**8, None
    for _ in range(4):  # at most once for each configuration
        with pytest.raises(UsageError, match="memory budget") as refused:
            plan_of(fingerprint, info_of("T2"), gigabytes=budget / GB, preset=preset)
        enough = int(refused.value.fix.split()[-2]) * 10**6
        assert enough > budget
        budget = enough
        try:
            plan = plan_of(fingerprint, info_of("T2"), gigabytes=budget / GB, preset=preset)
        except UsageError:
            continue
        break
    assert plan is not None
    assert min(configuration.batch_size for configuration in plan.configurations.values()) == 2


@pytest.mark.parametrize(
    ("patch_size", "degrees", "rotation_axes", "mirror_axes"),
    [
        ((320, 320), 180, (0,), (0, 1)),
        ((320, 256), 180, (0,), (0, 1)),
        ((256, 512), 15, (0,), (0, 1)),
        ((128, 128, 128), 30, (0, 1, 2), (0, 1, 2)),
        ((64, 192, 160), 30, (0, 1, 2), (0, 1, 2)),
        ((20, 320, 256), 180, (0,), (0, 1, 2)),
    ],
)
def test_patches_turn_as_their_shape_allows(patch_size, degrees, rotation_axes, mirror_axes):
    """2D patches rotate freely unless elongated, 3D patches by 30 degrees unless flat: then in-plane only."""
    chosen = choose_augmentation(patch_size)
    assert chosen.rotation_degrees == degrees
    assert chosen.rotation_axes == rotation_axes
    assert chosen.mirror_axes == mirror_axes


def test_a_batch_never_exceeds_a_twentieth_of_the_data():
    """Few small cases limit the batch before the memory does; two patches are the minimum."""
    few = fingerprint_of([(36, 50, 35)] * 40, [(1, 1, 1)] * 40)
    plan = plan_of(few, info_of("T2"))
    assert plan.configurations["3d_fullres"].batch_size == 2
    assert plan.configurations["2d"].batch_size == round(0.05 * 40 * 36 * 50 * 35 / (56 * 40))
