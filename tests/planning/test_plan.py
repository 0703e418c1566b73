"""plan.json, which people edit."""

import json

import pytest
from pydantic import ValidationError

from autoseg.errors import ArtifactError
from autoseg.networks.architecture import Architecture, Stage
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import Configuration, Plan
from autoseg.planning.plugin_settings import CustomTransform, Plugin
from autoseg.planning.settings import AugmentationSettings, TrainingSettings


def architecture(dimensions):
    """Returns a network of three stages, of which the first axis is halved once and the others twice."""
    strides = [(1, 1, 1), (1, 2, 2), (2, 2, 2)]
    stages = tuple(
        Stage(features=8 * 2**number, kernel=(3,) * dimensions, stride=stride[-dimensions:], convolutions=2)
        for number, stride in enumerate(strides)
    )
    return Architecture(residual="stage", in_channels=2, out_channels=3, stages=stages)


def configuration(dimensions):
    """Returns a consistent configuration."""
    return Configuration(
        spacing_mm=(3.0, 1.0, 1.0)[-dimensions:],
        patch_size=(8, 32, 32)[-dimensions:],
        batch_size=2,
        median_shape=(20, 100, 100)[-dimensions:],
        normalization=(
            Normalization(scheme="ct", lower=-100, upper=300, mean=40, std=20),
            Normalization(scheme="zscore", only_nonzero=True),
        ),
        batch_dice=dimensions == 2,
        architecture=architecture(dimensions),
        estimated_bytes=10**9,
    )


@pytest.fixture
def plan():
    """Returns a plan with a 2D and a 3D configuration."""
    return Plan(
        dataset="Dataset001_Test",
        preset="8gb",
        memory_budget_bytes=8 * 10**9,
        axis_order=(2, 0, 1),
        configurations={"2d": configuration(2), "3d_fullres": configuration(3)},
        training=TrainingSettings(epochs=7),
        why=("Because.",),
    )


def edited(plan, path, *keys, value):
    """Saves the plan to `path` after a user's edit of one value."""
    plan.save(path)
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))
    return path


def test_a_plan_reads_back_as_it_was_saved(plan, tmp_path):
    """Saving and loading changes nothing."""
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_an_edit_is_read(plan, tmp_path):
    """An edited value is used."""
    path = edited(plan, tmp_path / "plan.json", "configurations", "3d_fullres", "patch_size", value=[16, 64, 32])
    assert Plan.load(path).configurations["3d_fullres"].patch_size == (16, 64, 32)


FULL = ("configurations", "3d_fullres")
STAGES = (*FULL, "architecture", "stages")


@pytest.mark.parametrize(
    ("keys", "value", "complaint"),
    [
        (("epochs",), 100, "epochs: Extra inputs"),
        (("training", "epoch"), 100, "training.epoch: Extra inputs"),
        ((*STAGES, 1, "dilation"), 2, "stages.1.dilation: Extra inputs"),
        (("training", "epochs"), 0, "training.epochs"),
        (("training", "learning_rate"), "fast", "training.learning_rate"),
        (("preset",), "huge", "preset"),
        (("rules",), "mine", "rules"),
        ((*FULL, "augmentation", "swap_axis"), 1, "swap_axis and swapped_labels must be given together"),
        ((*FULL, "previous"), "4d", "3d_fullres.previous"),
        (("axis_order",), [0, 1, 1], "axis_order must hold 0, 1 and 2 once each"),
        (("format_version",), 99, "format_version is 99"),
        ((*FULL, "patch_size"), [8, 30, 32], "patch_size (8, 30, 32) must be divisible by (2, 4, 4)"),
        ((*FULL, "patch_size"), [2, 4, 4], "patch_size (2, 4, 4) leaves one voxel at the coarsest resolution"),
        ((*FULL, "patch_size"), [32, 32], "patch_size must have 3 values"),
        ((*FULL, "batch_size"), 0, "3d_fullres.batch_size"),
        ((*FULL, "normalization"), [{"scheme": "none"}], "one entry per image channel"),
        ((*FULL, "normalization", 0, "std"), None, "the scheme 'ct' needs lower, upper, mean and std"),
        ((*FULL, "normalization", 0, "window_hu"), [0, 80], "window_hu belongs to the scheme 'window', and only to it"),
        ((*FULL, "normalization"), [{"scheme": "window"}], "window_hu belongs to the scheme 'window'"),
        ((*FULL, "normalization"), [{"window_hu": [80, 0]}], "0.window_hu: the lower end of a window comes first"),
        ((*FULL, "augmentation", "mirror_axes"), [0, 0], "each axis may be named once"),
        ((*FULL, "augmentation", "rotation_degrees"), 270, "rotation_degrees"),
        ((*STAGES, 0, "stride"), [1, 2, 2], "stride of the first stage must be 1"),
        ((*STAGES, 2, "stride"), [16, 2, 2], "must be divisible by (16, 4, 4)"),
        ((*STAGES, 2, "stride"), [2, 2], "same number of axes in all stages"),
        ((*STAGES, 1, "kernel"), [3, 2, 3], "kernel (3, 2, 3) of stage 1 must be odd"),
        (("configurations", "2d", "augmentation", "mirror_axes"), [0, 1, 2], "mirror_axes must be below 2"),
        (("configurations", "2d", "augmentation", "rotation_axes"), [1], "rotation_axes of a 2D configuration"),
        (("configurations", "4d"), {}, "configurations.4d"),
        (("configurations",), {}, "configurations"),
    ],
)
def test_an_impossible_edit_is_refused_by_name(plan, tmp_path, keys, value, complaint):
    """The error names the file, the place and what is wrong with it, in one line."""
    path = edited(plan, tmp_path / "plan.json", *keys, value=value)
    with pytest.raises(ArtifactError) as refused:
        Plan.load(path)
    assert complaint in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_network_follows_the_windows_of_an_edited_plan(plan, tmp_path):
    """A user writes the windows alone; the number of input channels is theirs, and comes back from the file."""
    windows = [{"window_hu": [[0, 80], [-200, 300], [-1000, 400]]}]
    path = edited(plan, tmp_path / "plan.json", *FULL, "normalization", value=windows)
    full = Plan.load(path).configurations["3d_fullres"]
    assert (full.architecture.in_channels, full.image_channels, full.previous_channels) == (3, 3, 0)
    assert full.name_inputs(["CT"]) == ("CT 0 to 80 HU", "CT -200 to 300 HU", "CT -1000 to 400 HU")
    Plan.load(path).save(path)
    assert Plan.load(path).configurations["3d_fullres"] == full


