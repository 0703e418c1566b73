"""The planner: the reference method's plans under its own memory model, and promises that hold for any data."""

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_cases import GOLDEN_NAMES, fingerprint_of, golden_fingerprint, golden_info, golden_plan, info_of

from autoseg.errors import AutosegError, DatasetError, UsageError
from autoseg.plan import Plan
from autoseg.planning.memory import FeatureMapBudget, training_bytes
from autoseg.planning.planner import PlanningOptions, choose_augmentation, make_plan, plan_with
from autoseg.planning.presets import PRESETS
from autoseg.planning.spacing import choose_grid

GB = 10**9

# The plain U-Net of the reference method, without further limits.
REFERENCE = PlanningOptions(
    dataset="Dataset999_Golden",
    preset_name="standard",
    preset=replace(PRESETS["standard"], residual="none", convolutions=(2,)),
    memory_budget_bytes=8 * GB,
    memory=FeatureMapBudget(8),
)

SCHEMES = {"ZScoreNormalization": "zscore", "CTNormalization": "ct"}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_plans(name):
    """With the reference method's network and memory model, every decision equals the reference method's."""
    golden = golden_plan(name)
    fingerprint = golden_fingerprint(name)
    plan = plan_with(fingerprint, golden_info(name), REFERENCE)
    grid = choose_grid(fingerprint)
    assert list(plan.axis_order) == golden["transpose_forward"]
    assert list(grid.spacing_mm) == golden["original_median_spacing_after_transp"]
    assert list(grid.median_shape) == golden["original_median_shape_after_transp"]
    assert plan.configurations.keys() == golden["configurations"].keys() & {"2d", "3d_fullres"}
    for key, configuration in plan.configurations.items():
        wanted = golden["configurations"][key]
        network = wanted["architecture"]["arch_kwargs"]
        stages = configuration.architecture.stages
        assert list(configuration.spacing_mm) == wanted["spacing"]
        assert list(configuration.median_shape) == wanted["median_image_size_in_voxels"]
        assert list(configuration.patch_size) == wanted["patch_size"]
        assert configuration.batch_size == wanted["batch_size"]
        assert configuration.batch_dice == wanted["batch_dice"]
        assert [list(stage.stride) for stage in stages] == network["strides"]
        assert [list(stage.kernel) for stage in stages] == network["kernel_sizes"]
        assert [stage.features for stage in stages] == network["features_per_stage"]
        assert [stage.convolutions for stage in stages] == network["n_conv_per_stage"]
        schemes = [SCHEMES[scheme] for scheme in wanted["normalization_schemes"]]
        assert [channel.scheme for channel in configuration.normalization] == schemes
        assert [channel.only_nonzero for channel in configuration.normalization] == wanted["use_mask_for_norm"]


shapes = st.tuples(*[st.integers(1, 2000)] * 3)
volumes = st.tuples(*[st.integers(8, 700)] * 3)
spacings = st.tuples(*[st.floats(0.05, 12)] * 3)


@st.composite
def datasets(draw, shapes=shapes):
    """The fingerprint and dataset.json of some random dataset."""
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


budgets = st.floats(0.4, 40).map(lambda size: int(size * GB))
presets = st.sampled_from(("standard", "small"))


@given(datasets(), budgets, presets)
@settings(max_examples=150, deadline=None)
def test_any_dataset_gets_a_plan_or_a_clear_refusal(dataset, budget, preset):
    """The plan reads back as it was saved, fits its budget and limits, and never halves an axis below four voxels."""
    fingerprint, info = dataset
    try:
        plan = make_plan(fingerprint, info, dataset="Dataset001_Any", preset=preset, memory_budget_bytes=budget)
    except (DatasetError, UsageError):
        return
    assert Plan.parse(plan.model_dump_json(), source="memory") == plan
    for configuration in plan.configurations.values():
        network = configuration.architecture
        limits = PRESETS[preset].limits(network.dimensions)
        assert configuration.estimated_bytes <= budget
        assert configuration.estimated_bytes == training_bytes(
            network, configuration.patch_size, configuration.batch_size
        )
        assert 2 <= configuration.batch_size <= (limits.batch_size or configuration.batch_size)
        voxels = 1
        for size, divisor in zip(configuration.patch_size, network.divisor, strict=True):
            assert size % divisor == 0
            assert divisor == 1 or size // divisor >= 4
            voxels *= size
        assert limits.patch_voxels is None or voxels <= limits.patch_voxels
        assert max(stage.features for stage in network.stages) <= limits.features


@given(datasets(volumes), budgets, st.floats(1, 3), presets)
@settings(max_examples=80, deadline=None)
def test_a_larger_budget_never_buys_less(dataset, budget, factor, preset):
    """A plan for more memory sees at least as large patches and at least as many voxels per step, and exists."""
    fingerprint, info = dataset
    try:
        less = make_plan(fingerprint, info, dataset="D", preset=preset, memory_budget_bytes=budget)
    except AutosegError:
        return
    more = make_plan(fingerprint, info, dataset="D", preset=preset, memory_budget_bytes=int(budget * factor))
    assert more.configurations.keys() == less.configurations.keys()
    for name, small in less.configurations.items():
        large = more.configurations[name]
        sizes = [1, 1]
        for before, after in zip(small.patch_size, large.patch_size, strict=True):
            sizes = [sizes[0] * before, sizes[1] * after]
        assert sizes[0] <= sizes[1]
        assert sizes[0] * small.batch_size <= sizes[1] * large.batch_size


