"""Amounts are read as people write them, and wrong ones are refused."""

import pytest

from autoseg.errors import UsageError
from autoseg.runtime.units import describe_duration, describe_memory, parse_duration, parse_memory


@pytest.mark.parametrize(
    ("text", "amount"), [("8GB", 8_000_000_000), ("11.5 GiB", int(11.5 * 2**30)), ("800mb", 800_000_000)]
)
def test_memory_is_read(text, amount):
    """Units may be decimal or binary, with or without a blank."""
    assert parse_memory(text) == amount


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("2 h", 7200), ("1.5d", 129600)])
def test_durations_are_read(text, seconds):
    """Units are seconds, minutes, hours and days."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "GB", "-8GB", "0GB", "8 bananas", "nan GB"])
def test_what_is_no_amount_is_refused(text):
    """The error quotes the text and shows a right example."""
    with pytest.raises(UsageError, match="such as 8GB"):
        parse_memory(text)


def test_amounts_are_described_for_people():
    """The texts have whole words and few digits."""
    assert [describe_duration(value) for value in (42, 303, 7500)] == ["42 s", "5 min 03 s", "2 h 05 min"]
    assert [describe_memory(value) for value in (812e6, 7.94e9)] == ["812 MB", "7.9 GB"]