def test_a_missing_field_is_named(plan, tmp_path):
    """A field without a default cannot be left out."""
    path = tmp_path / "plan.json"
    plan.save(path)
    content = json.loads(path.read_text())
    del content["configurations"]["2d"]["spacing_mm"]
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"configurations\.2d\.spacing_mm: Field required"):
        Plan.load(path)


def test_a_configuration_has_the_dimensions_of_its_name(plan):
    """A 3D network cannot have the name of a 2D configuration."""
    with pytest.raises(ValidationError, match="'2d' has kernels of 3 axes"):
        Plan(**(dict(plan) | {"configurations": {"2d": configuration(3)}}))


def test_the_divisor_is_the_product_of_the_strides():
    """Strides (1, 1, 1), (1, 2, 2), (2, 2, 2) divide a patch by (2, 4, 4)."""
    assert architecture(3).divisor == (2, 4, 4)
    assert architecture(3).dimensions == 3
    assert architecture(2).divisor == (4, 4)


def test_augmentation_left_out_suits_the_dimensions():
    """2D patches rotate freely and are flipped along two axes, 3D patches rotate by 30 degrees about all three."""
    assert configuration(3).augmentation == AugmentationSettings()
    plane = configuration(2).augmentation
    assert (plane.rotation_degrees, plane.rotation_axes, plane.mirror_axes) == (180, (0,), (0, 1))


def test_augmentation_is_read_per_configuration(plan, tmp_path):
    """An edit of one configuration's augmentation leaves the other's alone."""
    path = edited(plan, tmp_path / "plan.json", *FULL, "augmentation", "mirror_axes", value=[])
    configurations = Plan.load(path).configurations
    assert configurations["3d_fullres"].augmentation.mirror_axes == ()
    assert configurations["2d"] == plan.configurations["2d"]


def test_values_cannot_be_changed_in_place(plan):
    """A plan is a value: changing it means making a new one."""
    with pytest.raises(ValidationError, match="frozen"):
        plan.training.epochs = 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"adam_betas": (0.5, 0.9)},
            r"adam_betas has no effect with the optimizer 'sgd'; set it back to \(0.9, 0.999\)",
        ),
        ({"schedule": "cosine", "schedule_power": 2.0}, "schedule_power has no effect with the schedule 'cosine'"),
        ({"step_share": 0.5}, "step_share has no effect with the schedule 'polynomial'; set it back to 0.3"),
        ({"schedule": "step", "plateau_share": 0.5}, "plateau_share has no effect with the schedule 'step'"),
        ({"schedule": "cosine", "step_factor": 0.5}, "step_factor has no effect with the schedule 'cosine'"),
        ({"optimizer": "adamw"}, "learning_rate 0.01 is too high for 'adamw'; take about 0.001"),
        ({"warmup_share": 1.0}, "less than 1"),
        ({"schedule": "step", "step_share": 0.0}, "greater than 0"),
        ({"adam_betas": (0.9, 1.0), "optimizer": "adam", "learning_rate": 1e-3}, "less than 1"),
        ({"micro_batch_size": 0}, "greater than 0"),
        ({"compile": "yes"}, "'auto', 'on', 'graphs' or 'off'"),
    ],
)
def test_settings_of_training_that_contradict_each_other_are_refused(changes, said):
    """A setting without effect is refused."""
    with pytest.raises(ValidationError, match=said):
        TrainingSettings(**changes)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("schedule", ["polynomial", "cosine", "step", "plateau"])
