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
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement, find_quaternion

RIGHT_ANGLE_TOLERANCE = 1e-3
"""Largest cosine between two axes that count as being at right angles, which are then 0.06 degrees off; it holds for
every kind of image. Decision: over 500 voxels it moves a point by half a voxel; headers of 32 bit and their rounding
stay far below."""

ROUNDING = 1e-6
"""Largest cosine between two axes that is rounding of numbers of 32 bit."""

NUMBER_ROUNDING = 2.0**-24
"""Largest relative error of a number of 32 bit. Source: IEEE 754."""

MILLIMETRES, SECONDS = 2, 8
"""Codes of the units in NIfTI files."""

LEFT_AND_BACK = np.array([-1.0, -1.0, 1.0])
"""From the frame of the matrices to that of a geometry, (x, y, z), and back."""


def place_by_header(geometry: Geometry, placement: NiftiPlacement, *, name: str) -> Geometry:
    """Returns the grid of a NIfTI image by the rule of `nifti_header`, with what its header says.

    Its axes may be sheared, if no other matrix holds anything; see `check_straight`.

    Args:
        geometry: Gives the shape, and the place where no matrix holds anything.
        placement: What the header says.
        name: Name of the image in messages.

    Raises:
        ImageError: No matrix holds anything, and the sizes of the voxels are no numbers.
    """
    affines = placement.affines()
    straight = [affine for affine in affines if shear(affine) <= RIGHT_ANGLE_TOLERANCE]
    sizes = placement.pixdim[1 : 1 + geometry.dimensions]
    if not affines and not np.isfinite(sizes).all():
        raise ImageError(f"{name}: its header gives voxels of the sizes {sizes}, and no place", "correct its header")
    if not affines or geometry.dimensions == 2:
        return replace(geometry, nifti=placement)
    return replace(grid_of_affine((straight or affines)[0], geometry.shape, name=name), nifti=placement)


def find_carried(geometry: Geometry) -> NiftiPlacement:
    """Returns what the header of a NIfTI file on a grid says of its place.

    It is what that of the scan says, if the grid is still there; else it describes the grid itself.
    """
    return _find_own(geometry) or _describe(geometry)


def _find_own(geometry: Geometry) -> NiftiPlacement | None:
    if geometry.nifti is None:
        return None
    x, y, z = (geometry.nifti.mm_per_unit * (abs(size) or 1.0) for size in geometry.nifti.pixdim[1:])
    by_sizes = replace(geometry, spacing_mm=(z, y, x), origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY)
    if geometry.dimensions == 2:
        return geometry.nifti if np.allclose(geometry.spacing_mm[1:], (y, x)) else None
    expected = place_by_header(by_sizes, geometry.nifti, name="the image")
    return geometry.nifti if expected.difference(geometry) is None else None


def _describe(geometry: Geometry) -> NiftiPlacement:
    """Returns a header with the axes of a grid as they are.

    Its numbers have 32 bit, so that a voxel lies at most `NUMBER_ROUNDING` times its distance from the origin, added up
    along the axes, beside its place. The qform, which holds no shear, is there only if the axes are at right angles.
    """
    _, y, x = geometry.spacing_mm
    grid = replace(geometry, spacing_mm=(1.0, y, x)) if geometry.dimensions == 2 else geometry
    z = grid.spacing_mm[0]
    affine = affine_of(grid)
    turn = affine[:3, :3] / (x, y, z)
    handedness = -1.0 if np.linalg.det(turn) < 0 else 1.0
    return NiftiPlacement(
        sform_code=1,
        sform=tuple(map(float, affine[:3].ravel())),
        qform_code=int(shear(np.asarray(geometry.direction)) <= ROUNDING),
        quaternion=find_quaternion(turn * (1, 1, handedness)),
        offset=tuple(map(float, affine[:3, 3])),
        pixdim=(handedness, x, y, z),
        units=MILLIMETRES | SECONDS,
        description="",
    )


def grid_of_affine(affine: NDArray[np.floating], shape: Sequence[int], *, name: str) -> Geometry:
    """Returns the grid whose voxel (x, y, z) lies at affine @ (x, y, z, 1); its axes may be sheared.

    Args:
        affine: Shape (4, 4), in mm.
        shape: Number of voxels along (z, y, x).
        name: Name of the image in messages.

    Raises:
        ImageError: The matrix is not finite, or has an axis of no length.

    Example:
        >>> grid_of_affine(np.diag([0.5, 0.5, 2.0, 1.0]), (4, 6, 6), name="a.nii").orientation
        'SAR'
    """
    columns = np.asarray(affine, dtype=float)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        raise ImageError(f"{name}: the matrix that says where its voxels lie has axes of no length", "correct it")
    first, second, third = (LEFT_AND_BACK[:, np.newaxis] * columns / lengths)[::-1, ::-1]
    z, y, x = (int(size) for size in shape)
    return Geometry(
        shape=(z, y, x),
        spacing_mm=_vector(lengths[::-1]),
        origin_mm=_vector((LEFT_AND_BACK * np.asarray(affine, dtype=float)[:3, 3])[::-1]),
        direction=(_vector(first), _vector(second), _vector(third)),
    )


def affine_of(geometry: Geometry) -> NDArray[np.float64]:
    """Returns the matrix of a grid; the inverse of `grid_of_affine`.

    Returns:
        Shape (4, 4): from voxels (x, y, z) to mm, right, anterior, superior.

    Example:
        >>> affine_of(Geometry(shape=(4, 6, 6), spacing_mm=(3.0, 0.5, 1.0))).diagonal().tolist()
        [-1.0, -0.5, 3.0, 1.0]
    """
    affine = np.eye(4)
    steps = np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm)
    affine[:3, :3] = LEFT_AND_BACK[:, np.newaxis] * steps[::-1, ::-1]
    affine[:3, 3] = LEFT_AND_BACK * np.asarray(geometry.origin_mm)[::-1]
    return affine


def check_straight(geometry: Geometry, *, name: str) -> Geometry:
    """Returns a grid whose axes are at right angles, and refuses another one.

    All that is calculated on a grid, such as distances and mirror images, takes its axes to be at right angles.

    Args:
        geometry: The grid.
        name: Name of the image in messages.

    Raises:
        ImageError: The axes are sheared by more than `RIGHT_ANGLE_TOLERANCE`.

    Example:
        >>> check_straight(Geometry(shape=(4, 6, 6), spacing_mm=(3.0, 1.0, 1.0)), name="a.nrrd").shape
        (4, 6, 6)
    """
    if is_sheared(geometry):
        degrees = math.degrees(math.asin(min(1.0, shear(np.asarray(geometry.direction)))))
        what = f"{name}: its axes are {degrees:.2g} degrees off right angles, as a tilted gantry leaves them"
        raise ImageError(what, "resample it and its masks with 'autoseg straighten'")
    return geometry


def is_sheared(geometry: Geometry) -> bool:
    """Returns whether the axes of a grid are off right angles by more than `RIGHT_ANGLE_TOLERANCE`."""
    return shear(np.asarray(geometry.direction)) > RIGHT_ANGLE_TOLERANCE


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
    NIfTI image writes into the mask the matrix that his program took from the image. A picture that states no spacing
    has that of the other, such as a mask of an ImageJ stack that states its own.
    """
    if grid.is_placed != other.is_placed:
        placed, picture = (grid, other) if grid.is_placed else (other, grid)
        return placed.difference(replace(picture, spacing_mm=placed.spacing_mm))
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
