"""The header of an NRRD file: the kinds of its axes, and the notes that programs leave in it.

Source: the definition of the format, NRRD0005. A header is lines of text that end with an empty one: "field: value" for
the format's own fields, "key:=value" for anything else.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"NRRD000"
END = re.compile(rb"\r?\n\r?\n")
ALIASES = {
    "datafile": "data file",
    "axismins": "axis mins",
    "centerings": "centers",
    "byteskip": "byte skip",
    "lineskip": "line skip",
}
"""Other names of fields that the format allows."""

BLOCK_BYTES = 2**14
"""Bytes that are read first, which hold almost every header."""

LONGEST_HEADER = 2**22
"""Bytes of a header that are read at most. Decision: thousands of segments take some hundred bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NrrdHeader:
    """The header of an NRRD file.

    Attributes:
        fields: Name of each of the format's own fields, in lower case and without aliases, to its text.
        notes: Key of each further line to its text.
        length: Bytes of the header, with the empty line that ends it.
    """

    fields: dict[str, str]
    notes: dict[str, str]
    length: int

    @property
    def has_series(self) -> bool:
        """Whether an axis lists volumes, such as those over time; colours, vectors and layers of segments do not."""
        has_segments = any(key.startswith("Segment0_") for key in self.notes)
        return "list" in self.fields.get("kinds", "").split() and not has_segments


def read_nrrd_header(path: Path) -> NrrdHeader | None:
    """Reads the header of an NRRD file, whatever its name says; None if it does not begin as NRRD files do.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(BLOCK_BYTES)
        if not start.startswith(MAGIC):
            return None
        while END.search(start) is None and len(start) < LONGEST_HEADER and (block := file.read(2**20)):
            start += block
    return parse_nrrd_header(start)


def parse_nrrd_header(start: bytes) -> NrrdHeader | None:
    r"""Parses the first bytes of a file; None if they are no NRRD header.

    Example:
        >>> header = parse_nrrd_header(b"NRRD0004\nkinds: list domain\nmodality:=MR\n\n\1\2")
        >>> header.fields, header.notes, header.has_series, header.length
        ({'kinds': 'list domain'}, {'modality': 'MR'}, True, 42)
    """
    if not start.startswith(MAGIC):
        return None
    end = END.search(start)
    head = start if end is None else start[: end.start()]
    text = head.replace(b"\r\n", b"\n").decode("utf-8", "replace")
    fields: dict[str, str] = {}
    notes: dict[str, str] = {}
    for line in text.split("\n")[1:]:
        if line.startswith("#"):
            continue
        key, is_note, value = line.partition(":=")
        if is_note:
            notes[key] = value.replace("\\n", "\n").strip()
            continue
        name, is_field, value = line.partition(": ")
        if is_field:
            lower = name.strip().lower()
            fields[ALIASES.get(lower, lower)] = value.strip()
    return NrrdHeader(fields=fields, notes=notes, length=len(start) if end is None else end.end())
