"""Reads segments of DICOM segmentations: binary, fractional, and label maps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.decoding import decode_frames
from autoseg.dicom.functional_groups import FunctionalGroups, cosines_of, spacing_of, text_of, vector_of
from autoseg.dicom.mask_placement import MaskGrid
from autoseg.dicom.pixel_layout import UNCOMPRESSED
from autoseg.dicom.safe_reading import check_nested_items, damage_named, damaged, read_dataset
from autoseg.imaging.geometry import Geometry, Vector

HALF = 0.5
"""Share of a fractional segment from which a voxel belongs to it."""

MOST_SEGMENTS = 65_535
"""Segment numbers have 16 bits. Source: PS3.3, section C.8.20.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _SegmentFrame:
    """A frame of a segmentation: its segment (None in a label map), and where it lies."""

    index: int
    segment: int | None
    position_mm: Vector
    cosines: tuple[Vector, Vector]
    spacing_mm: tuple[float, float]


def list_segments(dataset: Any, path: Path) -> dict[int, str]:
    """Returns the names of the segments of a segmentation, by number.

    Raises:
        ImageError: It states none, or far too many.
    """
    segments = dataset.get("SegmentSequence") or ()
    if not 0 < len(segments) <= MOST_SEGMENTS:
        raise damaged(path, f"it states {len(segments)} segments")
    names = {}
    for segment in segments:
        number = int(segment.get("SegmentNumber") or 0)
        names[number] = text_of(segment.get("SegmentLabel")) or f"segment_{number}"
    return names


def read_segments(path: Path, geometry: Geometry) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields the name and mask of each segment of a segmentation, in the order of their numbers.

    A voxel belongs to a fractional segment from a half on. Only one mask is in memory at a time; a label map is decoded
    once, and stays in memory as it is stored.

    Args:
        path: The DICOM file.
        geometry: Grid of the series that it was drawn on.

    Yields:
        Name, and mask of shape (z, y, x) on that grid; empty masks too.

    Raises:
        ImageError: The file is damaged, or does not lie on the series.
    """
    dataset, _ = read_dataset(path, with_pixels=True)
    with damage_named(path):
        names, frames = list_segments(dataset, path), _list_frames(dataset, path)
        kind, grid = str(dataset.get("SegmentationType") or "BINARY"), MaskGrid(geometry, path)
        threshold = HALF * float(dataset.get("MaximumFractionalValue") or 1) if kind == "FRACTIONAL" else HALF
        label_maps = {frame.index: _read_frame(dataset, frame.index, path) for frame in frames if frame.segment is None}
    for number, name in sorted(names.items()):
        if kind == "LABELMAP" and number == 0:
            continue  # the background. Source: Supplement 243 of the standard
        mask = np.zeros(geometry.shape, dtype=bool)
        with damage_named(path):
            for frame in frames:
                if frame.segment in (None, number):
                    if frame.segment is None:
                        member = label_maps[frame.index] == number
                    else:
                        member = _read_frame(dataset, frame.index, path) >= threshold
                    grid.place(mask, member, frame.position_mm, frame.cosines, frame.spacing_mm)
        yield name, mask


def _list_frames(dataset: Any, path: Path) -> list[_SegmentFrame]:
    count = int(dataset.get("NumberOfFrames") or 1)
    check_nested_items(dataset, "PerFrameFunctionalGroupsSequence", count, path)
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if len(groups) != count:
        raise damaged(path, f"it describes {len(groups)} of {count} frames")
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), None)
    return [_read_place(FunctionalGroups(group, shared, dataset), index, path) for index, group in enumerate(groups)]


def _read_place(group: FunctionalGroups, index: int, path: Path) -> _SegmentFrame:
    orientation = group.find("PlaneOrientationSequence", "ImageOrientationPatient")
    across, down = (vector_of(cosines_of(orientation, start)) for start in (0, 3))
    position = vector_of(group.find("PlanePositionSequence", "ImagePositionPatient"))
    spacing = spacing_of(group.find("PixelMeasuresSequence", "PixelSpacing"))
    if across is None or down is None or position is None or spacing is None:
        raise damaged(path, f"it does not state where frame {index + 1} lies")
    number = group.find("SegmentIdentificationSequence", "ReferencedSegmentNumber")
    return _SegmentFrame(
        index=index,
        segment=None if number is None else int(number),
        position_mm=position,
        cosines=(across, down),
        spacing_mm=spacing,
    )


def _read_frame(dataset: Any, index: int, path: Path) -> NDArray[Any]:
    """Returns the pixels of a frame, shape (rows, columns); single bits are packed without gaps between frames."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    syntax, size = str(dataset.file_meta.TransferSyntaxUID), rows * columns
    if int(dataset.BitsAllocated) != 1 or syntax not in UNCOMPRESSED:
        [pixels] = decode_frames(dataset, [index])
        return pixels
    first = index * size
    packed = np.frombuffer(dataset.PixelData, np.uint8)[first // 8 : (first + size + 7) // 8]
    bits = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + size]
    if bits.size < size:
        raise damaged(path, f"its pixels end before frame {index + 1}")
    return bits.reshape(rows, columns)
