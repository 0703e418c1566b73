"""What the data look like: facts of each case, gathered into the facts of the dataset; fingerprint.json.

Source of the contents and of the sampling rule: the reference method (nnU-Net v2.8.1, fingerprint extractor). All
facts are in the array order of the files, before any axis is moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.artifact import Artifact
from autoseg.geometry import Shape, Vector, Volume
from autoseg.preprocessing.cropping import nonzero_region

# Voxels drawn in all and from one case at most, the same number from each case so that each weighs the same whatever
# the size of its foreground. Source of the rule: the reference method, which draws ten times as many. Decision:
# percentiles of this many draws differ by less than the noise of a scan, in a tenth of the time and memory.
FOREGROUND_SAMPLES = 10_000_000
FOREGROUND_SAMPLES_PER_CASE = 200_000
SAMPLING_SEED = 1234  # Source: the reference method


class CaseFacts(BaseModel):
    """One case: its name, its grid, and its shape after cropping to the non-zero region."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: Shape
    shape_after_crop: Shape
    spacing_mm: Vector


class ChannelFacts(BaseModel):
    """Intensities of one channel over the foreground voxels of all cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    median: float
    std: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class Fingerprint(Artifact):
    """The facts of a dataset, from which alone the plan follows.

    Attributes:
        cases: By name.
        channels: In the order of the channels.
    """

    version: ClassVar[int] = 1

    cases: tuple[CaseFacts, ...]
    channels: tuple[ChannelFacts, ...]

    @property
    def median_relative_size_after_crop(self) -> float:
        """Median over the cases of the share of voxels that cropping keeps."""
        shares = [np.prod(case.shape_after_crop, dtype=float) / np.prod(case.shape, dtype=float) for case in self.cases]
        return float(np.median(shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSample:
    """The facts of one case with a sample of its foreground.

    Attributes:
        facts: See there.
        intensities: Shape (c, n), float32: n foreground voxels, drawn with replacement; n is 0 without foreground.
    """

    facts: CaseFacts
    intensities: NDArray[np.float32]


def fingerprint_case(name: str, image: Volume, label: Volume, *, number_of_cases: int) -> CaseSample:
    """Takes the facts of one case.

    Args:
        name: Of the case.
        image: Shape (c, z, y, x).
        label: Shape (z, y, x) on the same grid; every value above 0 is foreground.
        number_of_cases: Of the dataset; the more there are, the fewer voxels are drawn from each.
    """
    box, _ = nonzero_region(image.array)
    inside = (..., *box.slices)
    foreground = image.array[inside][:, label.array[inside] > 0]
    count = min(max(1, FOREGROUND_SAMPLES // number_of_cases), FOREGROUND_SAMPLES_PER_CASE)
    if foreground.shape[1] > 0:
        random = np.random.default_rng(SAMPLING_SEED)
        foreground = foreground[:, random.integers(foreground.shape[1], size=count)]
    facts = CaseFacts(
        name=name,
        shape=image.geometry.shape,
        shape_after_crop=box.shape,
        spacing_mm=image.geometry.spacing_mm,
    )
    return CaseSample(facts=facts, intensities=foreground.astype(np.float32))


def fingerprint_dataset(samples: Sequence[CaseSample]) -> Fingerprint:
    """Gathers the facts of all cases; channels without any foreground voxel count as constant zero."""
    pooled = np.concatenate([sample.intensities for sample in samples], axis=1)
    if pooled.shape[1] == 0:
        pooled = np.zeros((pooled.shape[0], 1), dtype=np.float32)
    cases = sorted((sample.facts for sample in samples), key=lambda facts: facts.name)
    return Fingerprint(cases=tuple(cases), channels=tuple(_channel_facts(channel) for channel in pooled))


def _channel_facts(values: NDArray[np.float32]) -> ChannelFacts:
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return ChannelFacts(
        mean=float(values.mean(dtype=np.float64)),
        median=float(median),
        std=float(values.std(dtype=np.float64)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )
