"""When training lets channels be missing: if scans may lack them, by their description or as some cases show."""

import pytest

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.planning.augmentation_choice import may_lack_channels

FULL, EMPTY = (0.0, 9.0), (0.0, 0.0)
FACTS = ChannelFacts(mean=1.0, median=1.0, std=1.0, minimum=0.0, maximum=9.0, percentile_00_5=0.0, percentile_99_5=9.0)


def fingerprint_of(*intensities):
    """A fingerprint of cases with these intensities of their channels."""
    cases = [
        CaseFacts(name=f"case_{number}", shape_after_crop=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0), intensities=channels)
        for number, channels in enumerate(intensities)
    ]
    channels = (FACTS,) * len(intensities[0])
    return Fingerprint(cases=tuple(cases), channels=channels, median_relative_size_after_crop=1.0)


@pytest.mark.parametrize(
    ("intensities", "titles", "stated", "expected"),
    [
        ([(FULL, FULL), (FULL, FULL)], ("T1", "T2"), False, False),
        ([(FULL, FULL), (FULL, FULL)], ("T1", "T2"), True, True),
        ([(FULL, FULL), (FULL, EMPTY)], ("T1", "T2"), False, True),
        ([(FULL, EMPTY), (FULL, EMPTY)], ("T1", "T2"), False, False),  # the channel is always empty
        ([(FULL, FULL), (EMPTY, EMPTY)], ("T1", "T2"), False, False),  # the whole image is
        ([(FULL, FULL), (FULL, EMPTY)], ("rgb_to_0_1", "rgb_to_0_1"), False, False),  # a picture without blue
        ([(FULL,), (EMPTY,)], ("T1",), False, False),
        ([(FULL,), (FULL,)], ("T1",), True, False),
    ],
)
def test_channels_may_be_missing_if_it_is_said_or_seen(intensities, titles, stated, expected):
    """A single channel is never missing, nor is a colour, nor what no case has."""
    names = {str(number): title for number, title in enumerate(titles)}
    info = DatasetInfo(
        channel_names=names, labels={"background": 0, "liver": 1}, file_ending=".nii.gz", missing_channels=stated
    )
    assert may_lack_channels(fingerprint_of(*intensities), info) is expected
