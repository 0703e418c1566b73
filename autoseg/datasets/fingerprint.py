"""What the data look like: facts of each case, gathered into the facts of the dataset; fingerprint.json.

Source of the contents and of the sampling rule: the reference method (nnU-Net v2.8.1, fingerprint extractor). All
facts are in the array order of the files, before any axis is moved. The voxels that are held do not grow with the
number of cases.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.imaging.cropping import box_around
from autoseg.imaging.geometry import Shape, Vector, Volume
from autoseg.runtime.artifact import Artifact

# Foreground voxels drawn from all cases together, for the percentiles. Decision: of two to four million draws, a 0.5 %
# percentile lies between the true ones of 0.49 % and 0.51 %. The reference draws 25 times as many.
FOREGROUND_SAMPLES = 4_000_000
SAMPLING_SEED = 1234  # Source: the reference method

# Voxels looked at in one step. Decision: few enough for the processor's cache, and a slice of 512 x 512 in full.
BLOCK_VOXELS = 2**18


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelFacts(_Facts):
    """One label in one case.

    Attributes:
        label: Its number.
        voxels: How many carry it.
        center: Mean position of these voxels along (z, y, x), as a fraction of the cropped case: 0 at one border, 1 at
            the other.
    """

    label: int
    voxels: int
    center: Vector


class CaseFacts(_Facts):
    """One case. What a fingerprint of nnU-Net does not hold is None or empty where one was read.

    Attributes:
        name: Of the case.
        shape: Voxels along (z, y, x).
        shape_after_crop: The same, after cropping to the non-zero region.
        spacing_mm: Distance of neighbouring voxels along (z, y, x).
        orientation: Where in the patient each array axis leads, such as "SPL" for (superior, posterior, left), the
            order of most volumes; None for pictures, which do not know.
        intensities: Per channel, smallest and largest value of the whole image.
        labels: The foreground labels that occur, by number.
    """

    name: str = ""
    shape: Shape | None = None
    shape_after_crop: Shape
    spacing_mm: Vector
    orientation: str | None = None
    intensities: tuple[tuple[float, float], ...] = ()
    labels: tuple[LabelFacts, ...] = ()


class ChannelFacts(_Facts):
    """Intensities of one channel over the foreground voxels of all cases."""

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
        median_relative_size_after_crop: Median over the cases of the share of voxels that cropping keeps.
    """

    format_version: int = 2

    cases: tuple[CaseFacts, ...]
    channels: tuple[ChannelFacts, ...]
    median_relative_size_after_crop: float


class CaseSummary(_Facts):
    """What the facts of the dataset need to know of one case, beside the voxels that are drawn.

    Attributes:
        facts: See there.
        foreground: Mean, deviation, minimum and maximum of each channel over all foreground voxels; empty if there are
            none.
    """

    facts: CaseFacts
    foreground: tuple[tuple[float, float, float, float], ...]


