"""How sure a network is of each class, on the grid of the image file, one class at a time.

The probability of one of several classes is the softmax over all of them at full resolution, which needs the sum over
all. So the classes are gone through twice: first to sum, then to divide. Each is resampled twice, but however many
there are, only a few volumes of full resolution are in memory. That of a region is the sigmoid of its own logit.
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
) -> Iterator[Volume]:
    """Brings the logits of a preprocessed case back to the grid of its image file, as probabilities.

    Logits are resampled as for `restore_case`, linearly, so its label map holds the class that is likeliest here.
    Outside the cropping box the background is certain. Source: the reference method.

    Args:
        logits: Shape (outputs, *record.shape), of 16 or 32 bit, in the memory of the CPU; left as they are.
        record: Of the case.
        outputs: Whose maps are wanted, in this order; all by default.
        exclusive: Whether the outputs are classes that exclude each other, the background first, or regions.

    Yields:
        A map (z, y, x) per output, float32, 0 to 1, with the geometry of the image file; made when it is asked for.
        Those of all classes sum to 1.

    Raises:
        ValueError: The logits lie on another grid than the preprocessed case.
    """
    values = logits_as_array(logits, record)

    def resample(number: int) -> Map:
        one = values[number : number + 1].astype(np.float32, copy=False)
        grown = resample_image(one, record.spacing_mm, record.box.shape, record.box_spacing_mm, order=1)
        return np.asarray(grown[0])

    wanted = range(len(values)) if outputs is None else outputs
    if exclusive:
        return _restore_each(resample, len(values), wanted, record)
    return (uncrop(_sigmoid(resample(number)), record, outside=0.0) for number in wanted)


def restore_map(values: Map, record: PreprocessRecord) -> Volume:
    """Brings a map (z, y, x), 0 to 1, of a preprocessed case back to the grid of its image file: linearly, 0 outside.

    Raises:
        ValueError: The map lies on another grid than the preprocessed case.
    """
    one = logits_as_array(values[np.newaxis], record).astype(np.float32, copy=False)
    grown = resample_image(one, record.spacing_mm, record.box.shape, record.box_spacing_mm, order=1)[0]
    return uncrop(grown.clip(0, 1), record, outside=0.0)


def _restore_each(
    resample: Callable[[int], Map], count: int, wanted: Sequence[int], record: PreprocessRecord
) -> Iterator[Volume]:
    """No volume keeps a name while the next one is made, which would be one volume more in memory."""
    if not wanted:
        return
    highest, total = _sum_exponentials(resample, count)
    for number in wanted:
        yield uncrop(_softmax(resample(number), highest, total), record, outside=float(number == BACKGROUND))


def _sum_exponentials(resample: Callable[[int], Map], count: int) -> tuple[Map, Map]:
    """Finds the highest logit of each voxel, and sums exp(logit - highest) over the classes, one after the other."""
    highest = resample(0).copy()
    total = np.ones_like(highest)
    for number in range(1, count):
        _add_exponentials(resample(number), highest, total)
    return highest, total


def _add_exponentials(logits: Map, highest: Map, total: Map) -> None:
    """Adds a class; the sum is scaled down where its logit is higher than those before, so nothing overflows."""
    for plane in range(len(logits)):  # which stays in the cache
        new, before = logits[plane], highest[plane]
        higher = np.maximum(before, new)
        total[plane] *= np.exp(before - higher)
        total[plane] += np.exp(new - higher)
        highest[plane] = higher


def _sigmoid(logits: Map) -> Map:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # which cannot overflow


def _softmax(logits: Map, highest: Map, total: Map) -> Map:
    result = logits - highest
    np.exp(result, out=result)
    result /= total
    return result
