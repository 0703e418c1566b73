"""Chooses the grid that all cases of a dataset are resampled to: voxel spacing, axis order, typical shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.errors import DatasetError
from autoseg.imaging.geometry import Number, Shape, Vector
from autoseg.planning.presets import RULES, Rules

AXIS_NAMES = ("z", "y", "x")
ANISOTROPY_THRESHOLD = 3.0  # Source: the reference method; beyond this ratio slices count as thick


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetGrid:
    """The grid of the resampled cases. The axes are in `axis_order`, the coarsest first.

    Attributes:
        axis_order: The array axis of a file, (z, y, x) = (0, 1, 2), that comes first, second and third.
        spacing_mm: Voxel spacing of the resampled cases along each axis.
        median_shape: Median shape of the resampled cases in voxels along each axis; a multiple of a half, since the
            median of an even number of cases may lie between two.
        cases: Number of cases.
        refined: Whether the spacing of the first axis is below its median, because its slices are few and thick.
        is_flat: Whether the typical image is a plane, or has too few slices to make a volume.
    """

    axis_order: Shape
    spacing_mm: Vector
    median_shape: Vector
    cases: int
    refined: bool
    is_flat: bool

    @property
    def image_voxels(self) -> float:
        """Number of voxels of the typical image."""
        return prod(self.median_shape)

    @property
    def voxels(self) -> float:
        """Approximate number of voxels of all cases together."""
        return self.image_voxels * self.cases


def choose_grid(fingerprint: Fingerprint, rules: Rules = RULES["autoseg"]) -> TargetGrid:
    """Chooses spacing, axis order and typical shape.

    The spacing is the median over the cases. If the coarsest axis is more than `ANISOTROPY_THRESHOLD` times coarser
    than the others and has that many times fewer voxels, it gets the 10th percentile of its spacings instead, though
    not less than the coarsest of the others. Example: slices 3 to 8 mm apart, median 6 mm, get 3.5 mm: few cases then
    lose slices, at the price of interpolated slices in the others.

    Source: the reference method (nnU-Net v2.8.1, default experiment planner). Decision: if the typical image has too
    few slices for a volume, the axis across them comes first regardless of its spacing, so that the other two are those
    of the slice; it is never resampled across the slices, so their number stays.

    Args:
        fingerprint: Measurements of the training cases.
        rules: The planning rules, which give the least number of slices of a volume.

    Raises:
        DatasetError: There is no case.
    """
    if not fingerprint.cases:
        raise DatasetError("the dataset has no case to plan for", "add training cases with images and labels")
    spacings = np.array([case.spacing_mm for case in fingerprint.cases], dtype=float)
    shapes = np.array([case.shape_after_crop for case in fingerprint.cases], dtype=float)
    median_of_files = np.median(shapes, axis=0)
    spacing, refined = _target_spacing(spacings, median_of_files)
    median_shape = np.median(np.round(spacings / spacing * shapes), axis=0)
    flat = median_of_files <= rules.flat_voxels if rules.flat_axis_first else np.zeros(3, dtype=bool)
    median_shape = np.maximum(np.where(flat, median_of_files, median_shape), 1)
    order = _first_axis_first(int(np.argmax(flat)) if flat.any() else int(np.argmax(spacing)))
    ordered = _ordered(median_shape.tolist(), order)
    return TargetGrid(
        axis_order=order,
        spacing_mm=_ordered(spacing.tolist(), order),
        median_shape=ordered,
        cases=len(fingerprint.cases),
        refined=refined and not flat.any(),
        is_flat=min(ordered) <= rules.flat_voxels if rules.flat_axis_first else ordered[0] <= rules.flat_voxels,
    )


def name_axes(axis_order: Shape, dimensions: int) -> str:
    """Names the axes along which the sizes of a plan lie, for all three axes or for the two of a slice.

    Example:
        >>> name_axes((0, 1, 2), 3), name_axes((2, 0, 1), 2)
        ('z, y, x', 'z, y')
    """
    return ", ".join(AXIS_NAMES[axis] for axis in axis_order[-dimensions:])


def explain_grid(grid: TargetGrid) -> Iterator[str]:
    """Yields sentences on which grid was chosen and why."""
    names = [AXIS_NAMES[axis] for axis in grid.axis_order]
    slices = max(1, round(grid.median_shape[0]))
    if grid.is_flat:
        cause = f"{names[0]} comes first, because the images have {_count(slices, 'slice')} along it"
    elif grid.spacing_mm[0] > max(grid.spacing_mm[1:]):
        cause = f"{names[0]} comes first, because the voxels are longest along it, {grid.spacing_mm[0]:.4g} mm"
    else:
        cause = "no axis is coarser than all others"
    yield f"The axes of an image are put in the order {', '.join(names)}: {cause}."
    spacing = grid.spacing_mm[1:] if grid.is_flat else grid.spacing_mm
    spacing_text = " x ".join(f"{step:.4g}" for step in spacing)
    axes = name_axes(grid.axis_order, len(spacing))
    cases = _count(grid.cases, "training case")
    yield f"All images are resampled to {spacing_text} mm ({axes}), the median spacing of {cases}."
    if grid.refined:
        yield (
            f"Along {names[0]} the spacing is the 10th percentile of the cases rather than their median, because its "
            "slices are few and more than three times as thick as the voxels are wide."
        )


def _target_spacing(
    spacings: NDArray[np.float64], median_shape: NDArray[np.float64]
) -> tuple[NDArray[np.float64], bool]:
    """Returns the spacing in mm in the files' axis order, and whether the coarsest axis is finer than its median."""
    target = np.median(spacings, axis=0)
    coarsest = int(np.argmax(target))
    others = np.arange(3) != coarsest
    thick_slices = target[coarsest] > ANISOTROPY_THRESHOLD * target[others].max()
    few_slices = median_shape[coarsest] * ANISOTROPY_THRESHOLD < median_shape[others].min()
    if not (thick_slices and few_slices):
        return target, False
    median = target[coarsest]
    fine = np.percentile(spacings[:, coarsest], 10)
    if fine < target[others].max():
        fine = target[others].max() + 1e-5  # strictly the coarsest, so that it stays the first axis
    target[coarsest] = fine
    return target, bool(fine < median)


def _first_axis_first(first: int) -> Shape:
    second, third = (axis for axis in range(3) if axis != first)
    return first, second, third


def _ordered(values: Sequence[Number], order: Shape) -> tuple[Number, Number, Number]:
    first, second, third = (values[axis] for axis in order)
    return first, second, third


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
