"""Windows of Hounsfield units in dataset.json."""

import json

import pytest

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError

TWO = {"0": "CT", "1": "PET"}


def parse(normalization: object, channel_names: dict[str, str] | None = None) -> DatasetInfo:
    """A dataset.json with this normalization."""
    content = {
        "channel_names": channel_names or {"0": "CT"},
        "normalization": normalization,
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
    }
    return DatasetInfo.parse(json.dumps(content), source="dataset.json")


@pytest.mark.parametrize(
    ("normalization", "channel_names", "windows"),
    [
        ({"window_hu": [-200, 300]}, {"0": "CT"}, {"0": ((-200, 300),)}),
        ({"0": {"window_hu": [-200, 300]}}, {"0": "ct"}, {"0": ((-200, 300),)}),
        ({"window_hu": [[-200, 300], [-1000, 400.5]]}, {"0": "CT"}, {"0": ((-200, 300), (-1000, 400.5))}),
        ({"1": {"window_hu": [0, 80]}}, {"0": "PET", "1": "CT"}, {"0": (), "1": ((0, 80),)}),
        ({}, TWO, {"0": (), "1": ()}),
        (None, TWO, {"0": (), "1": ()}),
    ],
)
def test_windows_belong_to_their_channel(tmp_path, normalization, channel_names, windows):
    """A single channel needs no number, each window makes a channel of the network, and saving keeps them."""
    info = parse(normalization, channel_names)
    assert {number: info.windows_of(number) for number in info.channel_names} == windows
    assert info.image_channels == sum(max(1, len(of_channel)) for of_channel in windows.values())
    info.save(tmp_path / "dataset.json")
    assert DatasetInfo.load(tmp_path / "dataset.json") == info


@pytest.mark.parametrize(
    ("normalization", "channel_names", "complaint"),
    [
        ({"window_hu": [300, -200]}, None, "lower end of a window comes first and is below the upper one, not [300, -"),
        ({"window_hu": [40, 40]}, None, "below the upper one, not [40, 40]"),
        ({"window_hu": [-200]}, None, "a window has two ends, such as [-200, 300], not [-200]"),
        ({"window_hu": [-200, 300, 400]}, None, "a window has two ends"),
        ({"window_hu": [[-200, 300], 400]}, None, "a window has two ends, such as [-200, 300], not 400"),
        ({"window_hu": ["-200", 300]}, None, "the ends of a window are numbers of Hounsfield units, not '-200'"),
        ({"window_hu": [None, 300]}, None, "the ends of a window are numbers of Hounsfield units, not None"),
        ({"window_hu": [True, 300]}, None, "numbers of Hounsfield units, not True"),
        ({"window_hu": [float("nan"), 300]}, None, "numbers of Hounsfield units, not nan"),
        ({"window_hu": [0, float("inf")]}, None, "numbers of Hounsfield units, not inf"),
        ({"window_hu": []}, None, "give a window such as [-200, 300], or a list of such windows, not []"),
        ({"window_hu": None}, None, "give a window such as [-200, 300]"),
        ({"window_hu": 300}, None, "give a window such as [-200, 300]"),
        ({"window_hu": [[0, 80], [0, 80]]}, None, "the window [0, 80] stands twice"),
        ({"0": {}}, None, "normalization.0.window_hu: Field required"),
        ({"0": {"window_hu": [0, 80], "level": 3}}, None, "normalization.0.level"),
        ({"window_hu": [0, 80]}, TWO, "must say which of the 2 channels has the window"),
        ({"1": {"window_hu": [0, 80]}}, TWO, "channel 1 is 'PET', and only a channel named 'CT' holds Hounsfield"),
        ({"2": {"window_hu": [0, 80]}}, TWO, "there is no channel '2', only 0, 1"),
        ("window", None, "normalization"),
    ],
)
def test_windows_that_mean_nothing_are_refused(normalization, channel_names, complaint):
    """One line names the field and what is wrong with it."""
    with pytest.raises(DatasetError) as refused:
        parse(normalization, channel_names)
    assert complaint in str(refused.value)
    assert "normalization" in str(refused.value)
    assert "\n" not in str(refused.value)
