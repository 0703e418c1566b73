"""Segmentations of 3D Slicer (.seg.nrrd): layers of label values, and notes that name each segment.

    Segment0_Name:=liver    Segment0_Layer:=0    Segment0_LabelValue:=1

Segments that overlap lie in different layers, where the same value may stand for another segment. The file is mostly
cut to what was drawn; its origin is that of its own first voxel. Source: the documentation of 3D Slicer, segmentations.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from autoseg.imaging.volume_files.nrrd_header import read_nrrd_header

SEGMENT_NOTE = re.compile(r"^Segment(\d+)_(\w+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment of a file.

    Attributes:
        name: Its name, or its identifier if it has none.
        layer: Layer that it lies in, from 0: the channel of the image.
        value: Value of its voxels there.
    """

    name: str
    layer: int
    value: int


def read_segments(path: Path) -> tuple[Segment, ...]:
    """Reads the names of the segments of a file, in their order; empty if it is no segmentation of 3D Slicer.

    Segments of the same name get their numbers: "tumour", "tumour_2".
    """
    try:
        header = read_nrrd_header(path)
    except OSError:  # whoever reads the voxels names it
        return ()
    return () if header is None else parse_segments(header.notes)


def parse_segments(notes: dict[str, str]) -> tuple[Segment, ...]:
    """Returns the segments that the notes of a header describe.

    Files of older versions hold one segment a layer, and neither layers nor values.

    Example:
        >>> parse_segments({"Segment0_ID": "Segment_1", "Segment0_Name": "liver", "Segment0_LabelValue": "3"})
        (Segment(name='liver', layer=0, value=3),)
    """
    described: dict[int, dict[str, str]] = {}
    for key, value in notes.items():
        if match := SEGMENT_NOTE.match(key):
            described.setdefault(int(match[1]), {})[match[2]] = value
    segments: list[Segment] = []
    for number, note in sorted(described.items()):
        name = note.get("Name") or note.get("ID") or f"segment_{number + 1}"
        taken = sum(segment.name == name or segment.name.startswith(f"{name}_") for segment in segments)
        layer, value = note.get("Layer", ""), note.get("LabelValue", "")
        segments.append(
            Segment(
                name=name if not taken else f"{name}_{taken + 1}",
                layer=int(layer) if layer.isdecimal() else number,
                value=int(value) if value.isdecimal() else 1,
            )
        )
    return tuple(segments)