def draws_per_case(number_of_cases: int) -> int:
    """How many foreground voxels stand for each case, whatever its size, so that each weighs the same.

    Decision: an even share of `FOREGROUND_SAMPLES`, rounded down to a power of two. So the number seldom changes when a
    few cases are left out or added, and what is known of the others stays of use.
    """
    share = max(1, FOREGROUND_SAMPLES // max(1, number_of_cases))
    return 1 << (share.bit_length() - 1)


def fingerprint_case(name: str, image: Volume, label: Volume, *, draws: int) -> tuple[CaseSummary, NDArray[np.float32]]:
    """Takes the facts of one case, and draws from its foreground: the same voxels each time.

    Args:
        name: Of the case.
        image: Shape (c, z, y, x).
        label: Shape (z, y, x) on the same grid; every value above 0 is foreground. The largest value should be small,
            as the time and memory for it is spent even if it occurs once.
        draws: See `draws_per_case`.

    Returns:
        The facts, and the intensities of the drawn voxels, shape (c, n): n is `draws`, with replacement as in the
        reference, or less if the case has no more foreground voxels; then each is there once.
    """
    box = box_around(np.any(image.array, axis=0))  # filling holes does not move its borders
    inside = image.array[(..., *box.slices)]
    label_inside = label.array[box.slices]
    foreground, drawn = _look_at_foreground(inside, label_inside, draws)
    facts = CaseFacts(
        name=name,
        shape=image.geometry.shape,
        shape_after_crop=box.shape,
        spacing_mm=image.geometry.spacing_mm,
        orientation=image.geometry.orientation,
        intensities=tuple((float(channel.min()), float(channel.max())) for channel in image.array),
        labels=_label_facts(label_inside),
    )
    return CaseSummary(facts=facts, foreground=foreground), drawn


def fingerprint_dataset(
    cases: Sequence[CaseSummary], *, draws: int, read_draws: Callable[[str, int], NDArray[np.float32]]
) -> Fingerprint:
    """Gathers the facts of all cases; channels without any foreground voxel count as constant zero.

    Mean and deviation are what the reference's draws have on average: those of a mixture in which each case with
    foreground weighs the same. Decision: they and the extremes are exact; the percentiles are of the draws.

    Args:
        cases: In any order, at least one.
        draws: Voxels that stand for each case with foreground; where fewer were drawn, they are repeated evenly.
        read_draws: Gives the drawn voxels for the name of a case and a channel, 1 to `draws` of them. It is called
            again for each channel, so that the voxels of a single channel are held at a time.
    """
    cases = sorted(cases, key=lambda case: case.facts.name)
    filled = [case for case in cases if case.foreground]
    pooled = np.zeros((max(1, len(filled)), draws), dtype=np.float32)
    channels = []
    for channel in range(len(cases[0].facts.intensities)):
        for row, case in zip(pooled, filled, strict=False):
            values = read_draws(case.facts.name, channel)
            row[:] = values[np.arange(draws) * len(values) // draws]
        parts = np.array([case.foreground[channel] for case in filled] or [(0, 0, 0, 0)], dtype=np.float64)
        channels.append(_channel_facts(parts, pooled))
    facts = tuple(case.facts for case in cases)
    kept = np.median([math.prod(one.shape_after_crop) / math.prod(one.shape or one.shape_after_crop) for one in facts])
    return Fingerprint(cases=facts, channels=tuple(channels), median_relative_size_after_crop=float(kept))


def _channel_facts(parts: NDArray[np.float64], pooled: NDArray[np.float32]) -> ChannelFacts:
    """Facts of one channel from those of its cases, (cases, 4), and their draws, which are put into another order."""
    mean, std, minimum, maximum = (float(fact) for fact in _combine(parts, np.ones(len(parts))))
    low, median, high = (float(value) for value in np.percentile(pooled, (0.5, 50, 99.5), overwrite_input=True))
    facts = {"mean": mean, "median": median, "std": std, "minimum": minimum, "maximum": maximum}
    return ChannelFacts(**facts, percentile_00_5=low, percentile_99_5=high)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Cuts a grid into blocks of whole slices, or of whole rows where a slice is larger than a block may be."""
    z, y, x = shape
    slices = max(1, BLOCK_VOXELS // (y * x))
    rows = max(1, min(y, BLOCK_VOXELS // x))
    for z_start in range(0, z, slices):
        for y_start in range(0, y, rows):
            yield slice(z_start, min(z, z_start + slices)), slice(y_start, min(y, y_start + rows)), slice(0, x)


def _label_facts(label: NDArray[np.integer]) -> tuple[LabelFacts, ...]:
    """All labels in one pass, by runs: voxels of one label that follow each other in a row.

    A label map has far fewer runs than voxels. The row 0 0 3 3 3 0 5 5 0 0 has two of foreground: label 3, 3 voxels,
    mean place 3; and label 5, 2 voxels, mean place 6.5.
    """
    numbers = max(0, int(label.max())) + 1
    voxels, sums = np.zeros(numbers), np.zeros((3, numbers))  # whole and half numbers, which floats hold exactly
    for block in _blocks(label.shape):
        values, lengths, places = _runs(label[block])
        voxels += np.bincount(values, weights=lengths, minlength=numbers)
        for axis, place in enumerate(places):
            sums[axis] += np.bincount(values, weights=lengths * (place + block[axis].start), minlength=numbers)
    found = np.flatnonzero(voxels)
    centers = (sums[:, found] / voxels[found] + 0.5).T / label.shape
    return tuple(
        LabelFacts(label=int(number), voxels=int(voxels[number]), center=(float(z), float(y), float(x)))
        for number, (z, y, x) in zip(found, centers, strict=True)
    )


def _runs(label: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[NDArray[np.generic], ...]]:
    """Label, length and mean place (z, y, x) of each run of foreground."""
    _, height, width = label.shape
    flat = label.ravel()
    begins = np.empty(flat.size, dtype=bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=flat.size)
    kept = flat[starts] > 0
    starts, lengths = starts[kept], lengths[kept]
    rows, x = np.divmod(starts, width)
    z, y = np.divmod(rows, height)
    return flat[starts].astype(np.intp), lengths, (z, y, x + (lengths - 1) / 2)


def _look_at_foreground(
    image: NDArray[np.float32], label: NDArray[np.integer], draws: int
) -> tuple[tuple[tuple[float, float, float, float], ...], NDArray[np.float32]]:
    """What a summary holds of the foreground, and the drawn voxels, shape (c, n); both empty if there is none.

    Which voxels are drawn is settled first, as numbers among all foreground voxels in the order of the blocks, so that
    each block gives its own in passing. Of blocks of 3, 0 and 4 foreground voxels, numbers 1, 1 and 5 are the second
    voxel of the first block, twice, and the third of the last.
    """
    blocks = list(_blocks(label.shape))
    sizes = [int(np.count_nonzero(label[block] > 0)) for block in blocks]
    if not any(sizes):
        return (), np.zeros((len(image), 0), dtype=np.float32)
    ends = np.cumsum(sizes)
    numbers = np.arange(min(draws, ends[-1]))
    if ends[-1] > draws:
        numbers = np.sort(np.random.default_rng(SAMPLING_SEED).integers(ends[-1], size=draws))
    numbers_by_block = np.split(numbers, np.searchsorted(numbers, ends[:-1]))
    drawn, measured = [], []
    for block, size, end, here in zip(blocks, sizes, ends, numbers_by_block, strict=True):
        if size:
            mask = label[block] > 0
            values = np.stack([channel[block][mask] for channel in image])
            drawn.append(values[:, here - (end - size)])
            measured.append(_measure(values))
    facts = _combine(np.stack(measured), np.array([size for size in sizes if size], dtype=np.float64))
    foreground = tuple((float(mean), float(std), float(low), float(high)) for mean, std, low, high in facts.T)
    return foreground, np.concatenate(drawn, axis=1)


def _measure(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean, deviation, minimum and maximum of each channel; from (c, n) to (4, c)."""
    mean, std = values.mean(axis=1, dtype=np.float64), values.std(axis=1, dtype=np.float64)
    return np.stack([mean, std, values.min(axis=1), values.max(axis=1)])


def _combine(parts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean, deviation, minimum and maximum of a mixture, from those of its parts; from (parts, 4, ...) to (4, ...).

    The variance of a mixture is the mean variance of its parts plus the variance of their means.
    """
    means, stds = parts[:, 0], parts[:, 1]
    mean = np.average(means, axis=0, weights=weights)
    variance = np.average(stds**2 + (means - mean) ** 2, axis=0, weights=weights)
    return np.stack([mean, np.sqrt(variance), parts[:, 2].min(axis=0), parts[:, 3].max(axis=0)])
