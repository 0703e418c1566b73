"""The normalization schemes by the name of the channel."""

import pytest
from planning_cases import CHANNEL, fingerprint_of, info_of

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError
from autoseg.planning.normalization import choose_normalization, explain_normalization
from autoseg.planning.planner import PlanningOptions, make_plan

OPTIONS = PlanningOptions(dataset="Dataset001_A", memory_budget_bytes=8 * 10**9)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("noNorm", "none"),
        ("zscore", "zscore"),
        ("rescale_to_0_1", "rescale_to_0_1"),
        ("RGB_to_0_1", "rgb_to_0_1"),
        ("T2", "zscore"),
        ("R", "zscore"),
        ("CTA", "zscore"),
    ],
)
def test_the_name_chooses_the_scheme(name, scheme):
    """A scheme's name, in any case, selects the scheme; any other name means z-score."""
    (chosen,) = choose_normalization(fingerprint_of([(9, 9, 9)], [(1, 1, 1)]), info_of(name))
    assert chosen.scheme == scheme


def test_ct_takes_the_intensities_of_the_dataset():
    """CT is clipped to the percentiles of the foreground and scaled by its mean and deviation."""
    (chosen,) = choose_normalization(fingerprint_of([(9, 9, 9)], [(1, 1, 1)]), info_of("CT"))
    assert (chosen.lower, chosen.upper) == (CHANNEL.percentile_00_5, CHANNEL.percentile_99_5)
    assert (chosen.mean, chosen.std) == (CHANNEL.mean, CHANNEL.std)


@pytest.mark.parametrize(("kept_share", "only_nonzero"), [(0.5, True), (0.75, False), (1.0, False)])
def test_wide_borders_are_left_out_of_the_z_score(kept_share, only_nonzero):
    """If cropping keeps less than three quarters, z-scores leave out zeros; other schemes do not."""
    fingerprint = fingerprint_of([(30, 9, 9)] * 3, [(1, 1, 1)] * 3, channels=3, kept_share=kept_share)
    chosen = choose_normalization(fingerprint, info_of("T1", "CT", "rescale_to_0_1"))
    assert [channel.only_nonzero for channel in chosen] == [only_nonzero, False, False]


def test_channels_must_agree():
    """A fingerprint of other channels than those of dataset.json is refused."""
    with pytest.raises(DatasetError, match="names 2 channels, the fingerprint holds 1"):
        choose_normalization(fingerprint_of([(9, 9, 9)], [(1, 1, 1)]), info_of("T1", "T2"))


def test_windows_of_dataset_json_come_before_the_name():
    """A channel with windows takes them, is explained by them, and gives the network a channel for each."""
    stated = {"0": {"window_hu": [[-200, 300], [-1000, 400]]}}
    info = DatasetInfo.model_validate({**info_of("CT", "T2", "CT").model_dump(), "normalization": stated})
    fingerprint = fingerprint_of([(64, 64, 64)], [(1, 1, 1)], channels=3)
    chosen = choose_normalization(fingerprint, info)
    assert [channel.scheme for channel in chosen] == ["window", "zscore", "ct"]
    assert chosen[0].window_hu == ((-200, 300), (-1000, 400))
    sentence = next(iter(explain_normalization(chosen, info)))
    assert sentence == (
        "Channel 0 (CT): each of -200 to 300 and -1000 to 400 HU is clipped, and becomes -1 to 1, which makes 2 "
        "channels of the network, as dataset.json asks."
    )
    plan = make_plan(fingerprint, info, OPTIONS)
    assert {entry.architecture.in_channels for entry in plan.configurations.values()} == {4}
    single = make_plan(fingerprint, info_of("CT", "T2", "CT"), OPTIONS)
    assert plan.configurations["2d"].estimated_bytes > single.configurations["2d"].estimated_bytes


def test_every_channel_is_explained():
    """There is one sentence per channel, with its name and its numbers."""
    info = info_of("CT", "T2", "noNorm", "rescale_to_0_1", "rgb_to_0_1")
    fingerprint = fingerprint_of([(9, 9, 9)], [(1, 1, 1)], channels=5, kept_share=0.5)
    sentences = list(explain_normalization(choose_normalization(fingerprint, info), info))
    for sentence, name in zip(sentences, info.channel_names.values(), strict=True):
        assert f"({name})" in sentence
    assert "-90 to 210" in sentences[0]
    assert "not zero" in sentences[1]
