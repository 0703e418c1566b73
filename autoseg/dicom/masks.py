"""Masks in DICOM: what they are drawn on, what they name, and their voxels on the series."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.headers import SEGMENTATION, Header
from autoseg.dicom.safe_reading import damage_named, read_dataset
from autoseg.dicom.segments import list_segments, read_segments
from autoseg.dicom.structure_contours import list_structures, read_structures
from autoseg.imaging.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFile:
    """A segmentation or a structure set.

    Attributes:
        path: The file.
        kind: "segmentation" or "structures"; see `Header`.
        series_uid: UID of the series that it was drawn on; empty if it states none.
        names: Names of its structures, each once, in their order.
    """

    path: Path
    kind: str
    series_uid: str
    names: tuple[str, ...]


def describe_mask(header: Header) -> MaskFile:
    """Reads what a segmentation or a structure set is drawn on, and what it names.

    Raises:
        ImageError: The file is damaged.
    """
    dataset, _ = read_dataset(header.path)
    with damage_named(header.path):
        is_segmentation = header.kind == SEGMENTATION
        names = list_segments(dataset, header.path) if is_segmentation else list_structures(dataset)
        named = [name for number, name in sorted(names.items()) if number > 0 or not is_segmentation]
        uid = _series_of_segmentation(dataset) if is_segmentation else _series_of_structures(dataset)
    return MaskFile(path=header.path, kind=header.kind, series_uid=uid, names=tuple(dict.fromkeys(named)))


def read_mask(mask: MaskFile, geometry: Geometry) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields the name and mask of each structure on the grid of the series; see `read_segments`, `read_structures`."""
    read = read_segments if mask.kind == SEGMENTATION else read_structures
    yield from read(mask.path, geometry)


def _series_of_segmentation(dataset: Any) -> str:
    for item in dataset.get("ReferencedSeriesSequence") or ():
        if item.get("SeriesInstanceUID"):
            return str(item.SeriesInstanceUID)
    return ""


def _series_of_structures(dataset: Any) -> str:
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                if series.get("SeriesInstanceUID"):
                    return str(series.SeriesInstanceUID)
    return ""
