"""Sorts the slices of one volume along their normal, finds its grid, and names what is wrong with it.

Positions count, never instance numbers or the spacing that a header states: those are often wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.series import Defect, Frame
from autoseg.imaging.affine_geometry import shear
from autoseg.imaging.geometry import DIRECTION_TOLERANCE, ORIGIN_TOLERANCE, Geometry, Vector

LARGEST_DRIFT = 0.5
"""Pixels by which the last slice may lie aside of the normal through the first one, before the gantry counts as tilted.

Decision: positions are rounded in the headers; half a pixel is what `affine_geometry.RIGHT_ANGLE_TOLERANCE` allows.
"""

ROUNDING_MM = 0.1
"""Millimetres that a position may be off. Decision: scanners round positions to a tenth, and both ends are rounded."""

MOST_UNEVEN = 0.2
"""Share of the spacing that this is at most, for thin slices."""

TILTED = "its slices are shifted against each other by {degrees:.3g} degrees, as a tilted gantry leaves them"

UNPLACED = Defect(what="its files do not state where its slices lie", fix="choose another series")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The slices of one volume in order; see `Series` for the attributes."""

    frames: tuple[Frame, ...]
    geometry: Geometry | None = None
    defect: Defect | None = None


def stack_frames(frames: Sequence[Frame]) -> Stack:
    """Sorts slices of one size, spacing and orientation along their normal.

    The spacing between slices is the mean distance of their positions along the normal. A position may be a tenth of
    the spacing off, which is `geometry.ORIGIN_TOLERANCE`, or a tenth of a millimetre; see `ROUNDING_MM`.

    Args:
        frames: The slices, in any order.

    Returns:
        The stack. It has a defect if slices have no position, or the same, or if one is missing, if the distance
        varies, or if slices are shifted sideways irregularly; its grid is sheared if they are shifted regularly. A
        single file without a position, such as an X-ray, is a plane.
    """
    first = frames[0]
    if len(frames) == 1 and first.number is None and first.position_mm is None:
        return Stack(frames=tuple(frames), geometry=_make_plane(first))
    unplaced = _find_unplaced(frames)
    if unplaced is not None:
        return Stack(frames=tuple(frames), defect=unplaced)
    row, column = np.asarray(first.row_cosines), np.asarray(first.column_cosines)
    normal = np.cross(row, column)
    ordered = sorted(frames, key=lambda frame: float(np.dot(np.asarray(frame.position_mm), normal)))
    positions = np.array([frame.position_mm for frame in ordered], dtype=float)
    along = positions @ normal
    defect = _find_defect(along, ordered)
    if defect is not None:
        return Stack(frames=tuple(ordered), defect=defect)
    step = _step(along, first)
    drift = _find_drift(positions, np.stack([column, row]), first.spacing_mm or (1.0, 1.0))
    if isinstance(drift, Defect):
        return Stack(frames=tuple(ordered), defect=drift)
    return Stack(frames=tuple(ordered), geometry=_make_geometry(ordered, (row, column, normal * step + drift)))


def describe_tilt(geometry: Geometry) -> str:
    """Describes the shift of slices of a tilted gantry for a message."""
    return TILTED.format(degrees=math.degrees(math.asin(min(1.0, shear(np.asarray(geometry.direction))))))


def positions_along(frames: Sequence[Frame]) -> NDArray[np.floating]:
    """Returns the positions of slices along their common normal, in mm, shape (n,)."""
    normal = np.cross(np.asarray(frames[0].row_cosines), np.asarray(frames[0].column_cosines))
    return np.array([frame.position_mm for frame in frames], dtype=float) @ normal


def _find_unplaced(frames: Sequence[Frame]) -> Defect | None:
    """Finds slices of which the header does not say where they lie, or says what cannot be."""
    row, column = frames[0].row_cosines, frames[0].column_cosines
    unplaced = [frame for frame in frames if frame.position_mm is None]
    if row is None or column is None or len(unplaced) == len(frames):
        return UNPLACED
    if unplaced:
        what = (
            f"slices that do not state where they lie: {len(unplaced)} of {len(frames)}, first {unplaced[0].path.name}"
        )
        return Defect(what=what, fix="remove their files if they are no slices of it, or fetch them again")
    if frames[0].spacing_mm is None:
        return Defect(what="its files do not state the size of a pixel", fix="choose another series")
    if not _are_directions(np.asarray(row), np.asarray(column)):
        what = "the directions of its rows and columns are no unit vectors at right angles"
        return Defect(what=what, fix="choose another series")
    return None


def _are_directions(row: NDArray[np.floating], column: NDArray[np.floating]) -> bool:
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    cosine = abs(float(row @ column))
    return cosine < DIRECTION_TOLERANCE and all(abs(length - 1) < DIRECTION_TOLERANCE for length in lengths)


