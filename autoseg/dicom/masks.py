"""Masks in DICOM: what they are drawn on, what they name, and their voxels on the series."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.headers import SEGMENTATION, Header
from autoseg.dicom.safe_reading import check_nested_items, damage_named, read_dataset
from autoseg.dicom.segments import list_segments, read_segments
from autoseg.dicom.series import Series
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
        frame_of_reference: Frame of Reference UID of its positions; empty if it states none.
        slices: SOP Instance UIDs of the slices that it names.
    """

    path: Path
    kind: str
    series_uid: str
    names: tuple[str, ...]
    frame_of_reference: str = ""
    slices: frozenset[str] = frozenset()


def describe_mask(header: Header) -> MaskFile:
    """Reads what a segmentation or a structure set is drawn on, and what it names.

    Raises:
        ImageError: The file is damaged.
    """
    dataset, _ = read_dataset(header.path)
    with damage_named(header.path):
        is_segmentation = header.kind == SEGMENTATION
        frames = int(dataset.get("NumberOfFrames") or 1)
        check_nested_items(dataset, "PerFrameFunctionalGroupsSequence", frames, header.path)
        names = list_segments(dataset, header.path) if is_segmentation else list_structures(dataset)
        named = [name for number, name in sorted(names.items()) if number > 0 or not is_segmentation]
        uid = _series_of_segmentation(dataset) if is_segmentation else _series_of_structures(dataset)
        return MaskFile(
            path=header.path,
            kind=header.kind,
            series_uid=uid,
            names=tuple(dict.fromkeys(named)),
            frame_of_reference=header.frame_of_reference or _frame_of_structures(dataset),
            slices=frozenset(_slices_of_segmentation(dataset) if is_segmentation else _slices_of_structures(dataset)),
        )


def match_series(mask: MaskFile, series: Sequence[Series]) -> list[Series]:
    """Returns the volumes that a mask was drawn on, of those that are there.

    They are of the series that the mask states; of a mask that states none, as some programs leave it, of the series
    whose slices it names; and of one that names none, of the only series in its frame of reference. Of several volumes
    of that series, those with slices that the mask names count, if there are any.
    """
    if mask.series_uid:
        found = [one for one in series if one.uid == mask.series_uid]
        return found if len(found) < 2 else _with_slices(found, mask) or found
    if found := _with_slices(series, mask):
        return found
    found = [one for one in series if one.frame_of_reference == mask.frame_of_reference and not one.role]
    return found if mask.frame_of_reference and not mask.slices and len({one.uid for one in found}) == 1 else []


def place_masks(masks: Sequence[MaskFile], series: Sequence[Series]) -> list[tuple[MaskFile, list[Series]]]:
    """Returns masks with the volumes that they were drawn on; see `match_series`. Each then states its series."""
    matched = [(mask, match_series(mask, series)) for mask in masks]
    return [(replace(mask, series_uid=found[0].uid) if found else mask, found) for mask, found in matched]


def describe_frames(placed: Sequence[tuple[MaskFile, list[Series]]]) -> Iterator[str]:
    """Yields a line for each mask whose positions may not be comparable with those of its series."""
    for mask, found in placed:
        if found and mask.frame_of_reference and found[0].frame_of_reference not in ("", mask.frame_of_reference):
            yield f"{mask.path} and {found[0].name} have different frames of reference: they may not match"


def _with_slices(series: Sequence[Series], mask: MaskFile) -> list[Series]:
    return [one for one in series if any(frame.sop_uid in mask.slices for frame in one.frames)]


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


def _frame_of_structures(dataset: Any) -> str:
    for item in (
        *(dataset.get("ReferencedFrameOfReferenceSequence") or ()),
        *(dataset.get("StructureSetROISequence") or ()),
    ):
        for keyword in ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"):
            if item.get(keyword):
                return str(item.get(keyword))
    return ""


def _slices_of_segmentation(dataset: Any) -> Iterator[str]:
    """Yields the slices that a segmentation names: for the whole of it, or else for its frames."""
    for series in dataset.get("ReferencedSeriesSequence") or ():
        yield from _instances(series.get("ReferencedInstanceSequence"))
    if not dataset.get("ReferencedSeriesSequence"):
        for frame in dataset.get("PerFrameFunctionalGroupsSequence") or ():
            for derivation in frame.get("DerivationImageSequence") or ():
                yield from _instances(derivation.get("SourceImageSequence"))


def _slices_of_structures(dataset: Any) -> Iterator[str]:
    """Yields the slices that the contours of a structure set name."""
    for structure in dataset.get("ROIContourSequence") or ():
        for contour in structure.get("ContourSequence") or ():
            yield from _instances(contour.get("ContourImageSequence"))


def _instances(items: Any) -> Iterator[str]:
    for item in items or ():
        if item.get("ReferencedSOPInstanceUID"):
            yield str(item.ReferencedSOPInstanceUID)