def test_every_optimizer_goes_with_every_schedule(optimizer, schedule):
    """The plan loads as it was saved."""
    own = {"polynomial": {"schedule_power": 2.0}, "step": {"step_share": 0.5}, "plateau": {"step_factor": 0.5}}
    chosen = TrainingSettings(
        optimizer=optimizer,
        schedule=schedule,
        learning_rate=1e-3,
        adam_betas=(0.5, 0.9),
        warmup_share=0.1,
        micro_batch_size=1,
        **own.get(schedule, {}),
    )
    assert TrainingSettings.model_validate_json(chosen.model_dump_json()) == chosen


def test_blocks_of_a_residual_encoder_have_two_convolutions(plan):
    """Other numbers of convolutions are refused there, and nowhere else."""
    network = plan.configurations["3d_fullres"].architecture.model_dump()
    network["stages"][1]["convolutions"] = 3
    assert Architecture.model_validate(network).stages[1].convolutions == 3
    with pytest.raises(ValueError, match="blocks of a residual encoder have 2 convolutions"):
        Architecture.model_validate({**network, "residual": "block"})


# --- What is not built in ---------------------------------------------------------------------------------------------


def test_everything_is_built_in_unless_said_otherwise(plan, tmp_path):
    """Older plans without the field have the same meaning."""
    path = tmp_path / "plan.json"
    plan.save(path)
    content = json.loads(path.read_text())
    assert content["configurations"]["2d"].pop("network") is None
    assert content["configurations"]["2d"]["augmentation"].pop("custom") == []
    assert content["training"]["loss"].pop("custom") is None
    path.write_text(json.dumps(content))
    assert Plan.load(path) == plan


def test_names_of_what_is_not_built_in_are_kept(plan, tmp_path):
    """Plugins are saved with their settings."""
    network = {"name": "mine", "settings": {"depth": 3, "kinds": ["a", None]}}
    path = edited(plan, tmp_path / "plan.json", "configurations", "2d", "network", value=network)
    assert Plan.load(path).configurations["2d"].network == Plugin(**network)
    own = [{"name": "haze", "probability": 0.5}]
    path = edited(plan, path, "configurations", "2d", "augmentation", "custom", value=own)
    assert Plan.load(path).configurations["2d"].augmentation.custom == (CustomTransform(name="haze", probability=0.5),)
    path = edited(plan, path, "training", "loss", "custom", value={"name": "mine"})
    assert Plan.load(path).training.loss.custom == Plugin(name="mine")


@pytest.mark.parametrize(
    ("keys", "value", "text"),
    [
        (("configurations", "2d", "network"), {"name": "os.system"}, "network.name"),
        (("configurations", "2d", "network"), {"name": "mine", "code": "x"}, "network.code"),
        (("configurations", "2d", "augmentation", "custom"), [{"name": "haze", "probability": 2}], "probability"),
        (
            ("training", "loss"),
            {"custom": {"name": "mine"}, "overlap": "tversky"},
            "overlap has no effect with a loss of your own; set it back to dice",
        ),
    ],
)
def test_what_is_not_built_in_is_named_and_nothing_more(plan, tmp_path, keys, value, text):
    """Names contain neither code nor paths; settings without effect beside them are refused."""
    with pytest.raises(ArtifactError, match=text):
        Plan.load(edited(plan, tmp_path / "plan.json", *keys, value=value))


def test_own_transforms_are_refused_in_a_cascade(plan):
    """Transforms would not change the segmentation that is an input, though they move the image."""
    one = plan.configurations["3d_fullres"]
    values = {
        **one.model_dump(),
        "previous": "3d_lowres",
        "architecture": {**one.architecture.model_dump(), "in_channels": 4},
    }
    assert Configuration.model_validate(values).previous == "3d_lowres"
    values["augmentation"]["custom"] = [{"name": "haze"}]
    with pytest.raises(ValidationError, match=r"augmentation.custom must be empty where the segmentation of another"):
        Configuration.model_validate(values)
