"""How the scans of a dataset were acquired, as far as their DICOM headers said."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoseg.datasets.names import compose

MOST_VALUES = 8
"""Values of a tag that are listed; of more, the most frequent ones."""

Tags = Mapping[str, Sequence[Mapping[str, str]]]
"""Name of a case to the tags of each channel, by keyword."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRow:
    """A tag in all cases.

    Attributes:
        keyword: Its keyword in the standard.
        values: Its values with their numbers of series, the most frequent first; at most `MOST_VALUES`.
        others: How many values are not listed.
    """

    keyword: str
    values: tuple[tuple[str, int], ...]
    others: int


def count_tags(tags: Tags) -> list[TagRow]:
    """Counts the values of each tag over all series.

    Example:
        >>> rows = count_tags({"a": [{"Modality": "MR"}], "b": [{"Modality": "MR", "EchoTime": "90"}]})
        >>> [(row.keyword, row.values) for row in rows]
        [('Modality', (('MR', 2),)), ('EchoTime', (('90', 1), ('not stated', 1)))]
    """
    series = [channel for channels in tags.values() for channel in channels]
    keywords = list(dict.fromkeys(keyword for channel in series for keyword in channel))
    rows = []
    for keyword in keywords:
        counts = Counter(channel.get(keyword, "not stated") for channel in series)
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        rows.append(
            TagRow(keyword=keyword, values=tuple(ordered[:MOST_VALUES]), others=max(0, len(ordered) - MOST_VALUES))
        )
    return rows


def describe_cases(tags: Tags) -> dict[str, str]:
    """Describes how each case was acquired by what differs between cases; all tags of a single case.

    Returns:
        Name of a case to its tags in one line, channels separated by bars; empty if nothing differs.

    Example:
        >>> describe_cases({"a": [{"Modality": "MR", "EchoTime": "80"}], "b": [{"Modality": "MR", "EchoTime": "90"}]})
        {'a': 'EchoTime 80', 'b': 'EchoTime 90'}
    """
    differing = {row.keyword for row in count_tags(tags) if len(tags) == 1 or len(row.values) > 1}
    texts = {}
    for name, channels in tags.items():
        parts = [
            ", ".join(f"{keyword} {value}" for keyword, value in channel.items() if keyword in differing)
            for channel in channels
        ]
        texts[compose(name)] = " | ".join(parts) if any(parts) else ""
    return texts
