"""Chooses the low-resolution configuration, for images of which a patch at full resolution covers too little."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from autoseg.planning.budget import SMALLEST_BATCH
from autoseg.planning.patch_size import FittedPatch, PlanningConstraints, TypicalImage, fit_batch, fit_patch
from autoseg.planning.plan import Spacing
from autoseg.planning.topology import SMALLEST_EDGE, Topology

# Source of all constants here: the reference method (nnU-Net v2.8.1, default experiment planner).
LITTLE_CONTEXT = 0.25
"""Fraction of the typical volume below which a patch covers too little of it."""
COARSENING = 1.03
"""Factor by which the spacing grows from one attempt to the next."""
SIMILAR_SPACING = 2.0
"""Axes that are finer than the coarsest by more than this factor are coarsened first."""
MIN_VOXEL_RATIO = 2.0
"""Factor by which the coarser volume must have fewer voxels; otherwise the full resolution alone suffices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowResolution:
    """A coarser typical image with its patch and batch.

    Attributes:
        image, fit: See `TypicalImage` and `FittedPatch`.
        voxels: Number of voxels of the typical volume before its edges are rounded to whole voxels.
    """

    image: TypicalImage
    fit: FittedPatch
    voxels: float


def has_little_context(image: TypicalImage, fit: FittedPatch) -> bool:
    """Returns whether a patch covers too little of the typical volume to recognise its position."""
    return fit.topology.voxels / image.voxels < LITTLE_CONTEXT


def choose_low_resolution(
    image: TypicalImage, constraints: PlanningConstraints, full: FittedPatch
) -> LowResolution | None:
    """Coarsens the volume until a patch covers a quarter of it.

    Source: the reference method. Decision, where a larger budget must never give less: of ever coarser volumes the
    first is taken whose smallest patch that covers a quarter is within the budget, skipping volumes whose patch would
    be larger than that of a finer one. A larger budget then stops earlier, at a finer volume and a patch at least as
    large.

    Args:
        image: The typical image at full resolution.
        constraints: The constraints on patch and batch.
        full: Patch and batch at full resolution.

    Returns:
        None if the patch covers enough at full resolution, or the coarser volume would not be much smaller. None as
        well if the volume is so thin that coarsening leaves fewer than four slices before a sufficient patch is within
        the budget; with more memory there may be one.
    """
    if not has_little_context(image, full):
        return None
    find = _find_monotonic if constraints.monotonic else _find_as_reference
    low = find(image, constraints)
    return None if low is None or image.voxels / low.voxels < MIN_VOXEL_RATIO else low


def _find_as_reference(image: TypicalImage, constraints: PlanningConstraints) -> LowResolution | None:
    """Returns the first of the coarser volumes whose largest patch covers a quarter."""
    for coarser, exact_voxels in _coarser_images(image):
        largest = next(constraints.candidate_patches(coarser))
        if largest.is_trainable:
            fit = fit_patch(coarser, constraints)
            if fit.topology.voxels / exact_voxels >= LITTLE_CONTEXT:
                return LowResolution(image=coarser, fit=fit, voxels=exact_voxels)
        elif largest.voxels / exact_voxels >= LITTLE_CONTEXT:
            break  # the volume is too thin for any network
    return None


def _find_monotonic(image: TypicalImage, constraints: PlanningConstraints) -> LowResolution | None:
    """Returns the finest volume whose smallest sufficient patch is within the budget; see `choose_low_resolution`."""
    finer: Topology | None = None  # the smallest sufficient patch of a finer volume, too large for the budget
    for coarser, exact_voxels in _coarser_images(image):
        if min(coarser.median_shape) < SMALLEST_EDGE:
            break
        if exact_voxels * LITTLE_CONTEXT > constraints.max_voxels:
            continue  # a sufficient patch is far too large, so it need not be calculated
        topology = _smallest_patch(coarser, exact_voxels, constraints)
        if topology is None or (finer is not None and topology.voxels > finer.voxels):
            continue
        if not topology.is_trainable:
            break
        if constraints.preset_allows(topology) and constraints.fits(topology):
            fit = fit_batch(
                coarser,
                topology,
                constraints,
                reason=f"the smallest that sees {LITTLE_CONTEXT:.0%} of it",
                max_voxels=None if finer is None else SMALLEST_BATCH * finer.voxels,
            )
            return LowResolution(image=coarser, fit=fit, voxels=exact_voxels)
        finer = topology
    return None


def _smallest_patch(image: TypicalImage, voxels: float, constraints: PlanningConstraints) -> Topology | None:
    """Returns the smallest patch that covers enough; None if not even the largest does."""
    smallest = None
    for topology in constraints.candidate_patches(image):
        if topology.voxels / voxels < LITTLE_CONTEXT:
            break
        smallest = topology
    return smallest


def _coarser_images(image: TypicalImage) -> Iterator[tuple[TypicalImage, float]]:
    """Yields ever coarser volumes, each with the product of its edges before they are rounded to voxels."""
    cases = image.dataset_voxels / image.voxels
    spacing = list(image.spacing_mm)
    while True:
        coarsest = max(spacing)
        finer = [step for step in spacing if coarsest / step > SIMILAR_SPACING]
        growing = finer or spacing
        spacing = [step * COARSENING if step in growing else step for step in spacing]
        exact = [
            full_mm / step * size
            for full_mm, step, size in zip(image.spacing_mm, spacing, image.median_shape, strict=True)
        ]
        first, second, third = spacing
        low: Spacing = (first, second, third)
        voxels = prod(exact)
        median_shape = tuple(float(max(1, round(size))) for size in exact)
        yield TypicalImage(spacing_mm=low, median_shape=median_shape, dataset_voxels=voxels * cases), voxels
