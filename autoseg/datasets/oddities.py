"""What is odd about the cases of a dataset and no reason to stop: sizes beside all others, channels that hold nothing.

A header that says 1 mm where all others say 0.01 mm is no contradiction, so no single case shows it. But the case would
be resampled to a hundred times as many voxels along each axis, which takes the memory or the night.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Shape, Vector
from autoseg.imaging.spatial_words import describe_shape, describe_spacing
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.reporting import list_names
from autoseg.runtime.units import describe_memory

ODD_SPACING, ODD_SIZE = 4.0, 8.0
"""Ratios to the typical case, of an axis' spacing and of the voxels after resampling, from which a case is named.

Decision: slices of 0.7 to 5 mm occur in one dataset and cover the same part of the body, so that their size after
resampling is the same; a factor of two along each axis is a large patient."""

FEWEST_CASES = 3
"""Number of cases from which on one of them can be unlike the others."""

MOST_NAMED = 10
"""Number of cases that are named for their grid. Decision: more of them are no outliers, but a mixed dataset."""

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseExtent:
    """The size of a case in space and in intensity.

    Attributes:
        name: Name of the case.
        shape: Number of voxels along (z, y, x).
        spacing_mm: Distance of neighbouring voxels along (z, y, x).
        intensities: Smallest and largest value of each channel; empty if only the header was read.
    """

    name: str
    shape: Shape
    spacing_mm: Vector
    intensities: tuple[tuple[float, float], ...] = ()


def describe_oddities(extents: Sequence[CaseExtent], info: DatasetInfo) -> Iterator[str]:
    """Yields a line for each case whose grid is unlike that of all others, and for each channel without content."""
    yield from describe_odd_grids(extents, channels=info.channels)
    for number, title in enumerate(info.channel_names.values()):
        ranges = ((extent.name, extent.intensities[number]) for extent in extents if len(extent.intensities) > number)
        constant = [name for name, (lowest, highest) in ranges if lowest == highest]
        if constant:
            fact = "is missing" if info.missing_channels else "has the same value everywhere"
            share = f"{len(constant)} of {len(extents)} cases"
            yield f"channel {number} ({title}) {fact} in {share}: {list_names(constant)}"


def describe_odd_grids(extents: Sequence[CaseExtent], *, channels: int) -> Iterator[str]:
    """Yields a line for each case whose spacing would make it far larger or smaller than the others, or too large.

    It says how large the case would become at the median spacing, which is near that of the plan, and whether that fits
    into the free memory.

    Args:
        extents: All cases.
        channels: Number of channels of each, float32.

    Example:
        >>> usual = [CaseExtent(name=f"c{n}", shape=(12, 20, 20), spacing_mm=(1.0, 1.0, 1.0)) for n in range(3)]
        >>> odd = CaseExtent(name="c3", shape=(12, 20, 20), spacing_mm=(9.0, 9.0, 9.0))
        >>> print(*describe_odd_grids([*usual, odd], channels=1))  # doctest: +NORMALIZE_WHITESPACE
        case 'c3' has a spacing of 9 x 9 x 9 mm (x, y, z), the typical case 1 x 1 x 1 mm (x, y, z): resampled it would
        have 180 x 180 x 108 voxels (x, y, z), 14 MB, where most have 4800 voxels in all; correct its header, or leave
        it out with 'plan_and_preprocess --skip c3'
    """
    if not extents:
        return
    spacings, shapes = (np.array([getattr(e, key) for e in extents], dtype=float) for key in ("spacing_mm", "shape"))
    median_mm = np.median(spacings, axis=0)
    sizes = np.maximum(1, np.round(shapes * spacings / median_mm))
    voxels = sizes.prod(axis=1)
    steps, growth = spacings / median_mm, voxels / np.median(voxels)
    odd = (np.maximum(steps, 1 / steps).max(axis=1) > ODD_SPACING) & (np.maximum(growth, 1 / growth) > ODD_SIZE)
    odd &= len(extents) >= FEWEST_CASES
    needed, free = FLOAT_BYTES * channels * voxels, free_memory_bytes()
    named = np.flatnonzero(odd | (needed > (math.inf if free is None else free)))
    for index in named[:MOST_NAMED]:
        extent, size = extents[index], describe_shape(sizes[index].tolist())
        own_mm, usual_mm = describe_spacing(extent.spacing_mm), describe_spacing(median_mm.tolist())
        if odd[index]:
            reason = f"has a spacing of {own_mm}, the typical case {usual_mm}: resampled"
            most, fix = f", where most have {np.median(voxels):.6g} voxels in all", "correct its header"
        else:
            reason = f"would not fit into the memory: at the typical spacing of {usual_mm}"
            most, fix = "", "check its size and spacing, cut it, take a machine with more memory"
        short = "" if free is None or needed[index] <= free else f", and {describe_memory(free)} are free"
        skip = f"or leave it out with 'plan_and_preprocess --skip {extent.name}'"
        memory = describe_memory(needed[index])
        yield f"case {extent.name!r} {reason} it would have {size}, {memory}{most}{short}; {fix}, {skip}"
    if len(named) > MOST_NAMED:
        yield f"and {len(named) - MOST_NAMED} more cases are unlike the typical case, or too large for the memory"
