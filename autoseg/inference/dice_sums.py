"""Sums over the voxels of all tiles, from which follows the Dice of each structure between votes and their mean."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Targets
from autoseg.runtime.arrays import Array, Device, NumpyDevice, arrays_on, as_numpy, bring_to_cpu, namespace

BITS = 8  # Masks of structures that may overlap are kept eight to a byte


class DiceSums:
    """Sums over voxels, weighted by the voxels' shares: of each structure in each vote, in the mean, and in both.

    Sums are float64, on the device of the votes.

    Decision: on a CUDA GPU sums are made without counting by `bincount`, for which the CPU waits several times.

    Args:
        targets: What the numbers of the votes mean.
        votes: Number of votes.
        device: Device of the votes.
    """

    def __init__(self, targets: Targets, votes: int, device: Device) -> None:
        self._targets = targets
        count = len(targets.names)
        self._is_on_gpu = device.type == "cuda"
        arrays = arrays_on(device if self._is_on_gpu else NumpyDevice())
        self._in_vote, self._in_both, self._in_mean = (
            arrays.copy(np.zeros(shape)) for shape in ((votes, count), (votes, count), (count,))
        )

    def add(self, votes: Array, mean: Array, shares: Array) -> None:
        """Adds n voxels.

        Args:
            votes: Winners of each vote, (votes, words, n).
            mean: Winners of their mean, (words, n).
            shares: Weight of each voxel, (n,), on the device of the votes.
        """
        add = self._add_classes if self._targets.exclusive else self._add_bits
        if not self._is_on_gpu:
            votes, mean, shares = map(as_numpy, (votes, mean, shares))
        xp = namespace(shares)
        add(votes, mean, xp.astype(shares, xp.float64))

    def dice(self) -> list[float]:
        """Returns the mean Dice of each structure; NaN if the mean has none of it."""
        in_vote, in_both, in_mean = map(bring_to_cpu, (self._in_vote, self._in_both, self._in_mean))
        with np.errstate(invalid="ignore"):  # a structure that is in neither
            dice = (2 * in_both / (in_vote + in_mean)).mean(axis=0)
        return [value if size > 0 else math.nan for value, size in zip(dice.tolist(), in_mean.tolist(), strict=True)]

    def _add_classes(self, votes: Array, mean: Array, shares: Array) -> None:
        classes = len(self._in_mean) + 1
        count: Any = count_by_class
        if self._is_on_gpu:
            from autoseg.inference.dice_sums_on_gpu import scatter_by_class as count  # noqa: PLC0415 - it needs torch
        in_vote, in_both, in_mean = count(votes[:, 0], mean[0], shares, classes)
        self._in_vote += in_vote[:, 1:]
        self._in_both += in_both[:, 1:]
        self._in_mean += in_mean[1:]

    def _add_bits(self, votes: Array, mean: Array, shares: Array) -> None:
        for number in range(len(self._in_mean)):
            word, bit = divmod(number, BITS)
            voted, agreed = (votes[:, word] >> bit) & 1, (mean[word] >> bit) & 1
            self._in_vote[:, number] += (voted * shares).sum(axis=1)
            self._in_both[:, number] += (voted * agreed * shares).sum(axis=1)
            self._in_mean[number] += (agreed * shares).sum()


def count_by_class(
    votes: NDArray[np.integer], mean: NDArray[np.integer], shares: NDArray[np.float64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns the shares of the voxels of each class, summed up.

    Example: of three voxels, two are of class 1 in the vote, and one of these also in the mean.
        >>> sums = count_by_class(np.array([[0, 1, 1]]), np.array([0, 1, 0]), np.array([1, 1, 0.5]), classes=2)
        >>> [values.tolist() for values in sums]
        [[[1.0, 1.5]], [[1.0, 1.0]], [1.5, 1.0]]

    Args:
        votes: Class of each voxel in each vote, (votes, n).
        mean: Class of each voxel in their mean, (n,).
        shares: Weight of each voxel, (n,), float64.
        classes: Number of classes.

    Returns:
        The sum for each class over its voxels in each vote, (votes, classes), float64; the sum over those that are of
        that class in the mean as well; and the sum over its voxels in the mean, (classes,).
    """
    in_vote: NDArray[Any] = np.stack([np.bincount(vote, shares, classes) for vote in votes])
    in_both: NDArray[Any] = np.stack([np.bincount(vote, shares * (vote == mean), classes) for vote in votes])
    in_mean: NDArray[Any] = np.bincount(mean, shares, classes)
    return in_vote, in_both, in_mean
