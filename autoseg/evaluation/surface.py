"""How far the surfaces of two masks are apart, in mm.

The surface of a mask are its border voxels: those with a face neighbour outside the mask, where all that lies outside
the image is outside. Distances are measured between the centres of voxels. Source: Maier-Hein, Reinke et al., "Metrics
Reloaded", Nature Methods 2024; MONAI measures alike. Other programs take the percentile of the distances of both
surfaces together, or the surfaces between voxels, and get other numbers; say which when you compare with them.

In a plane the surface is a contour, and the neighbours are those in the plane.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from autoseg.evaluation.masks import MaskPair
from autoseg.imaging.geometry import SPACING_TOLERANCE, Geometry, Vector

PERCENTILE = 95.0

REACH_VOXELS = 2
"""Along each axis: neighbours that are looked at before others. Decision: farther ones are rare, and soon many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruler:
    """How distances are measured in an image.

    Attributes:
        axes: Those that count: all with more than one voxel, since across a single slice nothing is known.
        spacing_mm: Along (z, y, x).
        diagonal_mm: From corner to corner of the image, along the axes that count. No distance is longer.
    """

    axes: tuple[int, ...]
    spacing_mm: Vector
    diagonal_mm: float

    @classmethod
    def of(cls, geometry: Geometry) -> "Ruler":
        """The ruler of an image; one of a single voxel counts all axes."""
        axes = tuple(axis for axis in range(3) if geometry.shape[axis] > 1) or (0, 1, 2)
        diagonal = math.hypot(*(geometry.shape[axis] * geometry.spacing_mm[axis] for axis in axes))
        return cls(axes=axes, spacing_mm=geometry.spacing_mm, diagonal_mm=diagonal)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceScores:
    """Agreement of two surfaces.

    Attributes:
        nsd: Normalized surface Dice, 0 to 1: the share of both surfaces, in voxels, within the tolerance of the other.
        hd95_mm: Hausdorff distance without the farthest 5 %: the larger of the 95th percentiles of the distances of
            either surface from the other.
        assd_mm: Average symmetric surface distance: the mean over the voxels of both surfaces.
    """

    nsd: float
    hd95_mm: float
    assd_mm: float


def compare_surfaces(pair: MaskPair, ruler: Ruler, *, tolerance_mm: float) -> SurfaceScores:
    """Measures how far the surfaces of two masks are apart.

    A distance counts as within the tolerance up to 0.1 % above it, because headers hold rounded spacings: 1 mm is
    within 1 mm, also if the file says 1.0000001.

    Args:
        pair: The masks, both with voxels.
        ruler: Of the image that they were cut from.
        tolerance_mm: 0 or more.

    Raises:
        ValueError: A mask is empty.
    """
    forth, back = _distances(pair, ruler)
    every = np.concatenate([forth, back])
    return SurfaceScores(
        nsd=float(np.mean(every <= tolerance_mm * (1 + SPACING_TOLERANCE))),
        hd95_mm=float(max(np.percentile(forth, PERCENTILE), np.percentile(back, PERCENTILE))),
        assd_mm=float(every.mean()),
    )


def find_border(mask: NDArray[np.bool_], axes: tuple[int, ...]) -> NDArray[np.bool_]:
    """The voxels of a mask (z, y, x) with a neighbour outside it along one of the axes."""
    inner = mask.copy()
    for axis in axes:
        inner_along, mask_along = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        inner_along[1:] &= mask_along[:-1]
        inner_along[:-1] &= mask_along[1:]
        inner_along[:1] = inner_along[-1:] = False
    return mask & ~inner


def _distances(pair: MaskPair, ruler: Ruler) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From each border voxel of the reference to the nearest of the prediction in mm, and the other way."""
    one, other = (np.pad(find_border(mask, ruler.axes), REACH_VOXELS) for mask in (pair.reference, pair.prediction))
    if not one.any() or not other.any():
        raise ValueError("an empty mask has no surface")
    return _nearest(one, other, ruler), _nearest(other, one, ruler)


def _nearest(border: NDArray[np.bool_], other: NDArray[np.bool_], ruler: Ruler) -> NDArray[np.float64]:
    """Distance of each border voxel from the nearest of another border, in mm; both are padded by `REACH_VOXELS`.

    Decision: most distances are short, so the nearest neighbours of all voxels are looked at one after the other, and
    k-d trees, which are exact too, find the rest. Both cost what the surface is large. A distance transform fills the
    box: for organs of 2 to 9 million voxels it took 15 to 25 times as long as trees alone, and neighbours first are
    ten times as fast again. Where trees are slow, for concentric spheres and for noise, they still took less time.
    """
    flat_other = other.ravel()
    voxels = np.flatnonzero(border)
    distances = np.zeros(len(voxels))
    waiting = np.arange(len(voxels))
    for step, step_mm in _near_steps(border.shape, ruler):
        there = flat_other[voxels[waiting] + step]
        distances[waiting[there]] = step_mm
        waiting = waiting[~there]
    if waiting.size:

        def positions(flat: NDArray[np.intp]) -> NDArray[np.float64]:
            places = np.unravel_index(flat, border.shape)
            return np.stack([places[axis] * ruler.spacing_mm[axis] for axis in ruler.axes], axis=1)

        # Cells that are cut in the middle are built and searched faster than balanced ones where points form a grid.
        tree = cKDTree(positions(np.flatnonzero(flat_other)), balanced_tree=False, compact_nodes=False)
        distances[waiting] = tree.query(positions(voxels[waiting]))[0]
    return distances


def _near_steps(shape: tuple[int, ...], ruler: Ruler) -> list[tuple[int, float]]:
    """Steps to the neighbours of a voxel, the nearest first, in places of the flat array and in mm.

    All neighbours up to their distance are among them: what is out of reach along any axis is farther away.
    """
    reach = [range(-REACH_VOXELS, REACH_VOXELS + 1) if axis in ruler.axes else (0,) for axis in range(3)]
    out_of_reach_mm = (REACH_VOXELS + 1) * min(ruler.spacing_mm[axis] for axis in ruler.axes)
    steps = []
    for z, y, x in product(*reach):
        step_mm = math.hypot(*(step * size for step, size in zip((z, y, x), ruler.spacing_mm, strict=True)))
        if step_mm < out_of_reach_mm:
            steps.append(((z * shape[1] + y) * shape[2] + x, step_mm))
    return sorted(steps, key=lambda step: step[1])
