"""Maps of numbers from 0 to 1 as DICOM objects: fractional segments of probabilities, parametric maps of the rest."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.codes import Code
from autoseg.dicom.object_content import SlicedSegmentation, coded, describe_object, describe_segments
from autoseg.dicom.quiet import quietly
from autoseg.dicom.segmentation_objects import EXPLICIT_LITTLE_ENDIAN, match_frames
from autoseg.dicom.single_frames import restore_classes
from autoseg.dicom.source import Source
from autoseg.runtime.artifact import atomic_file

LARGEST = 255
"""Number that stands for 1, as in the maps of other formats."""

NO_UNIT = Code(value="1", meaning="no units", scheme="UCUM")


def write_probabilities(path: Path, probabilities: NDArray[np.floating], segmentation: SlicedSegmentation) -> None:
    """Writes the probabilities of one structure as a fractional segmentation object, whole or not at all.

    Args:
        path: The file.
        probabilities: Shape (slices, rows, columns), 0 to 1.
        segmentation: What the object says: its only structure, its source and its model.

    Raises:
        WriteError: The file cannot be written.
    """
    from highdicom.seg import Segmentation, SegmentationFractionalTypeValues, SegmentationTypeValues

    rounded = np.rint(np.clip(probabilities, 0, 1) * LARGEST).astype(np.float32) / np.float32(LARGEST)
    headers, pixels = match_frames(rounded, segmentation.source)
    with quietly():
        written = Segmentation(
            source_images=headers,
            pixel_array=pixels,
            segmentation_type=SegmentationTypeValues.FRACTIONAL,
            segment_descriptions=describe_segments(segmentation),
            fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
            max_fractional_value=LARGEST,
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            content_label="PROBABILITY",
            **describe_object("probabilities", segmentation.source, segmentation.model),
        )
        restore_classes(written, segmentation.source.headers)
        _save(written, path)


def write_disagreement(path: Path, disagreement: NDArray[np.floating], segmentation: SlicedSegmentation) -> None:
    """Writes where the votes of a model disagree as a parametric map, whole or not at all.

    Args:
        path: The file.
        disagreement: Shape (slices, rows, columns), the share of votes that differ, 0 to 1.
        segmentation: What the object says of its source and its model.

    Raises:
        WriteError: The file cannot be written.
    """
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    source: Source = segmentation.source
    whole = np.rint(np.clip(disagreement, 0, 1) * LARGEST).astype(np.uint16)  # parametric maps have 16 bits
    headers, pixels = match_frames(whole, source)
    with quietly():
        mapping = RealWorldValueMapping(
            lut_label="DISAGREEMENT",
            lut_explanation="share of votes that differ",
            unit=coded(NO_UNIT),
            value_range=(0, LARGEST),
            slope=1 / LARGEST,
            intercept=0,
        )
        written = ParametricMap(
            source_images=headers,
            pixel_array=pixels,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            window_center=LARGEST / 2,
            window_width=LARGEST,
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            content_label="DISAGREEMENT",
            **describe_object("disagreement", source, segmentation.model),
        )
        written.Laterality = ""  # not known, but to be stated
        restore_classes(written, source.headers)
        _save(written, path)


def _save(written: Any, path: Path) -> None:
    with atomic_file(path) as writing:
        written.save_as(writing)
