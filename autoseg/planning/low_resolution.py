"""The low-resolution configuration: for images of which a patch at full resolution sees too little."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from autoseg.planning.budget import SMALLEST_BATCH
from autoseg.planning.patch import Fit, Search, View, fit_batch, fit_patch
from autoseg.planning.plan import Spacing
from autoseg.planning.topology import SMALLEST_EDGE, Topology

# Source of all numbers here: the reference method (nnU-Net v2.8.1, default experiment planner).
LITTLE_CONTEXT = 0.25
"""Share of the typical volume below which a patch sees too little of it."""
COARSENING = 1.03
"""Growth of the spacing from one attempt to the next."""
SIMILAR_SPACING = 2.0
"""Axes that are finer than the coarsest by more than this factor are coarsened first."""
WORTHWHILE = 2.0
"""How many times fewer voxels the coarser volume must have; else the full resolution alone will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowResolution:
    """A coarser view with its patch and batch.

    Attributes:
        view, fit: See there.
        voxels: Of the typical volume before its edges are rounded to whole voxels.
    """

    view: View
    fit: Fit
    voxels: float


def sees_little(view: View, fit: Fit) -> bool:
    """Whether a patch covers too little of the typical volume to recognise where it is."""
    return fit.topology.voxels / view.voxels < LITTLE_CONTEXT


def choose_low_resolution(view: View, search: Search, full: Fit) -> LowResolution | None:
    """Coarsens the volume until a patch sees a quarter of it.

    Source: the reference method. Decision, where a larger budget must never buy less: among ever coarser volumes that
    one is taken of which the smallest patch that sees a quarter is within the budget, passing over those whose patch
    would be larger than that of a finer one. A larger budget then stops earlier, at a finer volume and a patch at least
    as large.

    Args:
        view: The volumes at full resolution.
        search: The limits.
        full: Patch and batch there.

    Returns:
        None if the patch sees enough at full resolution, or the coarser volume would not be much smaller.
    """
    if not sees_little(view, full):
        return None
    find = _find_monotonic if search.monotonic else _find_as_reference
    found = find(view, search)
    return None if found is None or view.voxels / found.voxels < WORTHWHILE else found


def _find_as_reference(view: View, search: Search) -> LowResolution | None:
    """The first of the coarser volumes of whose largest patch sees a quarter."""
    for coarser, exact_voxels in _coarser_views(view):
        largest = next(search.patches(coarser))
        if largest.is_trainable:
            fit = fit_patch(coarser, search)
            if fit.topology.voxels / exact_voxels >= LITTLE_CONTEXT:
                return LowResolution(view=coarser, fit=fit, voxels=exact_voxels)
        elif largest.voxels / exact_voxels >= LITTLE_CONTEXT:
            break  # the volume is too thin for any network
    return None


def _find_monotonic(view: View, search: Search) -> LowResolution | None:
    finer: Topology | None = None  # the smallest patch of a finer volume, too large for the budget
    for coarser, exact_voxels in _coarser_views(view):
        if min(coarser.median_shape) < SMALLEST_EDGE:
            break
        if exact_voxels * LITTLE_CONTEXT > search.most_voxels:
            continue  # saves time: a patch that sees enough is far too large, and need not be known
        topology = _smallest_patch(coarser, exact_voxels, search)
        if topology is None or (finer is not None and topology.voxels > finer.voxels):
            continue
        if not topology.is_trainable:
            break
        if search.allows(topology) and search.holds(topology):
            fit = fit_batch(
                coarser,
                topology,
                search,
                because=f"the smallest that sees {LITTLE_CONTEXT:.0%} of it",
                most_voxels=None if finer is None else SMALLEST_BATCH * finer.voxels,
            )
            return LowResolution(view=coarser, fit=fit, voxels=exact_voxels)
        finer = topology
    return None


def _smallest_patch(view: View, voxels: float, search: Search) -> Topology | None:
    """The smallest patch that sees enough; None if not even the largest does."""
    smallest = None
    for topology in search.patches(view):
        if topology.voxels / voxels < LITTLE_CONTEXT:
            break
        smallest = topology
    return smallest


def _coarser_views(view: View) -> Iterator[tuple[View, float]]:
    """Ever coarser volumes, each with the product of its edges before they are rounded to voxels."""
    cases = view.dataset_voxels / view.voxels
    spacing = list(view.spacing_mm)
    while True:
        coarsest = max(spacing)
        finer = [step for step in spacing if coarsest / step > SIMILAR_SPACING]
        growing = finer or spacing
        spacing = [step * COARSENING if step in growing else step for step in spacing]
        exact = [
            full_mm / step * size
            for full_mm, step, size in zip(view.spacing_mm, spacing, view.median_shape, strict=True)
        ]
        first, second, third = spacing
        low: Spacing = (first, second, third)
        voxels = prod(exact)
        median_shape = tuple(float(max(1, round(size))) for size in exact)
        yield View(spacing_mm=low, median_shape=median_shape, dataset_voxels=voxels * cases), voxels
