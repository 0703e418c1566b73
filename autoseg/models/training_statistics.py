"""Statistics of the training cases of a model, with which `inference.quality_checks` compares other images.

They are passed on with the model as training_statistics.json, and hold ranges and counts only, no names of cases.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Vector, voxel_size
from autoseg.imaging.orientation import is_orientation
from autoseg.runtime.artifact import Artifact
from autoseg.workspace import ModelFolder

LEVELS = (0.0, 0.05, 0.5, 0.95, 1.0)

LEAST_MARGIN, CASES_OF_MARGIN = 1.1, 20.0
"""The range of n training cases is widened by a factor of 1 + 20 / n, at least 1.1. Decision: one in (n + 1) / 2 new
cases of the same kind lies outside the range of n cases, so the fewer cases, the less their range says."""


class _Statistics(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spread(_Statistics):
    """The distribution of a number over the training cases: its quantiles of 0, 5, 50, 95 and 100 %.

    Example:
        >>> Spread.of([1.0, 2.0, 3.0]).median
        2.0
    """

    lowest: float
    low: float
    median: float
    high: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Measures the distribution of at least one number."""
        lowest, low, median, high, highest = (float(value) for value in np.quantile(values, LEVELS))
        return cls(lowest=lowest, low=low, median=median, high=high, highest=highest)


class ChannelStatistics(_Statistics):
    """Intensities of a channel.

    Attributes:
        lowest: Lowest intensity of a case.
        width: Difference of the highest and the lowest intensity of a case.
        foreground: Percentiles 0.5, 50 and 99.5 of the labelled voxels of all cases.
    """

    lowest: Spread
    width: Spread
    foreground: tuple[float, float, float]


class StructureStatistics(_Statistics):
    """Frequency and volume of a structure.

    Attributes:
        known_in: Number of training cases in which the structure was annotated if present.
        present_in: Number of those that have it.
        volume_mm3: Its volume in these; for planes an area in mm2, see `geometry.voxel_size`. None if there are none.
    """

    known_in: int
    present_in: int
    volume_mm3: Spread | None


class TrainingStatistics(Artifact):
    """Ranges and counts of the training cases of a model; training_statistics.json.

    Attributes:
        cases: Number of cases, including those that a fold held out.
        empty_cases: Number of cases with none of the structures.
        orientations: Orientation of images to the number of cases with it; pictures are left out.
        spacing_mm, size_mm: Spacing and size of the images along (z, y, x) of the files.
        channels: Key of each channel, in order, to its intensities; see `name_channels`.
        structures: Name of each structure to its frequency and volume.
    """

    cases: Annotated[int, Field(ge=1)]
    empty_cases: int
    orientations: dict[str, int]
    spacing_mm: tuple[Spread, Spread, Spread]
    size_mm: tuple[Spread, Spread, Spread]
    channels: dict[str, ChannelStatistics]
    structures: dict[str, StructureStatistics]

    @field_validator("orientations")
    @classmethod
    def _orientations_are_some(cls, orientations: dict[str, int]) -> dict[str, int]:
        for name in orientations:
            if not is_orientation(name):
                raise ValueError("an orientation is three letters such as SPL")
        return orientations

    @classmethod
    def of(cls, fingerprint: Fingerprint, info: DatasetInfo) -> Self:
        """Computes the statistics from the fingerprint of the training cases."""
        cases = fingerprint.cases
        return cls(
            cases=len(cases),
            empty_cases=sum(
                not any(_count_voxels(case, numbers) for numbers in info.targets.structures.values()) for case in cases
            ),
            orientations=dict(sorted(Counter(case.orientation for case in cases if case.orientation).items())),
            spacing_mm=_along_axes(case.spacing_mm for case in cases),
            size_mm=_along_axes(
                measure_size_mm(case.shape or case.shape_after_crop, case.spacing_mm) for case in cases
            ),
            channels={
                name: _measure_channel(number, facts, cases, info)
                for number, (name, facts) in enumerate(
                    zip(name_channels(tuple(info.channel_names.values())), fingerprint.channels, strict=True)
                )
                if all(case.intensities for case in cases)
            },
            structures={
                name: _measure_structure(name, numbers, cases, info)
                for name, numbers in info.targets.structures.items()
            },
        )

    @property
    def orientation(self) -> str | None:
        """The orientation of all training cases; None if they differ, or are pictures."""
        return next(iter(self.orientations)) if len(self.orientations) == 1 else None

    @property
    def margin(self) -> float:
        """The factor by which the range of the training cases is widened."""
        return max(LEAST_MARGIN, 1 + CASES_OF_MARGIN / self.cases)


