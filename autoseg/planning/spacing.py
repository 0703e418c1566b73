"""The grid that all cases of a dataset are brought to: voxel spacing, order of the axes, typical shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import DatasetError
from autoseg.fingerprint import Fingerprint
from autoseg.geometry import Number, Shape, Vector

AXIS_NAMES = ("z", "y", "x")
ANISOTROPY_THRESHOLD = 3.0  # Source: the reference method; beyond this ratio slices count as thick


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetGrid:
    """What the cases look like after resampling. The axes are in `axis_order`, the coarsest first.

    Attributes:
        axis_order: Which array axis of a file, (z, y, x) = (0, 1, 2), comes first, second and third.
        spacing_mm: Of the resampled cases.
        median_shape: Voxels per axis, the median over the resampled cases, rounded up.
        cases: How many there are.
        refined: Whether the first axis is finer than its median, because its slices are few and thick.
    """

    axis_order: Shape
    spacing_mm: Vector
    median_shape: Shape
    cases: int
    refined: bool

    @property
    def voxels(self) -> int:
        """Voxels of all cases together, approximately."""
        return int(np.prod(self.median_shape)) * self.cases

    @property
    def holds_planes(self) -> bool:
        """Whether the images are planes, or volumes of a single slice."""
        return self.median_shape[0] == 1


def choose_grid(fingerprint: Fingerprint) -> TargetGrid:
    """Chooses spacing, axis order and typical shape.

    The spacing is the median over the cases. If the coarsest axis is more than `ANISOTROPY_THRESHOLD` times coarser
    than the others and its axis has that many times fewer voxels, it gets the 10th percentile of its spacings instead,
    though not less than the coarsest of the others. Example: slices 3 to 8 mm apart, median 6 mm, get 3.5 mm: few cases
    then lose slices, at the price of interpolated ones in the others.

    Source: the reference method (nnU-Net v2.8.1, default experiment planner). Decision: if the typical image is a
    single slice, the axis across it comes first whatever its spacing, so that the other two make up the picture; no
    plane is ever resampled across itself, so its extent there stays one voxel.

    Raises:
        DatasetError: There is no case.
    """
    if not fingerprint.cases:
        raise DatasetError("the dataset has no case to plan for", "add training cases with images and labels")
    spacings = np.array([case.spacing_mm for case in fingerprint.cases], dtype=float)
    shapes = np.array([case.shape_after_crop for case in fingerprint.cases], dtype=float)
    spacing, refined = _target_spacing(spacings, np.median(shapes, axis=0))
    resampled = np.maximum(np.round(spacings / spacing * shapes), 1)
    planes = np.median(shapes, axis=0) == 1
    median_shape = np.where(planes, 1, np.ceil(np.median(resampled, axis=0)))
    order = _first_axis_first(int(np.argmax(planes)) if planes.any() else int(np.argmax(spacing)))
    return TargetGrid(
        axis_order=order,
        spacing_mm=_ordered(spacing.tolist(), order),
        median_shape=_ordered(median_shape.astype(int).tolist(), order),
        cases=len(fingerprint.cases),
        refined=refined and not planes.any(),
    )


def explain_grid(grid: TargetGrid) -> Iterator[str]:
    """Says in sentences which grid was chosen and why."""
    names = [AXIS_NAMES[axis] for axis in grid.axis_order]
    if grid.holds_planes:
        cause = f"{names[0]} comes first, because the images are a single slice along it"
    elif grid.spacing_mm[0] > max(grid.spacing_mm[1:]):
        cause = f"{names[0]} comes first, because the voxels are longest along it, {grid.spacing_mm[0]:.4g} mm"
    else:
        cause = "no axis is coarser than all others"
    yield f"The axes of an image are put in the order {', '.join(names)}: {cause}."
    spacing = grid.spacing_mm[1:] if grid.holds_planes else grid.spacing_mm
    spacing_text = " x ".join(f"{step:.4g}" for step in spacing)
    yield f"All images are resampled to {spacing_text} mm, the median spacing of {grid.cases} training cases."
    if grid.refined:
        yield (
            f"Along {names[0]} the spacing is the 10th percentile of the cases rather than their median, because its "
            "slices are few and more than three times as thick as the voxels are wide."
        )


def _target_spacing(
    spacings: NDArray[np.float64], median_shape: NDArray[np.float64]
) -> tuple[NDArray[np.float64], bool]:
    """Target spacing in the axis order of the files, and whether the coarsest axis was made finer than its median."""
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
