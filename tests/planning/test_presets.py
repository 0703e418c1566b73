"""The tables of presets and rules."""

from dataclasses import replace
from itertools import pairwise

from autoseg.planning.plan import PRESET_NAMES, RULES_NAMES
from autoseg.planning.presets import BATCH_SHARE, LADDER, PRESETS, RULES
from autoseg.planning.settings import TrainingSettings


def test_every_name_has_an_entry():
    """The names in the plan and the tables agree, and each preset belongs to one set of rules."""
    assert set(PRESETS) == set(PRESET_NAMES)
    assert tuple(RULES) == RULES_NAMES
    assert sorted(name for rules in RULES.values() for name in rules.presets) == sorted(PRESET_NAMES)


def test_presets_of_the_reference_count_feature_maps():
    """The rules "nnunet" have exactly these; only there a batch may hold a whole dataset."""
    for rules in RULES_NAMES:
        for name in RULES[rules].presets:
            assert (PRESETS[name].reference is not None) == (rules == "nnunet")
            assert rules == "nnunet" or PRESETS[name].batch_share == BATCH_SHARE


def test_the_ladder_rises():
    """Each preset has more memory than the one before and a network at least as deep, with one schedule."""
    for lower, higher in pairwise(PRESETS[name] for name in LADDER):
        assert lower.memory_bytes < higher.memory_bytes
        assert sum(lower.blocks) <= sum(higher.blocks)
        assert replace(lower, memory_bytes=0, blocks=()) == replace(higher, memory_bytes=0, blocks=())
        assert higher.training == TrainingSettings()


def test_small_is_smaller_in_every_respect():
    """No number of the small preset exceeds those of the smallest for GPUs, and it bounds patch and batch."""
    small, standard = PRESETS["small"], PRESETS[LADDER[0]]
    assert small.base_features < standard.base_features
    assert max(small.convolutions) < max(standard.convolutions)
    for dimensions in (2, 3):
        assert small.limits(dimensions).features < standard.limits(dimensions).features
        assert small.limits(dimensions).patch_voxels is not None
        assert small.limits(dimensions).batch_size in (2, 3, 4)
    steps = [preset.training.epochs * preset.training.steps_per_epoch for preset in (small, standard)]
    assert steps[0] < steps[1]