def _find_defect(along: NDArray[np.floating], frames: Sequence[Frame]) -> Defect | None:
    """Finds slices that lie at the same place, are missing, or have varying distances."""
    if len(along) < 3 and not (len(along) == 2 and along[1] - along[0] <= 0):
        return None
    gaps = np.diff(along)
    step = float(np.median(gaps))
    repeated = int((gaps <= ORIGIN_TOLERANCE * max(step, float(gaps.max()) / 2)).sum())
    if repeated:
        return Defect(
            what=f"{repeated} of its {len(frames)} slices lie where another one lies, and nothing tells them apart",
            fix="remove the files that do not belong to it, or choose another series",
        )
    regular = np.linspace(along[0], along[-1], len(along))
    spacing = float(along[-1] - along[0]) / (len(along) - 1)
    if np.abs(along - regular).max() <= min(max(ORIGIN_TOLERANCE * spacing, ROUNDING_MM), MOST_UNEVEN * spacing):
        return None
    smallest = float(gaps.min())
    counts = np.rint(gaps / smallest)
    if counts.max() > 1 and np.abs(gaps - counts * smallest).max() <= 2 * ORIGIN_TOLERANCE * smallest:
        return _missing(along, counts, frames)
    return Defect(
        what=f"the distance between its slices varies from {gaps.min():.4g} to {gaps.max():.4g} mm",
        fix="resample it to even slices with another program, or choose another series",
    )


def _missing(along: NDArray[np.floating], counts: NDArray[np.floating], frames: Sequence[Frame]) -> Defect:
    index = int(np.argmax(counts > 1))
    missing = int((counts - 1).sum())
    slices = "1 slice is" if missing == 1 else f"{missing} slices are"
    before, after = frames[index].path.name, frames[index + 1].path.name
    where = f"between {before} ({along[index]:.4g} mm along the normal) and {after} ({along[index + 1]:.4g} mm)"
    first = "" if int((counts > 1).sum()) == 1 else ", first "
    return Defect(
        what=f"{slices} missing {where}" if not first else f"{slices} missing{first}{where}",
        fix="fetch the whole series from the archive again, or choose another series",
    )


def _step(along: NDArray[np.floating], frame: Frame) -> float:
    """Returns the spacing of slices; that of a single one is what its header states, else the larger of its pixel."""
    if len(along) > 1:
        return float(along[-1] - along[0]) / (len(along) - 1)
    return frame.thickness_mm or max(frame.spacing_mm or (1.0, 1.0))


def _find_drift(
    positions: NDArray[np.floating], in_plane: NDArray[np.floating], spacing_mm: tuple[float, float]
) -> NDArray[np.floating] | Defect:
    """Returns the shift of each slice against the one before it, (x, y, z) in mm; 0 unless the gantry was tilted."""
    shifts = (positions - positions[0]) @ in_plane.T
    drift = shifts[-1] / max(1, len(shifts) - 1)
    irregular = np.abs(shifts - np.arange(len(shifts))[:, np.newaxis] * drift) / np.asarray(spacing_mm)
    if irregular.max() > LARGEST_DRIFT:
        return Defect(what="its slices are shifted sideways irregularly", fix="choose another series")
    is_straight = np.abs(shifts[-1] / np.asarray(spacing_mm)).max() <= LARGEST_DRIFT
    return np.asarray(np.zeros(3) if is_straight else drift @ in_plane)


def _make_geometry(
    frames: Sequence[Frame],
    axes: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]],
) -> Geometry:
    """Returns the grid; here vectors of the standard, (x, y, z), are reversed.

    Args:
        frames: The slices in order.
        axes: Directions along rows and columns, and the step from slice to slice in mm.
    """
    row, column, across = (axis / np.linalg.norm(axis) for axis in axes)
    first = frames[0]
    spacing_y, spacing_x = first.spacing_mm or (1.0, 1.0)
    matrix = np.stack([across[::-1], column[::-1], row[::-1]], axis=1)
    rows = [_vector(values) for values in matrix]
    return Geometry(
        shape=(len(frames), *first.size),
        spacing_mm=(float(np.linalg.norm(axes[2])), spacing_y, spacing_x),
        origin_mm=_vector(np.asarray(first.position_mm, dtype=float)[::-1]),
        direction=(rows[0], rows[1], rows[2]),
    )


def _make_plane(frame: Frame) -> Geometry:
    """Returns the grid of a picture that has no place in the patient, such as an X-ray."""
    spacing_y, spacing_x = frame.spacing_mm or (1.0, 1.0)
    return Geometry(shape=(1, *frame.size), spacing_mm=(max(spacing_y, spacing_x), spacing_y, spacing_x), dimensions=2)


def _vector(values: NDArray[np.floating]) -> Vector:
    first, second, third = (float(value) for value in values)
    return first, second, third
