"""Prompts: boxes and points that a user gives, and the indices of voxels that they mean.

An index may be fractional: the centre of the first voxel is 0, and its borders are -0.5 and 0.5. Everything here is in
the order (z, y, x); the command line turns the order of viewers around.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import UsageError
from autoseg.imaging.geometry import Box, Geometry, Vector
from autoseg.imaging.spatial_words import describe_point, describe_shape, in_viewers_order

Unit = Literal["voxels", "mm"]
"""What coordinates are: numbers of voxels from 0, or a place in the frame of `Geometry`."""

UNITS: tuple[Unit, ...] = ("voxels", "mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBox:
    """A box around a structure, from border to border, as indices (z, y, x)."""

    lower: Vector
    upper: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPoint:
    """A point, as an index (z, y, x), that belongs to a structure or does not."""

    index: Vector
    is_foreground: bool


def place_box(corners: Sequence[float], geometry: Geometry, unit: Unit) -> PromptBox:
    """Returns the box that two opposite corners span.

    Args:
        corners: In voxels, the first and the last voxel that belong to the box, (z, y, x, z, y, x); in mm, the corners
            themselves. For a plane (y, x, y, x). Which of the two ends of an axis comes first does not matter.
        geometry: The grid of the scan, along whose axes the edges of the box run.
        unit: See `Unit`.

    Returns:
        The box. What is beyond the scan is cut off, if the unit is mm.

    Raises:
        UsageError: These are not two corners, or they lie outside of the scan.

    Example:
        >>> geometry = Geometry(shape=(4, 6, 6), spacing_mm=(3.0, 1.0, 1.0))
        >>> place_box((1, 2, 3, 2, 2, 4), geometry, "voxels")
        PromptBox(lower=(0.5, 1.5, 2.5), upper=(2.5, 2.5, 4.5))
        >>> place_box((3.0, 2.0, 3.0, 6.0, 4.0, 4.0), geometry, "mm")
        PromptBox(lower=(1.0, 2.0, 3.0), upper=(2.0, 4.0, 4.0))
    """
    half = len(corners) // 2
    first, last = (_place(values, len(corners), geometry, unit) for values in (corners[:half], corners[half:]))
    shape = np.asarray(geometry.shape)
    lower, upper = np.minimum(first, last), np.maximum(first, last)
    if unit == "voxels":
        _check_inside(lower, geometry, unit)
        _check_inside(upper, geometry, unit)
        lower, upper = lower - 0.5, upper + 0.5
    elif (upper < -0.5).any() or (lower > shape - 0.5).any():
        raise _outside("the box", geometry)
    return PromptBox(lower=_vector(np.maximum(lower, -0.5)), upper=_vector(np.minimum(upper, shape - 0.5)))


def place_point(position: Sequence[float], geometry: Geometry, unit: Unit, *, is_foreground: bool) -> PromptPoint:
    """Returns a point.

    Args:
        position: Coordinates (z, y, x); (y, x) for a plane.
        geometry: The grid of the scan.
        unit: See `Unit`.
        is_foreground: Whether it belongs to the structure.

    Raises:
        UsageError: It is no point, or lies outside of the scan.

    Example:
        >>> geometry = Geometry(shape=(1, 6, 6), spacing_mm=(1.0, 1.0, 1.0), dimensions=2)
        >>> place_point((2, 3), geometry, "voxels", is_foreground=True).index
        (0.0, 2.0, 3.0)
    """
    index = _place(position, len(position), geometry, unit)
    _check_inside(index, geometry, unit)
    return PromptPoint(index=_vector(index), is_foreground=is_foreground)


def parse_unit(unit: str) -> Unit:
    """Returns the unit of that name.

    Raises:
        UsageError: There is no such unit.
    """
    for known in UNITS:
        if unit == known:
            return known
    raise UsageError(f"{unit!r} is no unit of coordinates", f"choose from {', '.join(UNITS)}")


def _place(values: Sequence[float], given: int, geometry: Geometry, unit: Unit) -> NDArray[np.float64]:
    """Returns coordinates as an index (z, y, x)."""
    dimensions = geometry.dimensions
    if len(values) != dimensions or given % dimensions:
        kind = "a plane" if dimensions == 2 else "a volume"
        fix = f"a point of {kind} has {dimensions}, and a box {2 * dimensions}"
        raise UsageError(f"a prompt has {given} coordinates", fix)
    if not all(math.isfinite(value) for value in values):
        raise UsageError(f"a prompt has the coordinates {in_viewers_order(values)}", "give numbers")
    full = np.asarray([*[0.0] * (3 - dimensions), *values], np.float64)
    if unit == "voxels":
        return full
    if not geometry.is_placed:
        raise UsageError("the scan does not say where its voxels lie", "give prompts in voxels")
    if dimensions == 2:
        full[0] = geometry.origin_mm[0]
    distance = full - np.asarray(geometry.origin_mm)
    return np.asarray(np.linalg.solve(np.asarray(geometry.direction), distance) / np.asarray(geometry.spacing_mm))


def _check_inside(index: NDArray[np.float64], geometry: Geometry, unit: Unit) -> None:
    if (index < -0.5).any() or (index > np.asarray(geometry.shape) - 0.5).any():
        values = index[3 - geometry.dimensions :].tolist()
        what = f"the voxel {in_viewers_order(values)}" if unit == "voxels" else "a point in mm"
        raise _outside(what, geometry)


def _outside(what: str, geometry: Geometry) -> UsageError:
    size = describe_shape(geometry.shape[3 - geometry.dimensions :])
    z, y, x = geometry.shape
    corners = (Box(start=corner, stop=corner) for corner in ((0, 0, 0), (z - 1, y - 1, x - 1)))
    first_mm, last_mm = (describe_point(geometry.crop(corner).origin_mm) for corner in corners)
    fix = f"number voxels from 0, or give mm between {first_mm} and {last_mm}"
    return UsageError(f"{what} lies outside of the scan of {size}", fix)


def _vector(values: NDArray[np.float64]) -> Vector:
    z, y, x = (float(value) for value in values)
    return z, y, x