def test_planning_takes_a_blink():
    """A plan takes less than 50 ms on average."""
    inputs = [(golden_fingerprint(name), golden_info(name)) for name in GOLDEN_NAMES]
    start = time.perf_counter()
    for fingerprint, info in inputs:
        for preset in ("standard", "small"):
            make_plan(fingerprint, info, dataset="D", preset=preset, memory_budget_bytes=8 * GB)
    assert (time.perf_counter() - start) / (2 * len(inputs)) < 0.05


def test_small_plans_suit_two_cores():
    """The small preset caps a CT volume at 64 voxels along each edge, with a shorter schedule and 128 features."""
    plan = make_plan(
        golden_fingerprint("LiverCT"),
        golden_info("LiverCT"),
        dataset="Dataset503_LiverCT",
        preset="small",
        memory_budget_bytes=4 * GB,
    )
    volume = plan.configurations["3d_fullres"]
    assert volume.patch_size == (64, 64, 64)
    assert volume.batch_size == 2
    assert [stage.features for stage in volume.architecture.stages] == [16, 32, 64, 128, 128]
    assert [stage.convolutions for stage in volume.architecture.stages] == [1, 2, 2, 2, 2]
    assert plan.training == PRESETS["small"].training
    assert plan.preset == "small"


def test_every_decision_has_a_sentence():
    """The reasons name the spacing, axis order, each channel, and patch, batch and memory of each configuration."""
    plan = make_plan(
        golden_fingerprint("LiverCT"),
        golden_info("LiverCT"),
        dataset="D",
        preset="standard",
        memory_budget_bytes=8 * GB,
    )
    text = "\n".join(plan.why)
    volume = plan.configurations["3d_fullres"]
    for words in (
        "1 x 0.7676 x 0.7676 mm",
        "order z, y, x",
        "Channel 0 (CT)",
        " x ".join(str(size) for size in volume.patch_size),
        "432 x 512 x 512",
        f"a batch has {volume.batch_size} patches",
        f"{volume.estimated_bytes / 1e9:.1f} GB of 8.0 GB",
        "2d: ",
        "3d_fullres: ",
    ):
        assert words in text
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in plan.why)


def test_planes_get_no_volume_configuration():
    """Pictures are planned in 2D only, and the plan says why."""
    plan = make_plan(
        golden_fingerprint("Nat2D"), golden_info("Nat2D"), dataset="D", preset="standard", memory_budget_bytes=8 * GB
    )
    assert list(plan.configurations) == ["2d"]
    assert any("the images are planes" in sentence for sentence in plan.why)


def test_narrow_volumes_are_planned_in_3d_only():
    """Where the slices are too narrow to be halved but the stack is long, only the 3D configuration is left."""
    fingerprint = fingerprint_of([(64, 5, 5)] * 3, [(1, 1, 1)] * 3)
    plan = make_plan(fingerprint, info_of("T2"), dataset="D", preset="standard", memory_budget_bytes=8 * GB)
    assert list(plan.configurations) == ["3d_fullres"]
    assert any(sentence.startswith("2d is left out") for sentence in plan.why)


def test_images_of_a_few_voxels_are_refused():
    """Images that cannot be halved once cannot be planned for."""
    fingerprint = fingerprint_of([(5, 6, 7)] * 3, [(1, 1, 1)] * 3)
    with pytest.raises(DatasetError, match=r"5 x 6 x 7 voxels .* use images"):
        make_plan(fingerprint, info_of("T2"), dataset="D", preset="standard", memory_budget_bytes=8 * GB)


def test_a_budget_that_holds_nothing_is_refused_with_the_smallest_that_does():
    """The error states a budget that is enough, and the same options with that budget give a plan."""
    fingerprint = fingerprint_of([(100, 200, 200)] * 3, [(1, 1, 1)] * 3)
    options = {"dataset": "D", "preset": "standard"}
    budget = 10**8
    for _ in range(2):  # once for each configuration
        with pytest.raises(UsageError, match="memory budget") as refused:
            make_plan(fingerprint, info_of("T2"), **options, memory_budget_bytes=budget)
        enough = int(refused.value.fix.split()[-2]) * 10**6
        assert enough > budget
        budget = enough
        try:
            plan = make_plan(fingerprint, info_of("T2"), **options, memory_budget_bytes=budget)
        except UsageError:
            continue
        break
    assert all(configuration.batch_size == 2 for configuration in plan.configurations.values())


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
    """Planes turn freely unless they are long, volumes by 30 degrees unless they are flat: then in-plane only."""
    chosen = choose_augmentation(patch_size)
    assert chosen.rotation_degrees == degrees
    assert chosen.rotation_axes == rotation_axes
    assert chosen.mirror_axes == mirror_axes


def test_a_batch_never_exceeds_a_twentieth_of_the_data():
    """Few small cases limit the batch long before the memory does; two patches are the least."""
    few = fingerprint_of([(36, 50, 35)] * 40, [(1, 1, 1)] * 40)
    plan = make_plan(few, info_of("T2"), dataset="D", preset="standard", memory_budget_bytes=8 * GB)
    assert plan.configurations["3d_fullres"].batch_size == 2
    assert plan.configurations["2d"].batch_size == round(0.05 * 40 * 36 * 50 * 35 / (56 * 40))
