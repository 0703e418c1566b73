"""The fingerprint of a dataset: shapes, spacings, labels and intensities of all cases; fingerprint.json.

Source of the contents and of the sampling rule: nnU-Net v2.8.1, fingerprint extractor. All values are in the array
order of the files, before any axis is moved. The memory for sampled voxels does not grow with the number of cases.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.datasets.label_facts import LabelFacts, measure_labels, split_into_blocks
from autoseg.imaging.cropping import box_around
from autoseg.imaging.geometry import Shape, Vector, Volume
from autoseg.runtime.artifact import Artifact

# Number of foreground voxels sampled from all cases together, for the percentiles. Decision: with two to four million
# samples, the 0.5 % percentile lies between the true percentiles of 0.49 % and 0.51 %. nnU-Net samples 25 times as
# many.
FOREGROUND_SAMPLES = 4_000_000
SAMPLING_SEED = 1234  # Source: nnU-Net v2.8.1


class _FrozenModel(BaseModel):
    """Base of the parts of a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CaseFacts(_FrozenModel):
    """One case. Fields that nnU-Net's fingerprint does not have are None or empty if that was read.

    Attributes:
        name: Name of the case.
        shape: Number of voxels along (z, y, x).
        shape_after_crop: Number of voxels along (z, y, x) after cropping to the non-zero region.
        spacing_mm: Distance of neighbouring voxels along (z, y, x).
        orientation: Direction in the patient to which each array axis points, such as "SPL" for (superior, posterior,
            left), the order of most volumes; None for pictures, which have no orientation.
        intensities: Smallest and largest value of each channel of the whole image.
        labels: Foreground labels that occur, ordered by number.
    """

    name: str = ""
    shape: Shape | None = None
    shape_after_crop: Shape
    spacing_mm: Vector
    orientation: str | None = None
    intensities: tuple[tuple[float, float], ...] = ()
    labels: tuple[LabelFacts, ...] = ()

    @property
    def missing_channels(self) -> tuple[int, ...]:
        """Channels that hold the same value everywhere, although another does not: the scan lacks them.

        Example:
            >>> sizes = {"shape_after_crop": (1, 2, 2), "spacing_mm": (1.0, 1.0, 1.0)}
            >>> CaseFacts(intensities=((0.0, 5.0), (0.0, 0.0)), **sizes).missing_channels
            (1,)
        """
        constant = tuple(number for number, (lowest, highest) in enumerate(self.intensities) if lowest == highest)
        return constant if len(constant) < len(self.intensities) else ()


class ChannelFacts(_FrozenModel):
    """Intensities of one channel over the foreground voxels of all cases."""

    mean: float
    median: float
    std: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class Fingerprint(Artifact):
    """The measurements of a dataset; the plan follows from them and from dataset.json.

    Attributes:
        cases: Measurements of each case, ordered by name.
        channels: Intensities of each channel, in the order of the channels.
        median_relative_size_after_crop: Median over the cases of the fraction of voxels that cropping keeps.
    """

    format_version: int = 2

    cases: tuple[CaseFacts, ...]
    channels: tuple[ChannelFacts, ...]
    median_relative_size_after_crop: float


class CaseSummary(_FrozenModel):
    """Measurements of one case, from which, with its sampled voxels, those of the dataset are computed.

    Attributes:
        facts: Measurements that become part of the fingerprint.
        foreground: Mean, standard deviation, minimum and maximum of each channel over all foreground voxels; empty if
            there are none.
    """

    facts: CaseFacts
    foreground: tuple[tuple[float, float, float, float], ...]


