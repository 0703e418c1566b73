"""Random rotation and scaling of a patch, as a matrix."""

import numpy as np
from numpy.typing import NDArray

from autoseg.planning.settings import AugmentationSettings


def draw_affine(
    settings: AugmentationSettings, dimensions: int, random: np.random.Generator
) -> NDArray[np.float64] | None:
    """Draws rotation and scaling of one patch.

    A volume that is rotated about its first axis only is scaled within its planes only. Source: the reference method,
    which treats such a volume as a stack of planes.

    Decision: a factor above 1 makes structures larger, as its name says. The reference method scales the region that is
    read, so that 1.4 makes structures smaller: 0.71 to 1.43 times their size, which is nearly the same range.

    Args:
        settings: Probabilities and ranges.
        dimensions: Number of axes of the patch, 2 or 3.
        random: Source of every random number.

    Returns:
        Matrix of shape (dimensions, dimensions) that maps an offset from the patch's centre, in voxels, to the offset
        at which the case is read; None if the patch is read as it is.

    Example:
        >>> settings = AugmentationSettings(rotation_probability=0, scaling_probability=1, scaling_factor=(2, 2))
        >>> draw_affine(settings, 2, np.random.default_rng(0))
        array([[0.5, 0. ],
               [0. , 0.5]])
    """
    matrix = np.eye(dimensions)
    if random.random() < settings.rotation_probability:
        limit = np.deg2rad(settings.rotation_degrees)
        for axis in settings.rotation_axes:
            first, second = (other for other in range(dimensions) if dimensions == 2 or other != axis)
            matrix = _plane_rotation(dimensions, first, second, random.uniform(-limit, limit)) @ matrix
    if random.random() < settings.scaling_probability:
        factor = random.uniform(*settings.scaling_factor)
        scaled = settings.in_plane_axes(dimensions)
        matrix = np.diag([1 / factor if axis in scaled else 1.0 for axis in range(dimensions)]) @ matrix
    return None if np.array_equal(matrix, np.eye(dimensions)) else matrix


def _plane_rotation(dimensions: int, first: int, second: int, angle: float) -> NDArray[np.float64]:
    """Returns the matrix of a rotation in the plane of two axes, by an angle in radians."""
    matrix = np.eye(dimensions)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix
