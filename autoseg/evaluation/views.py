"""Orthogonal planes of a case for pictures, in radiological display convention.

The patient's right is at the left of the picture; anterior or superior is at the top. This holds for any order and
direction of the axes in the file. Oblique axes count as the nearest direction in the patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Geometry, Number, Vector, Volume
from autoseg.imaging.orientation import Reorientation

# For each axis across which a reoriented volume is sliced: name of the plane, and directions at its left and its top.
PLANES = (("axial", "R", "A"), ("coronal", "R", "S"), ("sagittal", "A", "S"))
MARGIN_PIXELS = 3  # Margin around the pixels that are not zero
MOST_PIXELS = 2000  # Largest number of pixels along each side; a picture has fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneView:
    """One plane of a case, ready to draw. Its first row is at the top.

    Attributes:
        image, reference, prediction: Shape (rows, columns).
        row_mm, column_mm: Height and width of a pixel.
        caption: Name of the plane and number of the slice; empty for a file of one plane.
        left, top: Letters of the directions in the patient, such as "R"; empty for a file of one plane, which does not
            store them.
    """

    image: NDArray[np.floating]
    reference: NDArray[np.integer]
    prediction: NDArray[np.integer]
    row_mm: float
    column_mm: float
    caption: str
    left: str
    top: str

    @property
    def height_mm(self) -> float:
        """Height of the plane."""
        return float(self.row_mm * self.image.shape[0])

    @property
    def width_mm(self) -> float:
        """Width of the plane."""
        return float(self.column_mm * self.image.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReorientedCase:
    """A reoriented case, of which slices are taken.

    Attributes:
        arrays: First channel of the image, reference and prediction, each of shape (z, y, x).
        spacing_mm: Spacing along the same axes.
        reorientation: The reorientation of the arrays of the file.
        anatomical: Whether the directions of the axes in the patient are known.
    """

    arrays: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    spacing_mm: Vector
    reorientation: Reorientation
    anatomical: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of voxels along each axis."""
        return self.arrays[0].shape


def choose_views(image: Volume, reference: Volume, prediction: Volume) -> list[PlaneView]:
    """Chooses three orthogonal planes of a case, each through the slice with the most reference foreground.

    If the reference is empty, the foreground of the prediction counts; if both are empty, the middle slice is shown.
    Planes that are one voxel wide are left out, so a file of one plane gives one view. Borders of zeros are cropped.

    Args:
        image: Image of shape (c, z, y, x); its first channel is shown.
        reference: Label map of shape (z, y, x), on the grid of the image.
        prediction: Label map on the same grid.
    """
    geometry = image.geometry
    reorientation = find_reorientation(geometry)
    z_mm, y_mm, x_mm = (geometry.spacing_mm[axis] for axis in reorientation.axes)
    first_channel, reference_array, prediction_array = (
        reorientation.apply(array) for array in (image.array[0], reference.array, prediction.array)
    )
    case = _ReorientedCase(
        arrays=(first_channel, reference_array, prediction_array),
        spacing_mm=(z_mm, y_mm, x_mm),
        reorientation=reorientation,
        anatomical=geometry.dimensions == 3,
    )
    wide_axes = [axis for axis in range(3) if min(_without(case.shape, axis)) > 1]
    return [_slice(case, axis) for axis in wide_axes or [0]]


def _slice(case: _ReorientedCase, axis: int) -> PlaneView:
    """Takes the slice across an axis that has the most foreground."""
    index = find_fullest_slice(case.arrays[1:], axis)
    planes = [array.take(index, axis=axis) for array in case.arrays]
    if axis > 0:
        planes = [plane[::-1] for plane in planes]  # the last slice is the most superior one, which is shown at the top
    rows, columns = _crop_zeros(planes)
    name, left, top = PLANES[axis]
    slices = case.shape[axis]
    number_in_file = slices - index if case.reorientation.reversed[axis] else index + 1
    row_mm, column_mm = _without(case.spacing_mm, axis)
    return PlaneView(
        image=planes[0][rows, columns],
        reference=planes[1][rows, columns],
        prediction=planes[2][rows, columns],
        row_mm=row_mm * rows.step,
        column_mm=column_mm * columns.step,
        caption=f"{name}, slice {number_in_file} of {slices}" if case.anatomical else "",
        left=left if case.anatomical else "",
        top=top if case.anatomical else "",
    )


def _crop_zeros(planes: Sequence[NDArray[Any]]) -> tuple[slice, slice]:
    """Returns the rows and columns that hold any value but zero, with a margin; all of them if there are only zeros.

    Of very large planes only every second, third, ... row or column is shown.
    """
    filled = np.logical_or.reduce([plane != 0 for plane in planes])
    parts = []
    for axis in (0, 1):
        indices = np.flatnonzero(filled.any(axis=1 - axis))
        first, last = (indices[0], indices[-1]) if indices.size else (0, filled.shape[axis] - 1)
        step = 1 + int(last - first) // MOST_PIXELS
        parts.append(slice(max(0, int(first) - MARGIN_PIXELS), int(last) + 1 + MARGIN_PIXELS, step))
    return parts[0], parts[1]


def _without(values: Sequence[Number], axis: int) -> tuple[Number, Number]:
    """Returns two of three values: those of the other axes."""
    first, second = (value for other, value in enumerate(values) if other != axis)
    return first, second


def find_reorientation(geometry: Geometry) -> Reorientation:
    """Finds the permutation and flips that bring the axes of a volume nearest to (superior, posterior, left).

    Positions in medical files increase towards left, posterior and superior (frame of ITK, LPS). A volume whose
    direction matrix is the identity therefore needs no reorientation. Files of one plane say nothing about the patient
    and are not reoriented.

    >>> direction = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
    >>> find_reorientation(Geometry(shape=(2, 3, 4), spacing_mm=(1.0, 1.0, 1.0), direction=direction))
    Reorientation(axes=(0, 1, 2), reversed=(False, False, True))
    """
    if geometry.dimensions == 2:
        return Reorientation(axes=(0, 1, 2), reversed=(False, False, False))
    direction = np.asarray(geometry.direction)
    first, second, third = max(
        permutations(range(3)), key=lambda axes: sum(abs(direction[row, axis]) for row, axis in enumerate(axes))
    )
    return Reorientation(
        axes=(first, second, third),
        reversed=(bool(direction[0, first] < 0), bool(direction[1, second] < 0), bool(direction[2, third] < 0)),
    )


def find_fullest_slice(label_maps: Sequence[NDArray[np.integer]], axis: int) -> int:
    """Finds the slice with the most foreground.

    >>> label_map = np.array([[[0, 0]], [[0, 1]], [[2, 1]], [[0, 0]]])
    >>> find_fullest_slice([np.zeros_like(label_map), label_map], axis=0)
    2

    Args:
        label_maps: Label maps of shape (z, y, x); the first one with any foreground counts.
        axis: The axis across which slices are taken.

    Returns:
        The index of the slice along the axis; that of the middle slice if all label maps are empty.
    """
    others = tuple(other for other in range(3) if other != axis)
    for label_map in label_maps:
        counts = np.count_nonzero(label_map, axis=others)
        if counts.any():
            return int(counts.argmax())
    return int(label_maps[0].shape[axis]) // 2
