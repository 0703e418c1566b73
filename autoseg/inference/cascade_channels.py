"""What the finer configuration of a cascade sees of the coarser one: a channel for each structure."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Targets
from autoseg.preprocessing.case import PreprocessedCase


def show_previous(case: PreprocessedCase, coarse: NDArray[np.integer], targets: Targets) -> PreprocessedCase:
    """Returns a case with one more channel for each structure of a coarse segmentation.

    Args:
        case: Case of the finer configuration of a cascade.
        coarse: Segmentation by the coarser configuration, (z, y, x) on the grid of the case.
        targets: What its numbers mean.
    """
    channels = [np.isin(coarse, numbers).astype(np.float32) for numbers in targets.structures.values()]
    return replace(case, image=np.concatenate([case.image, np.stack(channels)]))