def _measure_channel(
    number: int, facts: ChannelFacts, cases: Sequence[CaseFacts], info: DatasetInfo
) -> ChannelStatistics:
    """Measures a channel; if scans may lack channels, over the cases that have it, unless none has."""
    having = [case for case in cases if info.missing_channels and number not in case.missing_channels] or cases
    ranges = [case.intensities[number] for case in having]
    return ChannelStatistics(
        lowest=Spread.of([lowest for lowest, _ in ranges]),
        width=Spread.of([highest - lowest for lowest, highest in ranges]),
        foreground=(facts.percentile_00_5, facts.median, facts.percentile_99_5),
    )


def name_channels(names: Sequence[str]) -> tuple[str, ...]:
    """Returns a key for each channel: its name, with its number if several channels have that name.

    Example:
        >>> name_channels(("CT", "PET", "CT"))
        ('CT (channel 0)', 'PET', 'CT (channel 2)')
    """
    return tuple(f"{name} (channel {number})" if names.count(name) > 1 else name for number, name in enumerate(names))


def save_training_statistics(fingerprint: Path, info: DatasetInfo, path: Path) -> None:
    """Writes training_statistics.json, if the fingerprint of the training cases is there.

    Args:
        fingerprint: Path of the fingerprint.
        info: Channels and labels of the dataset.
        path: Path of training_statistics.json.

    Raises:
        ArtifactError: The fingerprint is damaged, or the folder cannot be written.
    """
    if fingerprint.is_file():
        TrainingStatistics.of(Fingerprint.load(fingerprint), info).save(path)


def load_training_statistics(folder: ModelFolder) -> TrainingStatistics | None:
    """Reads the statistics of a model's training cases; models of version 0.1 have them in expectation.json.

    Returns:
        The statistics; None if the model has none, as after training on nnU-Net's fingerprint.

    Raises:
        ArtifactError: The file is damaged.
    """
    for path in (folder.training_statistics, folder.old_training_statistics):
        if path.is_file():
            return TrainingStatistics.load(path)
    return None


def _measure_structure(
    name: str, numbers: Sequence[int], cases: Sequence[CaseFacts], info: DatasetInfo
) -> StructureStatistics:
    annotated = [case for case in cases if name not in info.unannotated_in(case.name)]
    volumes = [_count_voxels(case, numbers) * _voxel_size(case) for case in annotated]
    present = [volume for volume in volumes if volume > 0]
    spread = Spread.of(present) if present else None
    return StructureStatistics(known_in=len(annotated), present_in=len(present), volume_mm3=spread)


def _count_voxels(case: CaseFacts, numbers: Sequence[int]) -> int:
    return sum(label.voxels for label in case.labels if label.label in numbers)


def _voxel_size(case: CaseFacts) -> float:
    return voxel_size(case.spacing_mm, 2 if case.orientation is None else 3)  # a plane has no orientation


def measure_size_mm(shape: Sequence[int], spacing_mm: Vector) -> Vector:
    """Returns the size of a grid in mm along each axis, borders included.

    Example:
        >>> measure_size_mm((10, 20, 20), (3.0, 0.5, 0.5))
        (30.0, 10.0, 10.0)
    """
    z, y, x = (size * step for size, step in zip(shape, spacing_mm, strict=True))
    return z, y, x


def _along_axes(vectors: Iterable[Vector]) -> tuple[Spread, Spread, Spread]:
    z, y, x = (Spread.of(values) for values in zip(*vectors, strict=True))
    return z, y, x
