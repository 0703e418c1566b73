"""Which planes of a case are worth a look, turned as radiologists hang them.

The patient's right is on the left of the picture; anterior or superior is up. This holds for any order and direction of
the axes in the file; oblique axes count as the nearest direction in the patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Geometry, Number, Vector, Volume

# Per cut axis of a volume in viewing order: the plane's name, and the directions at its left and at its top.
PLANES = (("axial", "R", "A"), ("coronal", "R", "S"), ("sagittal", "A", "S"))
MARGIN_PIXELS = 3  # left around what is not zero
MOST_PIXELS = 2000  # along each side: more than the picture has


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One plane of a case, ready to draw: its first row is the top.

    Attributes:
        image, reference, prediction: Shape (rows, columns).
        row_mm, column_mm: Height and width of a pixel.
        caption: Which plane it is.
        left, top: Letters of the directions in the patient, such as "R"; empty for a plane file, which has none.
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
class Turn:
    """How the axes of a volume are put in viewing order: towards superior, posterior and left.

    Attributes:
        axes: Array axis that comes first, second and third.
        flipped: Whether the axis at that place is reversed.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turns an array of shape (z, y, x); a view of the same memory."""
        steps = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)
        return array.transpose(self.axes)[steps]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A case in viewing order, from which planes are cut.

    Attributes:
        arrays: First channel, reference and prediction, each of shape (z, y, x).
        spacing_mm: Along the same axes.
        turn: How it got there from the file.
        anatomical: Whether its directions in the patient are known.
    """

    arrays: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    spacing_mm: Vector
    turn: Turn
    anatomical: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.arrays[0].shape


def choose_views(image: Volume, reference: Volume, prediction: Volume) -> list[View]:
    """Cuts three orthogonal planes, each through the slice with most reference foreground.

    If the reference is empty the predicted foreground counts, if both are empty the middle is shown. Planes that are
    one voxel thin are left out, so that a plane file gives one view. Borders of zeros are cut off.

    Args:
        image: Shape (c, z, y, x); its first channel is shown.
        reference: Label map, shape (z, y, x), on the grid of the image.
        prediction: Label map on the same grid.
    """
    geometry = image.geometry
    turn = viewing_turn(geometry)
    z_mm, y_mm, x_mm = (geometry.spacing_mm[axis] for axis in turn.axes)
    scene = Scene(
        arrays=(turn.apply(image.array[0]), turn.apply(reference.array), turn.apply(prediction.array)),
        spacing_mm=(z_mm, y_mm, x_mm),
        turn=turn,
        anatomical=geometry.dimensions == 3,
    )
    wide = [axis for axis in range(3) if min(_without(scene.shape, axis)) > 1]
    return [_cut(scene, axis) for axis in wide or [0]]


def _cut(scene: Scene, axis: int) -> View:
    """The busiest plane across one axis of a scene."""
    index = busiest_slice(scene.arrays[1:], axis)
    planes = [array.take(index, axis=axis) for array in scene.arrays]
    if axis > 0:
        planes = [plane[::-1] for plane in planes]  # superior is the last slice, and belongs on top
    rows, columns = _filled_part(planes)
    name, left, top = PLANES[axis]
    slices = scene.shape[axis]
    number_in_file = slices - index if scene.turn.flipped[axis] else index + 1
    row_mm, column_mm = _without(scene.spacing_mm, axis)
    return View(
        image=planes[0][rows, columns],
        reference=planes[1][rows, columns],
        prediction=planes[2][rows, columns],
        row_mm=row_mm * rows.step,
        column_mm=column_mm * columns.step,
        caption=f"{name}, slice {number_in_file} of {slices}" if scene.anatomical else "",
        left=left if scene.anatomical else "",
        top=top if scene.anatomical else "",
    )


def _filled_part(planes: Sequence[NDArray[Any]]) -> tuple[slice, slice]:
    """Rows and columns with anything but zeros, and a margin around them; all if there are only zeros.

    Of very large planes every second, third, ... row or column is shown.
    """
    filled = np.logical_or.reduce([plane != 0 for plane in planes])
    parts = []
    for axis in (0, 1):
        places = np.flatnonzero(filled.any(axis=1 - axis))
        first, last = (places[0], places[-1]) if places.size else (0, filled.shape[axis] - 1)
        step = 1 + int(last - first) // MOST_PIXELS
        parts.append(slice(max(0, int(first) - MARGIN_PIXELS), int(last) + 1 + MARGIN_PIXELS, step))
    return parts[0], parts[1]


def _without(values: Sequence[Number], axis: int) -> tuple[Number, Number]:
    """The two of three values that belong to the other axes."""
    first, second = (value for other, value in enumerate(values) if other != axis)
    return first, second


def viewing_turn(geometry: Geometry) -> Turn:
    """Finds the order and direction of axes that brings a volume nearest to (superior, posterior, left).

    Medical files count positions towards left, posterior and superior (ITK's frame), so that a direction matrix of ones
    on the diagonal is in viewing order already. The files of planes say nothing about the patient and stay as they are.
    """
    if geometry.dimensions == 2:
        return Turn(axes=(0, 1, 2), flipped=(False, False, False))
    direction = np.asarray(geometry.direction)
    first, second, third = max(
        permutations(range(3)), key=lambda axes: sum(abs(direction[row, axis]) for row, axis in enumerate(axes))
    )
    return Turn(
        axes=(first, second, third),
        flipped=(bool(direction[0, first] < 0), bool(direction[1, second] < 0), bool(direction[2, third] < 0)),
    )


def busiest_slice(label_maps: Sequence[NDArray[np.integer]], axis: int) -> int:
    """Index along `axis` of the slice with most foreground in the first label map that has any; else the middle."""
    others = tuple(other for other in range(3) if other != axis)
    for label_map in label_maps:
        counts = np.count_nonzero(label_map, axis=others)
        if counts.any():
            return int(counts.argmax())
    return int(label_maps[0].shape[axis]) // 2
