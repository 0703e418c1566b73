"""Slices with their neighbours as channels, from which a network of two axes learns: "2.5D"."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.dataloading.sampling import DerivedCase
from autoseg.imaging.geometry import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStack(DerivedCase):
    """A case whose channels stand once for each neighbouring slice, in the order of the slices.

    Slice z of channel c holds slices z - neighbours to z + neighbours of that channel of the case. Beyond its first and
    last slice these are repeated, as in prediction; see `inference.tiling`. Labels are those of slice z alone. In this
    way patches of slices are rotated, scaled and deformed together with their neighbours.

    Attributes:
        case: The case itself.
        neighbours: Number of slices on each side.
    """

    neighbours: int

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the image (channels and slices, z, y, x) and the label map (z, y, x) inside a box."""
        (first, *start), (end, *stop) = box.start, box.stop
        last = self.shape[0] - 1
        lowest, highest = max(0, first - self.neighbours), min(last, end - 1 + self.neighbours)
        wider = Box(start=(lowest, start[0], start[1]), stop=(highest + 1, stop[0], stop[1]))
        image, label = self.case.read(wider)
        offsets = np.arange(-self.neighbours, self.neighbours + 1)
        planes = (np.arange(first, end) + offsets[:, None]).clip(0, last) - lowest
        stacked = image[:, planes]
        return stacked.reshape(-1, *stacked.shape[2:]), label[first - lowest : end - lowest]
