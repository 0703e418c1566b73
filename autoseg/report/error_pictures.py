"""Pictures of a segmented case: each plane as image, reference, segmentations and errors, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.overlay import intensity_window
from autoseg.evaluation.views import PlaneView, choose_views
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets
from autoseg.report.case_pictures import GAP, QUALITY, draw_labels, draw_plane, encode

PANEL = 190
"""Sides of the square for a panel, in pixels. Decision: an error of one voxel is seen in planes of up to 190 voxels; a
picture of twelve panels takes 15 to 30 kB."""

ERRORS = {"missed": "#ff5c4d", "too much": "#4da3ff", "another label": "#ffe14d"}
"""Colours of errors. Decision: the three can be told apart by people with any colour vision, on grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMaps:
    """Label maps of a case on the grid of its image.

    Attributes:
        reference: Shape (z, y, x).
        predictions: One segmentation, or those of two runs.
        targets: The structures of all of them.
    """

    reference: Volume
    predictions: Sequence[Volume]
    targets: Targets


def draw_errors(image: Volume, maps: ComparedMaps) -> bytes:
    """Draws planes through the slices with the most wrong voxels; of two segmentations, those that differ the most.

    The columns are the image, the reference, and each segmentation; with one segmentation the last column shows its
    errors, in the colours of `ERRORS`. Each row is a plane, in radiological display convention.

    Args:
        image: Shape (c, z, y, x); the first channel is shown.
        maps: The label maps.

    Returns:
        A picture in WebP. Rows are `PANEL` pixels high.
    """
    reference, (first, *others) = maps.reference.array, (volume.array for volume in maps.predictions)
    differ = first != (others[0] if others else reference)
    if maps.targets.ignore is not None:
        differ &= reference != maps.targets.ignore
    base = 1 + max(int(array.max(initial=0)) for array in (reference, first, *others))
    codes = reference.astype(np.min_scalar_type(-(base ** (2 + len(others)))))  # scans of 150 million voxels exist
    for array in (first, *others):
        codes = codes * codes.dtype.type(base) + array.astype(codes.dtype)
    views = choose_views(image, _like(maps.reference, differ), _like(maps.reference, codes))
    window = intensity_window([np.nan_to_num(view.image, posinf=0, neginf=0) for view in views])
    rows = [_draw_row(view, window, base, maps) for view in views]
    content = BytesIO()
    encode(np.concatenate(rows)).save(content, format="WEBP", quality=QUALITY)
    return content.getvalue()


def find_errors(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], targets: Targets
) -> dict[str, NDArray[np.bool_]]:
    """Finds where a segmentation is wrong, and how.

    Args:
        reference: Numbers of a label map, any shape.
        prediction: The same of the segmentation.
        targets: The structures.

    Returns:
        For each name in `ERRORS`, where that is so: a structure of the reference is missed, one is there too much, or
        both, so that the label is another one.

    Example:
        >>> reference, prediction = np.array([1, 1, 0, 1]), np.array([1, 0, 2, 2])
        >>> errors = find_errors(reference, prediction, Targets.of_labels({"liver": 1, "tumour": 2}))
        >>> {name: where.astype(int).tolist() for name, where in errors.items()}
        {'missed': [0, 1, 0, 0], 'too much': [0, 0, 1, 0], 'another label': [0, 0, 0, 1]}
    """
    missed, extra = np.zeros(reference.shape, dtype=np.bool_), np.zeros(reference.shape, dtype=np.bool_)
    present = set(np.unique(reference).tolist()) | set(np.unique(prediction).tolist())
    for numbers in targets.structures.values():
        if present.intersection(numbers):
            drawn, segmented = np.isin(reference, numbers), np.isin(prediction, numbers)
            missed |= drawn & ~segmented
            extra |= segmented & ~drawn
    if targets.ignore is not None:
        counted = reference != targets.ignore
        missed, extra = missed & counted, extra & counted
    return {"missed": missed & ~extra, "too much": extra & ~missed, "another label": missed & extra}


def _draw_row(view: PlaneView, window: tuple[float, float], base: int, maps: ComparedMaps) -> NDArray[np.uint8]:
    """Draws a plane, shape (PANEL, columns, 3)."""
    codes = view.prediction
    planes: list[NDArray[np.integer]] = []
    for _ in maps.predictions:
        codes, plane = np.divmod(codes, base)
        planes.insert(0, plane)
    scale = PANEL / max(view.height_mm, view.width_mm)
    grey = draw_plane(view, window, scale)
    size = (grey.shape[1], grey.shape[0])
    panels = [grey]
    for plane in (codes, *planes):
        masks = [np.isin(plane, numbers) for numbers in maps.targets.structures.values()]
        panels.append(draw_labels(grey, masks, size))
    if len(planes) == 1:
        errors = find_errors(codes, planes[0], maps.targets)
        panels.append(draw_labels(grey, errors.values(), size, colours=tuple(ERRORS.values())))
    return np.concatenate([_pad(panel) for panel in panels], axis=1)


def _pad(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Puts a panel into the middle of a dark square, with a gap at its right and its lower side."""
    square = np.full((PANEL + GAP, PANEL + GAP, 3), 16, dtype=np.uint8)
    top, left = (PANEL - panel.shape[0]) // 2, (PANEL - panel.shape[1]) // 2
    square[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return square


def _like(volume: Volume, array: NDArray[Any]) -> Volume:
    return Volume(array=array, geometry=volume.geometry)
