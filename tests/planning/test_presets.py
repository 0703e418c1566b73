"""The table of presets."""

from autoseg.plan import PRESET_NAMES, TrainingSettings
from autoseg.planning.presets import PRESETS


def test_every_name_has_a_preset():
    """The names in the plan and the table hold together."""
    assert tuple(PRESETS) == PRESET_NAMES


def test_the_standard_schedule_is_the_default():
    """A plan of the standard preset trains as TrainingSettings says."""
    assert PRESETS["standard"].training == TrainingSettings()


def test_small_is_smaller_in_every_respect():
    """No number of the small preset exceeds the standard one's, and it bounds patch and batch."""
    small, standard = PRESETS["small"], PRESETS["standard"]
    assert small.base_features < standard.base_features
    assert max(small.convolutions) < max(standard.convolutions)
    for dimensions in (2, 3):
        assert small.limits(dimensions).features < standard.limits(dimensions).features
        assert small.limits(dimensions).patch_voxels is not None
        assert small.limits(dimensions).batch_size in (2, 3, 4)
    steps = [preset.training.epochs * preset.training.steps_per_epoch for preset in (small, standard)]
    assert steps[0] < steps[1]
