"""Sentences about a scan, or a segmentation, that looks unlike what a model learned from; none about usual ones."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from autoseg.imaging.geometry import Vector, Volume
from autoseg.imaging.targets import Targets
from autoseg.models.training_statistics import (
    ChannelStatistics,
    Spread,
    StructureStatistics,
    TrainingStatistics,
    measure_size_mm,
)

NEARLY_ALL = 0.95
"""Of the training cases: what so many had is missed in a result. Decision: of the results that rightly lack it, one in
twenty at most is remarked on."""

LEVEL_TOLERANCE = 0.25
"""How far, in the usual width of intensities, the lowest one may lie outside the range of the training cases. Decision:
CT values that were stored with 1024 added are out, noise in the air is not."""

VOLUME_FACTOR = 5.0
"""A structure below a fifth of the smallest, or above five times the largest of the training cases is implausible.
Decision: cases of the same kind never are, and what is left of an organ that was missed mostly is."""

LOW_AGREEMENT = 0.7
"""Below it, what folds and mirror images make of a structure are different things. Decision: 0.7; of 44 held-out
hippocampus scans, segmented by four folds, none was below 0.92."""

AXES = ("z", "y", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is remembered of an image.

    Attributes:
        spacing_mm, size_mm: Along (z, y, x) as training cases lie, if the image was turned as they do.
        orientation: Where its own axes lead; None for a picture.
        intensities: Per channel the lowest and the highest.
    """

    spacing_mm: Vector
    size_mm: Vector
    orientation: str | None
    intensities: tuple[tuple[float, float], ...]

    @classmethod
    def at(cls, image: Volume, statistics: TrainingStatistics) -> Self:
        """Looks at an image (c, z, y, x) as it was read."""
        wanted, grid = statistics.orientation, image.geometry
        lying = grid if wanted is None or grid.orientation is None else grid.reoriented(wanted)
        return cls(
            spacing_mm=lying.spacing_mm,
            size_mm=measure_size_mm(lying.shape, lying.spacing_mm),
            orientation=grid.orientation,
            intensities=tuple((float(channel.min()), float(channel.max())) for channel in image.array),
        )


def remark_on_image(statistics: TrainingStatistics, look: Look) -> list[str]:
    """Short sentences about what looks unlike the training cases in an image; none about a usual one."""
    sides = enumerate(zip(look.spacing_mm, look.size_mm, strict=True))
    remarks = list(_remark_on_orientation(statistics, look.orientation))
    for axis, (spacing, size) in sides:
        if axis == 0 and look.orientation is None:
            continue  # the thickness of a plane is made up
        remarks += _outside(f"spacing along {AXES[axis]}", spacing, "mm", statistics.spacing_mm[axis], statistics)
        remarks += _outside(f"size along {AXES[axis]}", size, "mm", statistics.size_mm[axis], statistics)
    for (name, known), (lowest, highest) in zip(statistics.channels.items(), look.intensities, strict=False):
        remarks += _remark_on_channel(name, known, lowest, highest, statistics)
    return remarks


def remark_on_result(
    statistics: TrainingStatistics | None, volumes_mm3: Mapping[str, float], agreement: Mapping[str, float]
) -> list[str]:
    """Short sentences about what looks unlikely in a segmentation; none about a usual one.

    Args:
        statistics: Of the model, if it has one.
        volumes_mm3: Of each structure, after postprocessing.
        agreement: Of folds and mirror images about each, 0 to 1 or NaN; see `inference.agreement`.
    """
    low = [
        f"{name}: folds and mirror images agree little, {value:.2f}"
        for name, value in agreement.items()
        if value < LOW_AGREEMENT
    ]
    if statistics is None:
        return low
    if not any(volumes_mm3.values()):
        return ["nothing was found", *low] if statistics.empty_cases <= (1 - NEARLY_ALL) * statistics.cases else low
    remarks: list[str] = []
    for name, volume in volumes_mm3.items():
        known = statistics.structures.get(name)
        if known is not None and known.volume_mm3 is not None:
            remarks += _remark_on_structure(name, known, known.volume_mm3, volume)
    return remarks + low