def draws_per_case(number_of_cases: int) -> int:
    """Returns the number of foreground voxels that are sampled from each case, so that all cases have equal weight.

    Decision: an equal share of `FOREGROUND_SAMPLES`, rounded down to a power of two. So the number seldom changes when
    a few cases are left out or added, and the samples of the other cases can be reused.

    Example:
        >>> draws_per_case(260)
        8192
    """
    share = max(1, FOREGROUND_SAMPLES // max(1, number_of_cases))
    return 1 << (share.bit_length() - 1)


def fingerprint_case(name: str, image: Volume, label: Volume, *, draws: int) -> tuple[CaseSummary, NDArray[np.float32]]:
    """Measures one case, and samples voxels from its foreground; the same voxels each time.

    Args:
        name: Name of the case.
        image: Image, shape (c, z, y, x).
        label: Label map, shape (z, y, x), on the same grid; every value above 0 is foreground. The largest value should
            be small, because time and memory grow with it.
        draws: Number of voxels to sample; see `draws_per_case`.

    Returns:
        The measurements, and the intensities of the sampled voxels, shape (c, n). n is `draws`, sampled with
        replacement as in nnU-Net; if the case has no more foreground voxels than that, n is their number, and each is
        taken once.
    """
    box = box_around(np.any(image.array, axis=0))  # filling holes does not move its borders
    inside = image.array[(..., *box.slices)]
    label_inside = label.array[box.slices]
    foreground, drawn = _sample_foreground(inside, label_inside, draws)
    facts = CaseFacts(
        name=name,
        shape=image.geometry.shape,
        shape_after_crop=box.shape,
        spacing_mm=image.geometry.spacing_mm,
        orientation=image.geometry.orientation,
        intensities=tuple((float(channel.min()), float(channel.max())) for channel in image.array),
        labels=measure_labels(label_inside),
    )
    return CaseSummary(facts=facts, foreground=foreground), drawn


def fingerprint_dataset(
    cases: Sequence[CaseSummary], *, draws: int, read_draws: Callable[[str, int], NDArray[np.float32]]
) -> Fingerprint:
    """Pools the measurements of all cases; channels without any foreground voxel count as constant zero.

    A case counts for the channels that its scan has. Mean and standard deviation are the expected values of nnU-Net's
    samples: those of a mixture in which all cases with foreground have equal weight. Decision: they and the extremes
    are exact; the percentiles are those of the samples.

    Args:
        cases: Measurements of the cases, in any order, at least one.
        draws: Number of voxels that represent each case with foreground; if fewer were sampled, they are repeated
            evenly.
        read_draws: Returns the sampled voxels of a case, by its name and the channel, 1 to `draws` of them. It is
            called again for each channel, so that the voxels of only one channel are in memory at a time.
    """
    cases = sorted(cases, key=lambda case: case.facts.name)
    filled = [case for case in cases if case.foreground]
    samples = np.zeros((max(1, len(filled)), draws), dtype=np.float32)
    channels = []
    for channel in range(len(cases[0].facts.intensities)):
        having = [case for case in filled if channel not in case.facts.missing_channels] or filled
        pooled = samples[: max(1, len(having))]
        for row, case in zip(pooled, having, strict=False):
            values = read_draws(case.facts.name, channel)
            row[:] = values[np.arange(draws) * len(values) // draws]
        parts = np.array([case.foreground[channel] for case in having] or [(0, 0, 0, 0)], dtype=np.float64)
        channels.append(_channel_facts(parts, pooled))
    facts = tuple(case.facts for case in cases)
    kept = np.median(
        [math.prod(case.shape_after_crop) / math.prod(case.shape or case.shape_after_crop) for case in facts]
    )
    return Fingerprint(cases=facts, channels=tuple(channels), median_relative_size_after_crop=float(kept))


def _channel_facts(parts: NDArray[np.float64], pooled: NDArray[np.float32]) -> ChannelFacts:
    """Pools the intensities of one channel.

    Args:
        parts: Mean, standard deviation, minimum and maximum of each case, shape (cases, 4).
        pooled: Sampled voxels of all cases; they are reordered in place.
    """
    mean, std, minimum, maximum = (float(fact) for fact in _combine(parts, np.ones(len(parts))))
    low, median, high = (float(value) for value in np.percentile(pooled, (0.5, 50, 99.5), overwrite_input=True))
    facts = {"mean": mean, "median": median, "std": std, "minimum": minimum, "maximum": maximum}
    return ChannelFacts(**facts, percentile_00_5=low, percentile_99_5=high)


def _sample_foreground(
    image: NDArray[np.float32], label: NDArray[np.integer], draws: int
) -> tuple[tuple[tuple[float, float, float, float], ...], NDArray[np.float32]]:
    """Returns `CaseSummary.foreground` and the sampled voxels, shape (c, n); both are empty without foreground.

    The voxels are chosen first, as indices among all foreground voxels in the order of the blocks, so that each block
    is read once. With blocks of 3, 0 and 4 foreground voxels, the indices 1, 1 and 5 are the second voxel of the first
    block, twice, and the third voxel of the last block.
    """
    blocks = list(split_into_blocks(label.shape))
    sizes = [int(np.count_nonzero(label[block] > 0)) for block in blocks]
    if not any(sizes):
        return (), np.zeros((len(image), 0), dtype=np.float32)
    ends = np.cumsum(sizes)
    numbers = np.arange(min(draws, ends[-1]))
    if ends[-1] > draws:
        numbers = np.sort(np.random.default_rng(SAMPLING_SEED).integers(ends[-1], size=draws))
    numbers_by_block = np.split(numbers, np.searchsorted(numbers, ends[:-1]))
    drawn, measured = [], []
    for block, size, end, block_numbers in zip(blocks, sizes, ends, numbers_by_block, strict=True):
        if size:
            mask = label[block] > 0
            values = np.stack([channel[block][mask] for channel in image])
            drawn.append(values[:, block_numbers - (end - size)])
            measured.append(_measure(values))
    facts = _combine(np.stack(measured), np.array([size for size in sizes if size], dtype=np.float64))
    foreground = tuple((float(mean), float(std), float(low), float(high)) for mean, std, low, high in facts.T)
    return foreground, np.concatenate(drawn, axis=1)


def _measure(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns mean, standard deviation, minimum and maximum of each channel; from shape (c, n) to (4, c)."""
    mean, std = values.mean(axis=1, dtype=np.float64), values.std(axis=1, dtype=np.float64)
    return np.stack([mean, std, values.min(axis=1), values.max(axis=1)])


def _combine(parts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns mean, standard deviation, minimum and maximum of a mixture; from (parts, 4, ...) to (4, ...).

    The variance of a mixture is the mean variance of its parts plus the variance of their means.
    """
    means, stds = parts[:, 0], parts[:, 1]
    mean = np.average(means, axis=0, weights=weights)
    variance = np.average(stds**2 + (means - mean) ** 2, axis=0, weights=weights)
    return np.stack([mean, np.sqrt(variance), parts[:, 2].min(axis=0), parts[:, 3].max(axis=0)])
