"""Probabilities of each class on the grid of the image file, one class at a time.

The probability of one of several classes is the softmax over all of them at full resolution, which needs the sum over
all. So the classes are gone through twice: first to sum, then to divide. Each is resampled twice, but however many
classes there are, only a few volumes of full resolution are in memory. The probability of a region is the sigmoid of
its own logit.

Where a model is calibrated, logits are divided by the temperature of the class that wins at the voxel, see
`evaluation.reliability`. Which one that is must be known first, so the classes are gone through three times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Volume
from autoseg.preprocessing.case import PreprocessRecord, logits_as_array, uncrop
from autoseg.preprocessing.resampling import resample_image

if TYPE_CHECKING:
    import torch

BACKGROUND = 0

Map = NDArray[np.float32]


def restore_probabilities(
    logits: NDArray[np.floating] | torch.Tensor,
    record: PreprocessRecord,
    outputs: Sequence[int] | None = None,
    *,
    exclusive: bool = True,
    temperatures: Sequence[float] | None = None,
) -> Iterator[Volume]:
    """Brings the logits of a preprocessed case back to the grid of its image file, as probabilities.

    Logits are resampled as for `restore_case`, linearly, so its label map holds the most probable class of these maps.
    Outside the cropping box the background has probability 1. Source: the reference method.

    Args:
        logits: Shape (outputs, *record.shape), of 16 or 32 bit; they are not changed.
        record: The record of the case.
        outputs: Outputs whose maps are returned, in this order; None for all.
        exclusive: Whether the outputs are classes that exclude each other, the background first, or regions.
        temperatures: A temperature for each output; None for probabilities as the networks give them. The most
            probable class of a voxel stays the same, and the side of one half on which a region is.

    Yields:
        A map (z, y, x) per output, float32, 0 to 1, with the geometry of the image file; each is made when it is asked
        for. The maps of all classes sum to 1.

    Raises:
        ValueError: The logits lie on another grid than the preprocessed case.

    Example:
        >>> from autoseg.imaging.geometry import Box, Geometry
        >>> record = PreprocessRecord(
        ...     geometry=Geometry(shape=(1, 1, 2), spacing_mm=(1.0, 1.0, 1.0)),
        ...     axis_order=(0, 1, 2),
        ...     box=Box(start=(0, 0, 0), stop=(1, 1, 1)),
        ...     shape=(1, 1, 1),
        ...     spacing_mm=(1.0, 1.0, 1.0),
        ... )
        >>> logits = np.zeros((2, 1, 1, 1), dtype=np.float32)
        >>> [volume.array.tolist() for volume in restore_probabilities(logits, record)]
        [[[[0.5, 1.0]]], [[[0.5, 0.0]]]]
    """
    values = logits_as_array(logits, record)

    def resample(number: int) -> Map:
        volume = values[number : number + 1].astype(np.float32, copy=False)
        resampled = resample_image(volume, record.spacing_mm, record.box.shape, record.box_spacing_mm, order=1)
        return np.asarray(resampled[0])

    chosen = range(len(values)) if outputs is None else outputs
    if exclusive:
        return _restore_each(resample, len(values), chosen, record, temperatures)
    divisors = (1.0,) * len(values) if temperatures is None else temperatures
    return (uncrop(_sigmoid(resample(number) / np.float32(divisors[number])), record, outside=0.0) for number in chosen)


def restore_map(values: Map, record: PreprocessRecord) -> Volume:
    """Brings a map of a preprocessed case back to the grid of its image file: linearly, and 0 outside the cropping box.

    Args:
        values: Shape (z, y, x), 0 to 1.
        record: The record of the case.

    Raises:
        ValueError: The map lies on another grid than the preprocessed case.
    """
    volume = logits_as_array(values[np.newaxis], record).astype(np.float32, copy=False)
    resampled = resample_image(volume, record.spacing_mm, record.box.shape, record.box_spacing_mm, order=1)[0]
    return uncrop(resampled.clip(0, 1), record, outside=0.0)


def _restore_each(
    resample: Callable[[int], Map],
    count: int,
    chosen: Sequence[int],
    record: PreprocessRecord,
    temperatures: Sequence[float] | None,
) -> Iterator[Volume]:
    """Yields the softmax of each chosen class.

    No volume is bound to a name while the next one is made, which would be one volume more in memory.
    """
    if not chosen:
        return
    divided = resample if temperatures is None else _divide(resample, _find_temperatures(resample, temperatures))
    highest, total = _sum_exponentials(divided, count)
    for number in chosen:
        yield uncrop(_softmax(divided(number), highest, total), record, outside=float(number == BACKGROUND))


def _divide(resample: Callable[[int], Map], divisors: Map) -> Callable[[int], Map]:
    """Returns a function that gives the logits of a class, divided voxel by voxel."""
    return lambda number: np.asarray(resample(number) / divisors)


def _find_temperatures(resample: Callable[[int], Map], temperatures: Sequence[float]) -> Map:
    """Returns the temperature of the class with the highest logit at each voxel, the first of several."""
    highest = resample(0).copy()
    found = np.full_like(highest, temperatures[0])
    for number in range(1, len(temperatures)):
        logits = resample(number)
        np.copyto(found, np.float32(temperatures[number]), where=logits > highest)
        np.maximum(highest, logits, out=highest)
    return found


def _sum_exponentials(resample: Callable[[int], Map], count: int) -> tuple[Map, Map]:
    """Returns the highest logit of each voxel, and the sum of exp(logit - highest) over the classes."""
    highest = resample(0).copy()
    total = np.ones_like(highest)
    for number in range(1, count):
        _add_exponentials(resample(number), highest, total)
    return highest, total


def _add_exponentials(logits: Map, highest: Map, total: Map) -> None:
    """Adds a class to the sum of exponentials, in place.

    The sum is scaled down where the logit is higher than those before, so nothing overflows.
    """
    for plane in range(len(logits)):  # a plane fits into the cache of a core
        new, before = logits[plane], highest[plane]
        higher = np.maximum(before, new)
        total[plane] *= np.exp(before - higher)
        total[plane] += np.exp(new - higher)
        highest[plane] = higher


def _sigmoid(logits: Map) -> Map:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # this form cannot overflow


def _softmax(logits: Map, highest: Map, total: Map) -> Map:
    result = logits - highest
    np.exp(result, out=result)
    result /= total
    return result
