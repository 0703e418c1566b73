"""Linear interpolation of whole volumes, against which resampling of labels and logits is tested."""

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape
from autoseg.preprocessing.resampling import resampling_matrix


def interpolate(volume: NDArray[np.float32], shape: Shape, separate: int | None = None) -> NDArray[np.float32]:
    """Linear interpolation of the whole volume, with the nearest slice along one axis."""
    for axis, size in enumerate(shape):
        matrix = resampling_matrix(volume.shape[axis], size, 0 if axis == separate else 1)
        volume = np.moveaxis(np.tensordot(matrix, volume, axes=(1, axis)), 0, axis)
    return volume
