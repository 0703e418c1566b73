"""Reading what nnU-Net wrote about a dataset."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import write_json

from autoseg.datasets.fingerprint import ChannelFacts, Fingerprint
from autoseg.datasets.nnunet_files import read_fingerprint, read_splits
from autoseg.errors import ArtifactError

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "plans").glob("*/dataset_fingerprint.json"))

INTENSITIES = {
    "mean": 99.5,
    "median": 90.0,
    "std": 39.25,
    "min": -3.0,
    "max": 486.0,
    "percentile_99_5": 207.0,
    "percentile_00_5": 21.0,
}
CONTENT = {
    "spacings": [[3.0, 0.5, 0.5], [1, 1, 1]],
    "shapes_after_crop": [[20, 320, 256], [36, 50, 35]],
    "foreground_intensity_properties_per_channel": {"1": {**INTENSITIES, "mean": -7.0}, "0": INTENSITIES},
    "median_relative_size_after_cropping": 0.75,
}
SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a"], "val": ["c", "b"]}]


def refusal(reader, path):
    """The line with which a file is refused."""
    with pytest.raises(ArtifactError) as caught:
        reader(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    assert "as nnU-Net v2 writes it" in line
    return line


# --- The fingerprint --------------------------------------------------------------------------------------------------


def test_each_field_finds_its_place(tmp_path):
    """Cases keep their order, channels are in the order of their numbers, and what the file lacks has its default."""
    write_json(tmp_path / "dataset_fingerprint.json", CONTENT)
    fingerprint = read_fingerprint(tmp_path / "dataset_fingerprint.json")
    first, second = fingerprint.cases
    assert (first.shape_after_crop, first.spacing_mm) == ((20, 320, 256), (3.0, 0.5, 0.5))
    assert (second.shape_after_crop, second.spacing_mm) == ((36, 50, 35), (1.0, 1.0, 1.0))
    assert (first.name, first.shape, first.orientation, first.intensities, first.labels) == ("", None, None, (), ())
    assert fingerprint.channels[0] == ChannelFacts(
        mean=99.5, median=90, std=39.25, minimum=-3, maximum=486, percentile_00_5=21, percentile_99_5=207
    )
    assert [channel.mean for channel in fingerprint.channels] == [99.5, -7]
    assert fingerprint.median_relative_size_after_crop == 0.75


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_golden_files_are_read_whole(path, tmp_path):
    """Files as the reference method writes them; the result can be saved as this project's own."""
    content = json.loads(path.read_text())
    fingerprint = read_fingerprint(path)
    np.testing.assert_array_equal([case.spacing_mm for case in fingerprint.cases], content["spacings"])
    np.testing.assert_array_equal([case.shape_after_crop for case in fingerprint.cases], content["shapes_after_crop"])
    assert len(fingerprint.channels) == len(content["foreground_intensity_properties_per_channel"])
    fingerprint.save(tmp_path / "fingerprint.json")
    assert Fingerprint.load(tmp_path / "fingerprint.json") == fingerprint


def test_there_are_golden_files():
    """The test above looks at some."""
    assert len(GOLDEN) == 6


def test_channels_count_by_number(tmp_path):
    """Channel 10 comes after channel 9, not after channel 1."""
    channels = {str(number): {**INTENSITIES, "mean": number} for number in range(12)}
    path = tmp_path / "dataset_fingerprint.json"
    path.write_text(json.dumps({**CONTENT, "foreground_intensity_properties_per_channel": channels}, sort_keys=True))
    assert [channel.mean for channel in read_fingerprint(path).channels] == list(range(12))


def test_time_grows_no_faster_than_the_number_of_cases(tmp_path):
    """20 times as many cases take less than 60 times as long; the processor's time counts, not that of the clock."""
    random = np.random.default_rng(0)
    path = tmp_path / "dataset_fingerprint.json"
    seconds = {}
    for cases in (250, 5000):
        spacings, shapes = random.uniform(0.1, 5, (cases, 3)).tolist(), random.integers(1, 512, (cases, 3)).tolist()
        write_json(path, {**CONTENT, "spacings": spacings, "shapes_after_crop": shapes})
        times = []
        for _ in range(5):
            started = time.process_time()
            fingerprint = read_fingerprint(path)
            times.append(time.process_time() - started)
        assert len(fingerprint.cases) == cases
        seconds[cases] = min(times)
    assert seconds[5000] < 60 * seconds[250]


