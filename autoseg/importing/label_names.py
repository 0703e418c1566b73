"""Names of the values of masks, from the tables that ITK-SNAP, 3D Slicer and FreeSurfer keep of them.

    ITK-SNAP            1   255    0    0        1  1  1    "liver"       labels.txt, labels.label
    3D Slicer           1 liver 255 0 0 255                               labels.ctbl
    FreeSurfer          17  Left-Hippocampus   220 216 20 0               FreeSurferColorLUT.txt

Source: the files that these programs write.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.datasets.info import BACKGROUND, IGNORE
from autoseg.runtime.reporting import Reporter

TABLE_ENDINGS = (".label", ".lbl", ".ctbl", ".lut", ".txt")
LARGEST_TABLE = 2**20
"""Bytes of a table that is read. Decision: FreeSurfer's table of all structures has a tenth of that."""

ITK_SNAP_LINE = re.compile(r'^\s*(\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*$')
COLOUR_LINE = re.compile(r"^\s*(\d+)\s+(\S.*?)\s+\d+\s+\d+\s+\d+\s+\d+\s*$")


def parse_names(text: str) -> dict[int, str]:
    r"""Returns the names of values that a table states; empty if the text is no such table.

    Example:
        >>> parse_names('# labels\n0 0 0 0 0 0 0 "Clear Label"\n1 255 0 0 1 1 1 "left lung"')
        {0: 'Clear Label', 1: 'left lung'}
        >>> parse_names("0 Unknown 0 0 0 0\n17  Left-Hippocampus  220 216 20 0")
        {0: 'Unknown', 17: 'Left-Hippocampus'}
        >>> parse_names("Some notes about 1 patient")
        {}
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "//"))]
    for pattern in (ITK_SNAP_LINE, COLOUR_LINE):
        matches = [pattern.match(line) for line in lines]
        if lines and all(matches):
            return {int(match[1]): match[2].strip() for match in matches if match is not None and match[2].strip()}
    return {}


def name_labels(numbers: Mapping[int, int], folders: Sequence[Path], reporter: Reporter) -> dict[str, int]:
    """Returns the names of labels and their numbers, for dataset.json.

    A value that no table names is "label_VALUE". If two tables lie there, none counts, since either may be wrong.

    Args:
        numbers: Value in the masks to number of the label; 0 is the background.
        folders: Folders in which a table may lie.
        reporter: Is told which table the names are from.
    """
    tables = {path: names for folder in folders for path in _list_tables(folder) if (names := _read(path))}
    named: dict[int, str] = {}
    if len(tables) == 1:
        [(path, named)] = tables.items()
        reporter.say(f"The names of the labels are those of {path}")
    labels = {BACKGROUND: 0}
    for value, number in numbers.items():
        name = named.get(value, f"label_{value}")
        if name in labels or name.lower() in (BACKGROUND, IGNORE):
            name = f"label_{value}"
        if number not in labels.values():
            labels[name] = number
    return labels


def _list_tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in TABLE_ENDINGS)


def _read(path: Path) -> dict[int, str]:
    try:
        if path.stat().st_size > LARGEST_TABLE:
            return {}
        return parse_names(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}