def make_remarks(
    statistics: TrainingStatistics | None,
    look: Look | None,
    volumes_mm3: Mapping[str, float],
    agreement: Mapping[str, float],
) -> list[str]:
    """All that is remarkable about an image and its segmentation; of a model without statistics, low agreement."""
    about_image = [] if statistics is None or look is None else remark_on_image(statistics, look)
    return about_image + remark_on_result(statistics, volumes_mm3, agreement)


def measure_volumes(segmentation: Volume, targets: Targets, voxel: float) -> dict[str, float]:
    """The volume of each structure in mm3.

    Args:
        segmentation: A label map (z, y, x), or a mask for each structure (structures, z, y, x).
        targets: What its numbers, or masks, mean.
        voxel: Volume of a voxel in mm3, or area of a plane's pixel in mm2.
    """
    array, structures = segmentation.array, targets.structures
    if array.ndim == 4:
        return {name: float(np.count_nonzero(mask) * voxel) for name, mask in zip(structures, array, strict=True)}
    counts = np.bincount(array.ravel(), minlength=max(targets.values) + 1)
    return {name: float(counts[list(numbers)].sum() * voxel) for name, numbers in structures.items()}


def _remark_on_orientation(statistics: TrainingStatistics, orientation: str | None) -> Iterator[str]:
    known = statistics.orientations
    if orientation is None or not known or orientation in known:
        return
    if statistics.orientation is not None:
        yield f"its axes lead {orientation}, those of training {statistics.orientation}; it was turned for the model"
    else:
        yield f"its axes lead {orientation}, as in no training case ({', '.join(known)})"


def _remark_on_channel(
    name: str, known: ChannelStatistics, lowest: float, highest: float, statistics: TrainingStatistics
) -> Iterator[str]:
    if lowest == highest:
        yield f"channel {name} has the value {lowest:g} everywhere"
        return
    unlike = list(_outside(f"width of the intensities of {name}", highest - lowest, "", known.width, statistics))
    yield from unlike
    off = max(known.lowest.lowest - lowest, lowest - known.lowest.highest)
    if not unlike and off > LEVEL_TOLERANCE * known.width.median:
        trained = _range(known.lowest.lowest, known.lowest.highest, "")
        yield f"lowest intensity of {name} is {lowest:g}, in training {trained}"


def _remark_on_structure(name: str, known: StructureStatistics, usual: Spread, volume: float) -> Iterator[str]:
    if volume == 0:
        if known.present_in >= NEARLY_ALL * known.known_in:
            yield f"no {name} was found, which {known.present_in} of {known.known_in} training cases had"
    elif not usual.lowest / VOLUME_FACTOR <= volume <= usual.highest * VOLUME_FACTOR:
        word = "small" if volume < usual.lowest else "large"
        trained = _range(usual.lowest / 1000, usual.highest / 1000, " ml")
        yield f"{name} is implausibly {word}: {volume / 1000:.3g} ml, in training {trained}"


def _outside(what: str, value: float, unit: str, known: Spread, statistics: TrainingStatistics) -> Iterator[str]:
    """Remarks on a positive number that lies outside what the training cases span, and a margin."""
    margin = statistics.margin
    if not known.lowest / margin <= value <= known.highest * margin:
        space = " " * bool(unit)
        yield f"{what} is {value:.4g}{space}{unit}, in training {_range(known.lowest, known.highest, space + unit)}"


def _range(lowest: float, highest: float, unit: str) -> str:
    """Such as "1 to 2 mm", or "1 mm" if both are the same."""
    ends = dict.fromkeys(f"{value:.4g}" for value in (lowest, highest))
    return f"{' to '.join(ends)}{unit}"
