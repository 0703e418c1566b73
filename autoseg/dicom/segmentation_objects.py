"""Segmentations as DICOM objects: binary segments, which may overlap, or a label map; on the slices of their source."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.object_content import SlicedSegmentation, describe_object, describe_segments, may_overlap
from autoseg.dicom.quiet import quietly
from autoseg.dicom.single_frames import restore_classes, stand_in
from autoseg.dicom.source import Source
from autoseg.errors import UsageError
from autoseg.imaging.targets import Numbers
from autoseg.runtime.artifact import atomic_file

EXPLICIT_LITTLE_ENDIAN, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
"""Transfer syntaxes. Binary frames can only be written as they are; label maps become forty times smaller by RLE, which
every common reader knows, unlike JPEG-LS."""

RLE_ENCODER = "pydicom"
"""GDCM's encoder, which pydicom would prefer, ends the process for frames of an odd number of pixels."""


def write_segmentation(path: Path, segmentation: SlicedSegmentation, kind: Literal["seg", "labelmap"] = "seg") -> None:
    """Writes a segmentation object, whole or not at all; its structures become segments 1, 2, ...

    Slices without any structure have no frame.

    Args:
        path: The file.
        segmentation: The segmentation.
        kind: "seg" for binary segments, "labelmap" for a label map, which structures that overlap cannot have.

    Raises:
        UsageError: A label map was asked for, and structures may overlap.
        WriteError: The file cannot be written.
    """
    check_kind(kind, segmentation.structures)
    stack = _stack_segments if segmentation.may_overlap else _number_segments
    segments = stack(segmentation.label, segmentation.structures)
    headers, segments = match_frames(segments, segmentation.source)
    with quietly():
        written = _build(headers, segments, segmentation, kind)
        restore_classes(written, segmentation.source.headers)
        if kind == "labelmap":
            written.compress(RLE, encoding_plugin=RLE_ENCODER, generate_instance_uid=False)
        with atomic_file(path) as writing:
            written.save_as(writing)


def check_kind(kind: str, structures: Mapping[str, Numbers]) -> None:
    """Checks that an object of a kind can hold structures.

    Raises:
        UsageError: A label map was asked for, and structures may overlap.
    """
    if kind == "labelmap" and may_overlap(structures):
        what = "structures of the model may overlap, which a label map object cannot hold"
        raise UsageError(what, "ask for --dicom seg instead of labelmap")


def match_frames(segments: NDArray[Any], source: Source) -> tuple[list[Any], NDArray[Any]]:
    """Returns the headers of a source, and an array with the slices in the order of their frames.

    Frames of a file that are no slices of the series stay empty, and so they are left out of the object. Where nothing
    was segmented, a series of files keeps its first slice alone: highdicom would write all, for each segment.

    Args:
        segments: Array of shape (slices, rows, columns, ...).
        source: The series.
    """
    headers = list(source.headers) if source.is_multi_frame else stand_in(source.headers)
    if not source.is_multi_frame:
        return (headers, segments) if segments.any() else (headers[:1], segments[:1])
    frames = int(headers[0].NumberOfFrames)
    spread = np.zeros((frames, *segments.shape[1:]), segments.dtype)
    spread[[frame.number for frame in source.frames if frame.number is not None]] = segments
    return headers, spread


def _number_segments(label: NDArray[np.integer], structures: Mapping[str, Numbers]) -> NDArray[np.unsignedinteger]:
    """Returns a label map whose numbers 1, 2, ... are the segments; numbers of no structure become 0."""
    table = np.zeros(int(label.max(initial=0)) + 1, np.uint8 if len(structures) < 256 else np.uint16)
    for segment, numbers in enumerate(structures.values(), start=1):
        table[[number for number in numbers if number < len(table)]] = segment
    numbered: NDArray[np.unsignedinteger] = table[label]
    return numbered


def _stack_segments(label: NDArray[np.integer], structures: Mapping[str, Numbers]) -> NDArray[np.uint8]:
    """Returns a mask for each structure, of shape (slices, rows, columns, structures)."""
    stacked = np.empty((*label.shape, len(structures)), np.uint8)
    for segment, numbers in enumerate(structures.values()):
        stacked[..., segment] = np.isin(label, numbers)
    return stacked


def _build(
    headers: Sequence[Any],
    segments: NDArray[Any],
    segmentation: SlicedSegmentation,
    kind: Literal["seg", "labelmap"],
) -> Any:
    """Returns the object as highdicom makes it."""
    from highdicom.seg import Segmentation, SegmentationTypeValues

    return Segmentation(
        source_images=headers,
        pixel_array=segments,
        segmentation_type=SegmentationTypeValues.BINARY if kind == "seg" else SegmentationTypeValues.LABELMAP,
        segment_descriptions=describe_segments(segmentation),
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        content_label="SEGMENTATION",
        **describe_object(kind, segmentation.source, segmentation.model),
    )
