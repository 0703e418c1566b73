"""A feature map that has a shape and no values."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMap:
    """The shape of a feature map; two maps are equal only if they are the same object.

    >>> FeatureMap(channels=16, size=(8, 8)).elements
    1024

    Attributes:
        channels: Number of features.
        size: Voxels along each axis.
    """

    channels: int
    size: tuple[int, ...]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return prod(self.size)

    @property
    def elements(self) -> int:
        """Number of elements: voxels times features."""
        return self.channels * self.voxels

    def copy(self) -> "FeatureMap":
        """Returns another map of the same shape."""
        return FeatureMap(self.channels, self.size)
