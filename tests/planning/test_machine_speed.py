"""What steps, folds and scans take at a speed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planning_cases import golden_fingerprint, golden_info, plan_of

from autoseg.inference.tiling import tile_image
from autoseg.planning.machine_speed import (
    MachineSpeed,
    count_patch_work,
    count_tiles,
    describe_roughly,
    fold_seconds,
    mean_step_seconds,
    typical_shape,
    validation_seconds,
)
from autoseg.planning.patch_growth import PatchStage
from autoseg.planning.plugin_settings import Plugin

SPEED = MachineSpeed(machine="any", device="cpu", precision="float32", training=45e9, prediction=64e9)


@pytest.fixture(scope="module")
def liver():
    """The plan of a CT dataset with all four configurations."""
    return plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"), gigabytes=4, preset="small")


@given(st.floats(0.95, 1.05), st.integers(-4, 16))
def test_close_measurements_are_rounded_alike(factor, step):
    """Twenty percent between the lowest and the highest never are two steps."""
    exact = 1e9 * 2 ** (step / 2)
    speeds = [SPEED.model_copy(update={"training": exact * change}).rounded.training for change in (1, factor)]
    assert speeds[0] == speeds[1]
    assert speeds[0] == pytest.approx(exact, rel=0.05)


def test_a_step_takes_the_work_of_its_patches(liver):
    """Twice the batch, or half the speed, takes twice as long."""
    work = count_patch_work(liver.configurations["3d_fullres"])
    step = SPEED.step_seconds(work, 2)
    assert SPEED.step_seconds(work, 4) == pytest.approx(2 * step)
    slower = SPEED.model_copy(update={"training": SPEED.training / 2})
    assert slower.step_seconds(work, 2) == pytest.approx(2 * step)


def test_steps_of_growing_patches_are_the_mean_of_their_stages(liver):
    """Each stage is counted with its own patch and batch; for an unknown network, its voxels count."""
    configuration = liver.configurations["3d_fullres"]
    work, half = count_patch_work(configuration), count_patch_work(configuration, (32, 64, 64))
    grown = configuration.model_copy(
        update={"patch_growth": (PatchStage(patch_size=(32, 64, 64), batch_size=6),), "batch_size": 2}
    )
    expected = (SPEED.step_seconds(half, 6) + SPEED.step_seconds(work, 2)) / 2
    assert mean_step_seconds(grown, SPEED, work) == pytest.approx(expected)
    foreign = grown.model_copy(update={"network": Plugin(name="monai:SwinUNETR")})
    assert mean_step_seconds(foreign, SPEED, 1000) == pytest.approx(
        (SPEED.step_seconds(500, 6) + SPEED.step_seconds(1000, 2)) / 2
    )


def test_narrow_networks_calculate_less_per_second(liver):
    """Steps, held-out patches and scans take longer than their multiply-adds say; wide and foreign networks do not."""
    configuration = liver.configurations["3d_fullres"]
    stages = tuple(
        stage.model_copy(update={"features": stage.features // 2}) for stage in configuration.architecture.stages
    )
    architecture = configuration.architecture.model_copy(update={"stages": stages})
    narrow = configuration.model_copy(update={"architecture": architecture})
    work, training = 10**9, liver.training
    assert mean_step_seconds(narrow, SPEED, work) == pytest.approx(mean_step_seconds(configuration, SPEED, work) / 0.6)
    seconds = [fold_seconds(chosen, training, SPEED, work) for chosen in (configuration, narrow)]
    assert seconds[1] == pytest.approx(seconds[0] / 0.6)
    foreign = narrow.model_copy(update={"network": Plugin(name="monai:SwinUNETR")})
    assert SPEED.of_network(foreign) == SPEED.of_network(configuration) == SPEED


def test_a_fold_takes_all_its_steps_and_measurements(liver):
    """Its steps, and the forward pass of held-out patches after each epoch."""
    configuration, training = liver.configurations["3d_fullres"], liver.training
    work = count_patch_work(configuration)
    seconds = fold_seconds(configuration, training, SPEED, work)
    steps = 5000 * mean_step_seconds(configuration, SPEED, work)
    assert seconds == pytest.approx(steps + 1000 * 2 * work / SPEED.prediction)


def test_networks_of_the_literature_are_counted_and_others_are_not(liver):
    """Planning knows nothing of the networks of MONAI."""
    configuration = liver.configurations["3d_fullres"]
    vnet = configuration.model_validate({**configuration.model_dump(by_alias=True), "network": Plugin(name="vnet")})
    assert count_patch_work(vnet) > count_patch_work(configuration)
    foreign = configuration.model_copy(update={"network": Plugin(name="monai:SwinUNETR")})
    assert count_patch_work(foreign) is None


@pytest.mark.parametrize("shape", [(64, 64, 64), (40, 70, 65), (130, 97, 96), (200, 20, 64)])
@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
def test_tiles_are_counted_as_they_are_cut(liver, name, shape):
    """Also for images that are smaller than a tile, and in 2D, where each slice has its tiles."""
    configuration = liver.configurations[name]
    tiles = tile_image(torch.zeros(1, *shape), configuration.patch_size).tiles
    assert count_tiles(configuration, shape) == len(tiles)


def test_tiles_of_a_network_with_a_margin_do_not_overlap(liver):
    """An unpadded U-Net predicts the centre of its patches, whose tiles are counted as they are cut as well."""
    configuration = liver.configurations["2d"]
    content = {**configuration.model_dump(by_alias=True), "patch_size": (252, 252), "patch_growth": ()}
    content["network"] = Plugin(name="unet", settings={"padded": False})
    unpadded = configuration.model_validate(content)
    tiles = tile_image(torch.zeros(1, 2, 200, 300), unpadded.patch_size, unpadded.patches).tiles
    assert 0.5 * len(tiles) <= count_tiles(unpadded, (2, 200, 300)) <= 2 * len(tiles)


def test_typical_images_of_2d_have_all_slices(liver):
    """A configuration for slices predicts each of them."""
    assert typical_shape(liver, "3d_lowres") == liver.configurations["3d_lowres"].median_shape
    slices = typical_shape(liver, "2d")
    assert slices == liver.configurations["3d_fullres"].median_shape
    only = liver.model_copy(update={"configurations": {"2d": liver.configurations["2d"]}})
    assert typical_shape(only, "2d")[0] == 1


def test_a_low_resolution_is_validated_far_sooner(liver):
    """Its images have fewer voxels for patches of the same size."""
    full, low = (
        validation_seconds(liver, name, SPEED, count_patch_work(liver.configurations[name]))
        for name in ("3d_fullres", "3d_lowres")
    )
    assert low < full / 50


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.004, "0.004 s"), (89, "90 s"), (100, "2 min"), (3599, "60 min"), (3700, "1 h 00 min")]
)
def test_durations_are_as_exact_as_an_estimate(seconds, text):
    """One or two digits."""
    assert describe_roughly(seconds) == text
