"""A whole volume: a network, intensities and prompts become a mask."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.networks.segment_anything.network import SegmentAnything
from autoseg.prompting.pictures import Image, PictureFrame, Preparation
from autoseg.prompting.planes import SlicedGrid
from autoseg.prompting.propagation import segment_structures
from autoseg.prompting.segmenter import PromptedSegmenter
from autoseg.prompting.structures import Prompted
from autoseg.runtime.device import make_ready
from autoseg.runtime.forks import calculation
from autoseg.runtime.reporting import Reporter


def segment_volume(
    network: SegmentAnything,
    preparation: Preparation,
    intensities: Image,
    grid: SlicedGrid,
    structures: Sequence[Prompted],
    reporter: Reporter,
) -> NDArray[np.bool_]:
    """Segments structures of a volume.

    Args:
        network: The network, on the device where it calculates.
        preparation: How slices are prepared.
        intensities: The scan from 0 to 1, shape (1 or 3, z, y, x).
        grid: Its slices.
        structures: What is prompted on them.
        reporter: Shows progress, and is told what network it is and how slices are prepared.

    Returns:
        The voxels that belong to any of the structures, shape (z, y, x).
    """
    device = network.device
    with calculation(device.type):
        make_ready(device)
        image = network.sizes.image
        frame = PictureFrame.of(grid.shape[1:], grid.pixel_mm, image, preparation)
        reporter.say(f"slices of {image} x {image} pixels, prepared as {preparation} learned them")
        points = [prompt for structure in structures for prompt in structure.prompts.values() if prompt.points]
        if points and preparation == "medsam":
            reporter.say("MedSAM learned from boxes alone: what it makes of points is to be looked at with care")
        pictures = grid.apply(intensities)
        segmenter = PromptedSegmenter(network=network, pictures=pictures, frame=frame)
        return grid.restore(segment_structures(segmenter, structures, grid.shape, reporter))
