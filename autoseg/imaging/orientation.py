"""Orientations: the directions in the patient in which the axes of an array run, such as "SPL".

Each of the three letters is one of superior, inferior, posterior, anterior, left and right.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# Directions in the patient of the physical axes (z, y, x), and the opposite ones: superior, posterior, left.
# Source: SimpleITK's frame, which is that of DICOM.
POSITIVE_DIRECTIONS, NEGATIVE_DIRECTIONS = "SPL", "IAR"
OPPOSITE = dict(zip(POSITIVE_DIRECTIONS + NEGATIVE_DIRECTIONS, NEGATIVE_DIRECTIONS + POSITIVE_DIRECTIONS, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorientation:
    """A permutation of the spatial axes of an array and a reversal of some of them; no voxel changes its value.

    Attributes:
        axes: The old axis of each new one.
        reversed: Whether each new axis runs against its old one.
    """

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reorients the last three axes of an array; returns a view of the same memory.

        Example:
            >>> import numpy as np
            >>> reorientation = Reorientation(axes=(0, 2, 1), reversed=(False, True, False))
            >>> reorientation.apply(np.array([[[1, 2, 3]]])).tolist()
            [[[3], [2], [1]]]
        """
        leading = array.ndim - 3
        permuted = array.transpose((*range(leading), *(leading + axis for axis in self.axes)))
        return permuted[(..., *(slice(None, None, -1 if is_reversed else None) for is_reversed in self.reversed))]


def is_orientation(text: str) -> bool:
    """Returns whether a text names each axis of the patient once, as `Geometry.orientation` does.

    Example:
        >>> is_orientation("RAS"), is_orientation("RLS")
        (True, False)
    """
    return len(text) == 3 and sorted(min(letter, OPPOSITE.get(letter, letter)) for letter in text) == sorted("ALI")
