"""A whole volume from prompts: each prompted slice, and from there on slice by slice.

A slice that is not prompted gets a box around the mask of the slice before, a little larger than it. So the outline
follows a structure that grows, shrinks and moves. It goes on until a mask is empty or has little in common with the one
before, or the range of slices ends.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.prompting.segmenter import Mask, SliceSegmenter, crop_to_mask
from autoseg.prompting.structures import Prompted
from autoseg.runtime.reporting import Reporter, Task

LEAST_OVERLAP = 0.5
"""Dice of a mask with the one of the slice before below which it is of something else. Decision: through the roundish
end of a structure the area of its cross-section at most halves or so within a slice, which is a Dice of 0.67."""


def segment_structures(
    segmenter: SliceSegmenter, structures: Sequence[Prompted], shape: tuple[int, int, int], reporter: Reporter
) -> NDArray[np.bool_]:
    """Segments structures, slice by slice.

    Args:
        segmenter: Segments a slice.
        structures: What is prompted.
        shape: Slices, rows and columns of the volume.
        reporter: Shows progress.

    Returns:
        The voxels that belong to any of the structures, shape (slices, rows, columns).
    """
    result = np.zeros(shape, dtype=bool)
    with reporter.task("slices", sum(structure.slices for structure in structures)) as task:
        # Those on the same slices follow each other, so that few slices are encoded twice.
        for structure in sorted(structures, key=lambda structure: min(structure.prompts)):
            done = 0
            for number, mask in _segment(segmenter, structure, task):
                result[number] |= mask
                done += 1
            task.advance(structure.slices - done)
    return result


def _segment(segmenter: SliceSegmenter, structure: Prompted, task: Task) -> Iterator[tuple[int, Mask]]:
    """Yields the slices of a structure with their masks; the task advances with each."""
    prompted: dict[int, Mask] = {}
    for number, prompt in sorted(structure.prompts.items()):
        prompted[number] = segmenter.segment(number, prompt)
        task.advance()
        yield number, prompted[number]
    for start, numbers in divide_reach(sorted(prompted), structure.reach):
        before = prompted[start]
        for number in numbers:
            around = crop_to_mask(before, segmenter.margin)
            if around is None:
                break
            mask = segmenter.segment(number, around)
            if not is_continued(before, mask):
                break
            task.advance()
            yield number, mask
            before = mask


def is_continued(before: Mask, mask: Mask) -> bool:
    """Returns whether a mask is of the same structure as that of the slice before.

    Example:
        >>> disc, elsewhere = np.eye(4, dtype=bool), np.fliplr(np.eye(4, dtype=bool))
        >>> is_continued(disc, disc), is_continued(disc, elsewhere)
        (True, False)
    """
    total = int(before.sum()) + int(mask.sum())
    return total > 0 and 2 * int((before & mask).sum()) / total >= LEAST_OVERLAP


def divide_reach(prompted: Sequence[int], reach: range) -> Iterator[tuple[int, range]]:
    """Divides the slices that are not prompted among those that are: each is reached from the nearest one.

    Args:
        prompted: Numbers of prompted slices, in order.
        reach: Numbers of the slices to segment.

    Yields:
        A prompted slice, and the slices that are reached from it in one direction, in order.

    Example:
        >>> [(start, list(numbers)) for start, numbers in divide_reach([2, 7], range(0, 9))]
        [(2, [1, 0]), (2, [3, 4]), (7, [6, 5]), (7, [8])]
        >>> list(divide_reach([2], range(0)))
        []
    """
    if not reach:
        return
    for position, number in enumerate(prompted):
        lowest = (prompted[position - 1] + number) // 2 + 1 if position else reach.start
        highest = (number + prompted[position + 1]) // 2 if position + 1 < len(prompted) else reach.stop - 1
        for numbers in (
            range(number - 1, max(lowest, reach.start) - 1, -1),
            range(number + 1, min(highest, reach.stop - 1) + 1),
        ):
            if numbers:
                yield number, numbers