WRONG_FIELDS = [
    ({"spacings": [[1, 1, 1]]}, "shapes_after_crop holds 2 cases, spacings holds 1"),
    ({"spacings": [[1, 1, 1], [1, 0, 1]]}, "spacings.1.1: "),
    ({"spacings": [[1, 1, 1], [1, -2.0, 1]]}, "spacings.1.1: "),
    ({"spacings": [[1, 1, float("nan")], [1, 1, 1]]}, "spacings.0.2: "),
    ({"spacings": [[1, 1, float("inf")], [1, 1, 1]]}, "spacings.0.2: "),
    ({"spacings": [[1, 1], [1, 1, 1]]}, "spacings.0.2: "),
    ({"spacings": [[1, 1, 1, 1], [1, 1, 1]]}, "spacings.0: "),
    ({"spacings": [], "shapes_after_crop": []}, "spacings: "),
    ({"spacings": "fine"}, "spacings: "),
    ({"shapes_after_crop": [[1, 1, 1], [4, 4, 0]]}, "shapes_after_crop.1.2: "),
    ({"shapes_after_crop": [[1, 1, 1], [4, 4, 4.5]]}, "shapes_after_crop.1.2: "),
    ({"shapes_after_crop": [[1, 1, None], [4, 4, 4]]}, "shapes_after_crop.0.2: "),
    ({"foreground_intensity_properties_per_channel": {}}, "foreground_intensity_properties_per_channel: "),
    ({"foreground_intensity_properties_per_channel": [INTENSITIES]}, "foreground_intensity_properties_per_channel: "),
    (
        {"foreground_intensity_properties_per_channel": {"0": INTENSITIES, "2": INTENSITIES}},
        "the keys of foreground_intensity_properties_per_channel must be '0', '1', ... without gaps, not ['0', '2']",
    ),
    ({"foreground_intensity_properties_per_channel": {"T1": INTENSITIES}}, "without gaps, not ['T1']"),
    (
        {"foreground_intensity_properties_per_channel": {"0": {**INTENSITIES, "std": float("nan")}}},
        "foreground_intensity_properties_per_channel.0.std: ",
    ),
    (
        {"foreground_intensity_properties_per_channel": {"0": {**INTENSITIES, "std": -1}}},
        "foreground_intensity_properties_per_channel.0.std: ",
    ),
    ({"median_relative_size_after_cropping": 0}, "median_relative_size_after_cropping: "),
    ({"median_relative_size_after_cropping": 1.5}, "median_relative_size_after_cropping: "),
]


@pytest.mark.parametrize(("change", "text"), WRONG_FIELDS)
def test_impossible_values_are_refused_by_field(tmp_path, change, text):
    """One line: the file, the field, what is wrong, and what to do."""
    path = tmp_path / "dataset_fingerprint.json"
    write_json(path, {**CONTENT, **change})
    assert text in refusal(read_fingerprint, path)


@pytest.mark.parametrize("key", list(CONTENT))
def test_a_missing_key_is_named(tmp_path, key):
    """All four of them are needed."""
    path = tmp_path / "dataset_fingerprint.json"
    write_json(path, {other: value for other, value in CONTENT.items() if other != key})
    assert f"{path}: {key}: Field required" in refusal(read_fingerprint, path)


@pytest.mark.parametrize("key", list(INTENSITIES))
def test_a_missing_number_of_a_channel_is_named(tmp_path, key):
    """All seven of them are needed."""
    path = tmp_path / "dataset_fingerprint.json"
    channel = {other: value for other, value in INTENSITIES.items() if other != key}
    write_json(path, {**CONTENT, "foreground_intensity_properties_per_channel": {"0": channel}})
    assert f"foreground_intensity_properties_per_channel.0.{key}: Field required" in refusal(read_fingerprint, path)


# --- The splits -------------------------------------------------------------------------------------------------------


def test_folds_keep_their_names_and_order(tmp_path):
    """Training cases first, held-out ones second; further keys are left alone."""
    path = tmp_path / "splits_final.json"
    write_json(path, [SPLITS[0], {**SPLITS[1], "note": "by hand"}])
    assert read_splits(path) == [(["b", "c"], ["a"]), (["a"], ["c", "b"])]


@given(st.lists(st.fixed_dictionaries({key: st.lists(st.text(min_size=1)) for key in ("train", "val")}), min_size=1))
@settings(max_examples=30, deadline=None)
def test_any_names_are_read_as_they_are(tmp_path_factory, folds):
    """Names of any letters, in any number."""
    path = tmp_path_factory.getbasetemp() / "splits_final.json"
    write_json(path, folds)
    assert read_splits(path) == [(fold["train"], fold["val"]) for fold in folds]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "array"),
        ([], "at least 1 item"),
        (["a"], "0: "),
        ([{"train": ["a"]}], "0.val: Field required"),
        ([SPLITS[0], {"val": ["a"]}], "1.train: Field required"),
        ([{"train": ["a", 7], "val": ["b"]}], "0.train.1: "),
        ([{"train": ["a"], "val": [None]}], "0.val.0: "),
        ([{"train": ["a"], "val": [""]}], "0.val.0: "),
        ([{"train": "abc", "val": ["b"]}], "0.train: "),
    ],
)
def test_what_is_no_list_of_folds_is_refused(tmp_path, content, text):
    """One line: the file, the entry, what is wrong, and what to do."""
    path = tmp_path / "splits_final.json"
    write_json(path, content)
    assert text in refusal(read_splits, path)


# --- Files that are no JSON at all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [read_fingerprint, read_splits])
@pytest.mark.parametrize(
    "content",
    [b"", b"not JSON", b'{"spacings": [', b"[" * 100_000, b"\xff\xfe\x00", b"null", b"3"],
    ids=["empty", "text", "cut off", "deep", "bytes", "null", "number"],
)
def test_what_is_not_its_json_is_refused(tmp_path, reader, content):
    """Whatever the file holds, there is one line and no traceback."""
    path = tmp_path / "file.json"
    path.write_bytes(content)
    refusal(reader, path)


@pytest.mark.parametrize("reader", [read_fingerprint, read_splits])
def test_a_missing_file_is_named(tmp_path, reader):
    """Neither a wrong path nor a folder is a crash."""
    assert "No such file" in refusal(reader, tmp_path / "missing.json")
    assert "cannot read" in refusal(reader, tmp_path)
