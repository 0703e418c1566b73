"""Quality checks: remarks about an image or a segmentation that looks unlike the training cases; none about usual ones.

A remark is a short sentence, such as "liver is implausibly small: 3 ml, in training 900 to 2100 ml".
"""

from collections.abc import Collection, Iterator, Mapping
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
"""Share of the training cases with a structure from which a result without it is remarked on. Decision: of the results
that rightly lack it, one in twenty at most is remarked on."""

LEVEL_TOLERANCE = 0.25
"""How far the lowest intensity may lie outside the range of the training cases, as a share of the usual width of
intensities. Decision: CT values that were stored with 1024 added are outside, noise in the air is not."""

VOLUME_FACTOR = 5.0
"""A structure below a fifth of the smallest, or above five times the largest of the training cases is implausible.
Decision: cases of the same kind never are, and what is left of an organ that was missed mostly is."""

LOW_AGREEMENT = 0.7
"""Agreement below which folds and mirror images found different structures. Decision: 0.7; of 44 held-out hippocampus
scans, segmented by four folds, none was below 0.92."""

AXES = ("z", "y", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProperties:
    """The properties of an image that are compared with those of the training cases.

    Attributes:
        spacing_mm, size_mm: Along (z, y, x), after the image was reoriented as the training cases are, if it was.
        orientation: Orientation of the image as it was read; None for a picture.
        intensities: For each channel the lowest and the highest intensity; None for a channel that the scan lacks.
    """

    spacing_mm: Vector
    size_mm: Vector
    orientation: str | None
    intensities: tuple[tuple[float, float] | None, ...]

    @classmethod
    def of(cls, image: Volume, statistics: TrainingStatistics, missing_channels: Collection[int] = ()) -> Self:
        """Measures an image (c, z, y, x) as it was read, with zeros for the channels that are missing."""
        target, grid = statistics.orientation, image.geometry
        oriented = grid if target is None or grid.orientation is None else grid.reoriented(target)
        return cls(
            spacing_mm=oriented.spacing_mm,
            size_mm=measure_size_mm(oriented.shape, oriented.spacing_mm),
            orientation=grid.orientation,
            intensities=tuple(
                None if number in missing_channels else (float(channel.min()), float(channel.max()))
                for number, channel in enumerate(image.array)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCheck:
    """The measurements of a segmentation, and remarks about what looks unlike the training cases.

    Attributes:
        volumes_ml: Name of each structure to its volume in ml; a plane counts as 1 mm thick.
        remarks: Remarks about the image, then about the segmentation.
    """

    volumes_ml: dict[str, float]
    remarks: tuple[str, ...]


def check_quality(
    segmentation: Volume,
    targets: Targets,
    agreement: Mapping[str, float],
    statistics: TrainingStatistics | None,
    image: ImageProperties | None,
) -> QualityCheck:
    """Measures the structures of a segmentation, and compares it and its image with the training cases.

    Args:
        segmentation: A label map (z, y, x), or a mask for each structure (structures, z, y, x).
        targets: What its numbers, or masks, mean.
        agreement: Name of each structure to the agreement of folds and mirror images about it, 0 to 1 or NaN; see
            `agreement`.
        statistics: Statistics of the training cases, if the model has them; without them only low agreement is
            remarked on.
        image: Properties of the image, if there are statistics.
    """
    volumes_mm3 = measure_volumes(segmentation, targets, segmentation.geometry.voxel_size)
    remarks = [] if statistics is None or image is None else check_image(statistics, image)
    remarks += check_segmentation(statistics, volumes_mm3, agreement)
    volumes_ml = {name: volume / 1000 for name, volume in volumes_mm3.items()}
    return QualityCheck(volumes_ml=volumes_ml, remarks=tuple(remarks))


def check_image(statistics: TrainingStatistics, image: ImageProperties) -> list[str]:
    """Returns remarks about an image that looks unlike the training cases."""
    remarks = list(_check_orientation(statistics, image.orientation))
    for axis, (spacing, size) in enumerate(zip(image.spacing_mm, image.size_mm, strict=True)):
        if axis == 0 and image.orientation is None:
            continue  # the thickness of a plane is made up
        remarks += _check_range(f"spacing along {AXES[axis]}", spacing, "mm", statistics.spacing_mm[axis], statistics)
        remarks += _check_range(f"size along {AXES[axis]}", size, "mm", statistics.size_mm[axis], statistics)
    if len(statistics.channels) == len(image.intensities):  # statistics of version 0.1 hold one channel of each name
        for (name, channel), ends in zip(statistics.channels.items(), image.intensities, strict=True):
            remarks += (
                [f"channel {name} is missing"] if ends is None else _check_channel(name, channel, *ends, statistics)
            )
    return remarks


def check_segmentation(
    statistics: TrainingStatistics | None, volumes_mm3: Mapping[str, float], agreement: Mapping[str, float]
) -> list[str]:
    """Returns remarks about a segmentation that looks implausible.

    Example:
        >>> check_segmentation(None, {"liver": 1.5e6}, {"liver": 0.412})
        ['liver: folds and mirror images agree little, 0.41']

    Args:
        statistics: Statistics of the training cases, if the model has them.
        volumes_mm3: Name of each structure to its volume after postprocessing.
        agreement: See `check_quality`.
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
        structure = statistics.structures.get(name)
        if structure is not None and structure.volume_mm3 is not None:
            remarks += _check_structure(name, structure, structure.volume_mm3, volume)
    return remarks + low


def measure_volumes(segmentation: Volume, targets: Targets, voxel: float) -> dict[str, float]:
    """Returns the volume of each structure in mm3.

    Example:
        >>> from autoseg.imaging.geometry import Geometry
        >>> geometry = Geometry(shape=(1, 1, 3), spacing_mm=(1.0, 1.0, 2.0))
        >>> label_map = Volume(array=np.array([[[0, 1, 1]]]), geometry=geometry)
        >>> measure_volumes(label_map, Targets.of_labels({"liver": 1}), voxel=2.0)
        {'liver': 4.0}

    Args:
        segmentation: A label map (z, y, x), or a mask for each structure (structures, z, y, x).
        targets: What its numbers, or masks, mean.
        voxel: Volume of a voxel in mm3.
    """
    array, structures = segmentation.array, targets.structures
    if array.ndim == 4:
        return {name: float(np.count_nonzero(mask) * voxel) for name, mask in zip(structures, array, strict=True)}
    # Plane by plane, because each number is widened to 64 bits first.
    counts = np.zeros(max(targets.values) + 1, dtype=np.int64)
    for plane in array:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return {name: float(counts[list(numbers)].sum() * voxel) for name, numbers in structures.items()}


def _check_orientation(statistics: TrainingStatistics, orientation: str | None) -> Iterator[str]:
    trained = statistics.orientations
    if orientation is None or not trained or orientation in trained:
        return
    if statistics.orientation is not None:
        yield f"its axes lead {orientation}, those of training {statistics.orientation}; it was turned for the model"
    else:
        yield f"its axes lead {orientation}, as in no training case ({', '.join(trained)})"


def _check_channel(
    name: str, channel: ChannelStatistics, lowest: float, highest: float, statistics: TrainingStatistics
) -> Iterator[str]:
    if lowest == highest:
        if channel.width.lowest == 0:
            return  # a channel that is empty in training too, such as the third colour of two dyes
        yield f"channel {name} has the value {lowest:g} everywhere"
        return
    about_width = f"width of the intensities of {name}"
    remarks = list(_check_range(about_width, highest - lowest, "", channel.width, statistics))
    yield from remarks
    distance = max(channel.lowest.lowest - lowest, lowest - channel.lowest.highest)
    if not remarks and distance > LEVEL_TOLERANCE * channel.width.median:
        trained = _describe_range(channel.lowest.lowest, channel.lowest.highest, "")
        yield f"lowest intensity of {name} is {lowest:g}, in training {trained}"


def _check_structure(name: str, structure: StructureStatistics, usual: Spread, volume: float) -> Iterator[str]:
    if volume == 0:
        if structure.present_in >= NEARLY_ALL * structure.known_in:
            yield f"no {name} was found, which {structure.present_in} of {structure.known_in} training cases had"
    elif not usual.lowest / VOLUME_FACTOR <= volume <= usual.highest * VOLUME_FACTOR:
        word = "small" if volume < usual.lowest else "large"
        trained = _describe_range(usual.lowest / 1000, usual.highest / 1000, " ml")
        yield f"{name} is implausibly {word}: {volume / 1000:.3g} ml, in training {trained}"


def _check_range(name: str, value: float, unit: str, trained: Spread, statistics: TrainingStatistics) -> Iterator[str]:
    """Remarks on a positive number that lies outside the range of the training cases, widened by a margin."""
    margin = statistics.margin
    if not trained.lowest / margin <= value <= trained.highest * margin:
        unit = " " * bool(unit) + unit
        yield f"{name} is {value:.4g}{unit}, in training {_describe_range(trained.lowest, trained.highest, unit)}"


def _describe_range(lowest: float, highest: float, unit: str) -> str:
    """Describes a range, such as "1 to 2 mm", or "1 mm" if both ends are the same.

    Example:
        >>> _describe_range(1.0, 2.0, " mm")
        '1 to 2 mm'
    """
    ends = dict.fromkeys(f"{value:.4g}" for value in (lowest, highest))
    return f"{' to '.join(ends)}{unit}"
