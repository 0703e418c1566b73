"""Grids that matrices describe, as those of NIfTI files and of nibabel's images.

Such a matrix leads from voxels (x, y, z) to right, anterior, superior, in mm; a `Geometry` has its axes as (z, y, x)
and superior, posterior, left.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.geometry import IDENTITY, Geometry, Vector
from autoseg.imaging.nifti_header import NiftiPlacement

RIGHT_ANGLE_TOLERANCE = 1e-3
"""Largest cosine between two axes that count as being at right angles, which are then 0.06 degrees off. Decision: over
500 voxels it moves a point by half a voxel; headers of 32 bit and their rounding stay far below."""

LEFT_AND_BACK = np.array([-1.0, -1.0, 1.0])
"""From the frame of the matrices to that of a geometry, (x, y, z), and back."""


def place_by_header(geometry: Geometry, placement: NiftiPlacement, *, name: str) -> Geometry:
    """Returns the grid of a NIfTI image by the rule of `nifti_header`, with what its header says.

    Args:
        geometry: Gives the shape, and the place where no matrix holds anything.
        placement: What the header says.
        name: Name of the image in messages.

    Raises:
        ImageError: The only matrix that holds something has axes that are not at right angles.
    """
    affines = placement.affines()
    straight = [affine for affine in affines if shear(affine) <= RIGHT_ANGLE_TOLERANCE]
    if not affines or geometry.dimensions == 2:
        return replace(geometry, nifti=placement)
    return replace(grid_of_affine((straight or affines)[0], geometry.shape, name=name), nifti=placement)


def find_carried(geometry: Geometry) -> NiftiPlacement | None:
    """Returns what the header of a result on a grid takes over; None if the grid is no longer where its header says."""
    if geometry.nifti is None:
        return None
    x, y, z = (geometry.nifti.mm_per_unit * (abs(size) or 1.0) for size in geometry.nifti.pixdim[1:])
    by_sizes = replace(geometry, spacing_mm=(z, y, x), origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY)
    if geometry.dimensions == 2:
        return geometry.nifti if np.allclose(geometry.spacing_mm[1:], (y, x)) else None
    expected = place_by_header(by_sizes, geometry.nifti, name="the image")
    return geometry.nifti if expected.difference(geometry) is None else None


def grid_of_affine(affine: NDArray[np.floating], shape: Sequence[int], *, name: str) -> Geometry:
    """Returns the grid whose voxel (x, y, z) lies at affine @ (x, y, z, 1).

    Args:
        affine: Shape (4, 4), in mm.
        shape: Number of voxels along (z, y, x).
        name: Name of the image in messages.

    Raises:
        ImageError: The matrix is not finite, has an axis of no length, or axes that are not at right angles.

    Example:
        >>> grid_of_affine(np.diag([0.5, 0.5, 2.0, 1.0]), (4, 6, 6), name="a.nii").orientation
        'SAR'
    """
    columns = np.asarray(affine, dtype=float)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        raise ImageError(f"{name}: the matrix that says where its voxels lie has axes of no length", "correct it")
    if (cosine := shear(affine)) > RIGHT_ANGLE_TOLERANCE:
        degrees = math.degrees(math.asin(min(1.0, cosine)))
        what = f"{name}: its axes are {degrees:.2g} degrees off right angles, as a tilted gantry leaves them"
        raise ImageError(what, "resample it and its masks to a straight grid")
    first, second, third = (LEFT_AND_BACK[:, np.newaxis] * columns / lengths)[::-1, ::-1]
    z, y, x = (int(size) for size in shape)
    return Geometry(
        shape=(z, y, x),
        spacing_mm=_vector(lengths[::-1]),
        origin_mm=_vector((LEFT_AND_BACK * np.asarray(affine, dtype=float)[:3, 3])[::-1]),
        direction=(_vector(first), _vector(second), _vector(third)),
    )


def shear(affine: NDArray[np.floating]) -> float:
    """Returns the largest cosine between two axes of a matrix, 0 if all are at right angles.

    Example:
        >>> shear(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        1.0
    """
    columns = np.asarray(affine, dtype=float)[:3, :3]
    with np.errstate(invalid="ignore"):
        cosines = columns / np.linalg.norm(columns, axis=0)
        products = np.abs(np.triu(cosines.T @ cosines, k=1))
    return float(np.nan_to_num(products).max())


def describe_difference(grid: Geometry, other: Geometry) -> str | None:
    """Describes how two grids differ, as `Geometry.difference` does; None if voxels of the same index belong together.

    They belong together as well if one of the matrices of one file is one of the other's: whoever draws a mask on a
    NIfTI image writes into the mask the matrix that his program took from the image.
    """
    difference = grid.difference(other)
    if difference is None or grid.shape != other.shape or (grid.nifti is None and other.nifti is None):
        return difference
    pairs = ((one, two) for one in _grids(grid) for two in _grids(other))
    return None if any(one.difference(two) is None for one, two in pairs) else difference


def _grids(geometry: Geometry) -> list[Geometry]:
    """Returns the grids by all matrices that an image has."""
    affines = [] if geometry.nifti is None or geometry.dimensions == 2 else geometry.nifti.affines()
    straight = [affine for affine in affines if shear(affine) <= RIGHT_ANGLE_TOLERANCE]
    return [geometry, *(grid_of_affine(affine, geometry.shape, name="") for affine in straight)]


def _vector(values: "Sequence[float] | NDArray[np.floating]") -> Vector:
    z, y, x = (float(value) for value in values)
    return z, y, x
