"""Where voxels lie in space. Every array travels with its `Geometry`; all orders here are array order (z, y, x).

The file formats' own (x, y, z) order exists only in `sitk_conversion`, `conversion` and the modules of NIfTI: there,
vectors are reversed on reading and on writing. Physical coordinates are therefore (z, y, x) too, so that

    point_mm = origin_mm + direction @ (index * spacing_mm)

holds with `index` in array order.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.orientation import (
    NEGATIVE_DIRECTIONS,
    OPPOSITE,
    POSITIVE_DIRECTIONS,
    Reorientation,
    is_orientation,
)
from autoseg.imaging.spatial_words import describe_point, describe_shape, describe_spacing, in_viewers_order
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement

Shape = tuple[int, int, int]
Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]
Number = TypeVar("Number", int, float)
Item = TypeVar("Item")

IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

# Headers store rounded floats of 32 bit: smaller differences are ignored.
SPACING_TOLERANCE = 1e-3  # relative
ORIGIN_TOLERANCE = 0.1  # in voxels
DIRECTION_TOLERANCE = 1e-3  # of a direction cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A half-open box of voxels, (z, y, x): `start` belongs to it, `stop` does not.

    Example:
        >>> box = Box(start=(0, 1, 2), stop=(1, 3, 6))
        >>> box.shape, np.zeros((4, 8, 8))[box.slices].shape
        ((1, 2, 4), (1, 2, 4))
    """

    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Number of voxels along each axis."""
        return _three(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array of shape (z, y, x)."""
        z, y, x = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return z, y, x


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The grid of an image in space; see the text of the module for the frame.

    Attributes:
        shape: Number of voxels along (z, y, x). A plane, such as a PNG file, has one slice.
        spacing_mm: Distance between voxel centres along each array axis. The through-plane spacing of a plane is not
            known and is set to its larger in-plane spacing.
        origin_mm: Position of the centre of voxel (0, 0, 0), as (z, y, x).
        direction: Column j is the unit vector, in (z, y, x), along which array axis j runs.
        dimensions: 2 if the file holds a plane, 3 if it holds a volume; decides how a result is written.
        is_placed: Whether the file states where its voxels lie, or at least their size; pictures mostly do not.
        nifti: What the NIfTI header of the image says of its place, for results on this grid; None without one.

    Example:
        >>> geometry = Geometry(shape=(4, 6, 6), spacing_mm=(3.0, 1.0, 1.0))
        >>> geometry.orientation, geometry.voxel_size
        ('SPL', 3.0)
        >>> geometry.crop(Box(start=(1, 0, 2), stop=(3, 6, 6))).origin_mm
        (3.0, 0.0, 2.0)
        >>> finer = geometry.resample((12, 6, 6))
        >>> finer.spacing_mm, finer.origin_mm
        ((1.0, 1.0, 1.0), (-1.0, 0.0, 0.0))
        >>> geometry.reoriented("SPR").origin_mm
        (0.0, 0.0, 5.0)
    """

    shape: Shape
    spacing_mm: Vector
    origin_mm: Vector = (0.0, 0.0, 0.0)
    direction: Matrix = IDENTITY
    dimensions: Literal[2, 3] = 3
    is_placed: bool = field(default=True, compare=False, repr=False)
    nifti: NiftiPlacement | None = field(default=None, compare=False, repr=False)

    @property
    def voxel_size(self) -> float:
        """Volume of a voxel in mm3, or area of a plane's pixel in mm2; see `voxel_size`."""
        return voxel_size(self.spacing_mm, self.dimensions)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel in mm3; NaN for a plane, whose pixels have an area alone."""
        return self.voxel_size if self.dimensions == 3 else math.nan

    @property
    def orientation(self) -> str | None:
        """Direction in the patient in which the index of each array axis grows; None for a plane, where it is unknown.

        It has one letter per axis: superior or inferior, posterior or anterior, left or right. "SPL" is the usual
        volume: slices from the feet upwards, rows from front to back, columns from the patient's right to the left. An
        oblique axis gets the letter of its largest component. Decision: where two axes are nearest to the same
        direction, the letters are those with the largest components in sum, so that each axis of the patient occurs
        once.
        """
        if self.dimensions == 2:
            return None
        direction = np.asarray(self.direction)
        columns = [0, 1, 2]
        rows = max(permutations(columns), key=lambda rows: float(np.abs(direction[list(rows), columns]).sum()))
        letters = (
            (POSITIVE_DIRECTIONS if direction[row, column] > 0 else NEGATIVE_DIRECTIONS)[row]
            for column, row in enumerate(rows)
        )
        return "".join(letters)

    def reorientation_to(self, orientation: str) -> Reorientation:
        """Returns how to bring an array on this grid to an orientation, exactly or as near as possible.

        From "SPL" to "SAR" the axes keep their order, and the last two are reversed.

        Args:
            orientation: Three letters, see `orientation`; an oblique axis counts as the direction nearest to it.

        Raises:
            ValueError: This is a plane, whose orientation is unknown, or the text is no orientation.
        """
        current = self.orientation
        if current is None or not is_orientation(orientation):
            raise ValueError(f"axes that lead {current} cannot be turned to {orientation!r}")
        axes = _three(current.index(letter if letter in current else OPPOSITE[letter]) for letter in orientation)
        z, y, x = (letter not in current for letter in orientation)
        return Reorientation(axes=axes, reversed=(z, y, x))

    def reoriented(self, orientation: str) -> "Geometry":
        """Returns the grid of a reoriented array: the same points in space; errors as of `reorientation_to`."""
        reorientation = self.reorientation_to(orientation)
        permuted = self.permute(reorientation.axes)
        ends = np.where(reorientation.reversed, np.asarray(permuted.shape) - 1, 0)
        columns = np.asarray(permuted.direction) * np.where(reorientation.reversed, -1.0, 1.0)
        return replace(permuted, origin_mm=permuted._position(ends), direction=_matrix(columns), nifti=None)

    def crop(self, box: Box) -> "Geometry":
        """Returns the grid of the voxels inside `box`."""
        return replace(self, shape=box.shape, origin_mm=self._position(np.asarray(box.start, float)), nifti=None)

    def permute(self, axes: tuple[int, int, int]) -> "Geometry":
        """Returns the grid of `array.transpose(axes)`: the same points in space, other array axes."""
        return replace(
            self,
            shape=_three(self.shape[axis] for axis in axes),
            spacing_mm=_three(self.spacing_mm[axis] for axis in axes),
            direction=_matrix(np.asarray(self.direction)[:, list(axes)]),
            nifti=None,
        )

    def resample(self, shape: Shape) -> "Geometry":
        """Returns the grid of `shape` voxels that covers the same part of space, from border to border."""
        old = np.asarray(self.spacing_mm)
        new = old * np.asarray(self.shape) / np.asarray(shape)
        shift_in_voxels = (new - old) / 2 / old
        return replace(
            self, shape=shape, spacing_mm=_vector(new), origin_mm=self._position(shift_in_voxels), nifti=None
        )

    def difference(self, other: "Geometry") -> str | None:
        """Describes how `other` differs: ``"spacing 1 x 1 x 1 differs from 1 x 1 x 2 mm (x, y, z)"``; None if not.

        Rounding is none: up to 0.1 % of the spacing, a tenth of a voxel of the origin, 0.001 of a direction cosine.
        """
        if self.shape != other.shape:
            return f"shape {in_viewers_order(self.shape)} differs from {describe_shape(other.shape)}"
        if not np.allclose(self.spacing_mm, other.spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
            return f"spacing {in_viewers_order(self.spacing_mm)} differs from {describe_spacing(other.spacing_mm)}"
        if not np.allclose(self.direction, other.direction, rtol=0, atol=DIRECTION_TOLERANCE):
            return "direction of the axes differs"
        if not np.allclose(self.origin_mm, other.origin_mm, rtol=0, atol=ORIGIN_TOLERANCE * min(self.spacing_mm)):
            return f"first voxel at {describe_point(self.origin_mm)}, not {describe_point(other.origin_mm)}"
        return None

    def _position(self, index: NDArray[np.floating]) -> Vector:
        """Returns the position in mm of a voxel index, which may be fractional."""
        return _vector(self.origin_mm + np.asarray(self.direction) @ (index * np.asarray(self.spacing_mm)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """An array with its place in space.

    Attributes:
        array: An image of shape (c, z, y, x), float32; or of shape (z, y, x) a label map of integers, or a map of
            probabilities, 0 to 1, float32.
        geometry: The grid of the last three axes.

    Raises:
        ValueError: The shapes of array and geometry disagree.

    Example:
        >>> geometry = Geometry(shape=(1, 2, 3), spacing_mm=(2.0, 1.0, 1.0))
        >>> volume = Volume(array=np.arange(6).reshape(1, 2, 3), geometry=geometry)
        >>> volume.crop(Box(start=(0, 1, 0), stop=(1, 2, 2))).array.tolist()
        [[[3, 4]]]
        >>> volume.reoriented("SPR").array.tolist()
        [[[2, 1, 0], [5, 4, 3]]]
    """

    array: NDArray[Any]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4) or self.array.shape[-3:] != self.geometry.shape:
            raise ValueError(f"array of shape {self.array.shape} does not lie on a grid of shape {self.geometry.shape}")

    def crop(self, box: Box) -> "Volume":
        """Returns the part inside `box`; a view of the same memory."""
        return Volume(array=self.array[(..., *box.slices)], geometry=self.geometry.crop(box))

    def permute(self, axes: tuple[int, int, int]) -> "Volume":
        """Returns the same volume with its spatial axes in another order; a view of the same memory."""
        leading = self.array.ndim - 3
        order = (*range(leading), *(leading + axis for axis in axes))
        return Volume(array=self.array.transpose(order), geometry=self.geometry.permute(axes))

    def reoriented(self, orientation: str) -> "Volume":
        """Returns the same volume in another orientation; a view of the same memory."""
        array = self.geometry.reorientation_to(orientation).apply(self.array)
        return Volume(array=array, geometry=self.geometry.reoriented(orientation))


def voxel_size(spacing_mm: Vector, dimensions: Literal[2, 3]) -> float:
    """Returns the volume of a voxel in mm3; for a plane, which has no thickness, the area of a pixel in mm2.

    Decision: a plane's structures are measured by their area. Files and options that hold one number for the size of a
    structure, such as `SmallestSize.mm3`, `StructureStatistics.volume_mm3` and the volumes that predictions report,
    are named for volumes and hold mm2 for planes, which is the volume at a thickness of 1 mm. Scores, which are read
    by people as volumes, are undefined (NaN) for planes: see `Geometry.voxel_volume_mm3`. Where the size of a pixel is
    not known its spacing is 1, and areas are numbers of pixels.

    Args:
        spacing_mm: Distance between voxel centres along (z, y, x); a plane's first one does not count.
        dimensions: 2 for a plane, 3 for a volume.

    Example:
        >>> voxel_size((4.0, 3.0, 0.5), 3), voxel_size((4.0, 3.0, 0.5), 2)
        (6.0, 1.5)
    """
    return math.prod(spacing_mm if dimensions == 3 else spacing_mm[1:])


def direction_of(orientation: str) -> Matrix:
    """Returns the direction matrix of a grid, parallel to the axes of the patient, of an orientation.

    Raises:
        ValueError: The text is no orientation.

    Example:
        >>> direction_of("SPR")
        ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
    """
    if not is_orientation(orientation):
        raise ValueError(f"{orientation!r} is no orientation")
    columns = np.zeros((3, 3))
    for axis, letter in enumerate(orientation):
        sign, letters = (1, POSITIVE_DIRECTIONS) if letter in POSITIVE_DIRECTIONS else (-1, NEGATIVE_DIRECTIONS)
        columns[letters.index(letter), axis] = sign
    return _matrix(columns)


def _three(values: Iterable[Item]) -> tuple[Item, Item, Item]:
    first, second, third = values
    return first, second, third


def _vector(values: NDArray[np.floating]) -> Vector:
    return _three(float(value) for value in values)


def _matrix(values: NDArray[np.floating]) -> Matrix:
    return _three(_vector(row) for row in values)
