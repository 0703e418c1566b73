"""Which patches a network takes, and what part of them it predicts: found by sketching it, and declared nowhere.

A convolution that is not padded makes its map smaller by what it looks at. So such a network sees a patch and predicts
its middle; what is left around it, on both sides of an axis, is its margin. And it takes only patches of which no map
has an odd edge where it is halved.

    patch     572 x 572   what the network sees
    margin     92         on each side
    logits    388 x 388   what it predicts

A network whose convolutions are padded has no margin, and takes what its resolutions divide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

Size = tuple[int, ...]

LARGEST_SEARCHED = 4096
"""Voxels of an edge up to which the smallest patch is looked for."""


class MisfitError(ValueError):
    """A map that a network cannot go on with, because of its size.

    Attributes:
        axes: Along which it does not fit.
    """

    def __init__(self, axes: Sequence[int], text: str) -> None:
        super().__init__(text)
        self.axes = frozenset(axes)


def refuse_axes(misfits: Sequence[bool], text: str) -> None:
    """Raises `MisfitError` if one axis does not fit; there is an answer for each."""
    if any(misfits):
        raise MisfitError([axis for axis, misfit in enumerate(misfits) if misfit], text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Which patches a network takes.

    Example: U-Net without padding has the smallest edge 188, the step 16 and the margin 92. It takes edges of 188, 204,
    220, ..., 572, ... voxels, and predicts 4, 20, 36, ..., 388, ... of them.

    Attributes:
        smallest: Voxels per axis of the smallest patch.
        step: By how much the edges of two patches differ that are next to each other; where a tile moves by that, or by
            several times that, its voxels meet the same voxels at all resolutions.
        margin: Voxels of each axis and side that are seen and not predicted.
    """

    smallest: Size
    step: Size
    margin: Size

    @classmethod
    def divisible_by(cls, divisor: Sequence[int]) -> "Patches":
        """Those of a network without a margin."""
        return cls(smallest=tuple(divisor), step=tuple(divisor), margin=(0,) * len(divisor))

    @property
    def has_margin(self) -> bool:
        """Whether the network predicts less than it sees."""
        return any(self.margin)

    def centre(self, patch: Sequence[int]) -> Size:
        """What is predicted of a patch: the size of its logits."""
        return tuple(edge - 2 * margin for edge, margin in zip(patch, self.margin, strict=True))

    def cover(self, size: Sequence[float]) -> Size:
        """The smallest patch whose centre is at least so large."""
        lowest = self.centre(self.smallest)
        return tuple(
            smallest + step * max(0, ceil((wanted - least) / step))
            for wanted, least, smallest, step in zip(size, lowest, self.smallest, self.step, strict=True)
        )

    def refuse(self, patch: Sequence[int]) -> str | None:
        """Why the network does not take a patch, with what it takes; None if it does."""
        axes = list(zip(patch, self.smallest, self.step, strict=True))
        if not self.has_margin:
            if any(edge % step for edge, _, step in axes):
                return f"patch_size {tuple(patch)} must be divisible by {self.step}"
            if tuple(patch) == self.step:
                return f"patch_size {tuple(patch)} leaves one voxel at the coarsest resolution; double it"
            return None
        if all(edge >= smallest and (edge - smallest) % step == 0 for edge, smallest, step in axes):
            return None
        nearest = tuple(smallest + step * max(0, round((edge - smallest) / step)) for edge, smallest, step in axes)
        return f"patch_size {tuple(patch)} must have {self.describe()}; the nearest is {nearest}"

    def describe(self) -> str:
        """Such as "edges of 188, 204, 220, ... voxels, of which 92 on each side are margin"."""
        first = [(smallest, smallest + step, smallest + 2 * step) for smallest, step in self._distinct]
        edges = " and ".join(f"{', '.join(map(str, some))}, ..." for some in first)
        margins = " and ".join(map(str, dict.fromkeys(self.margin)))
        return f"edges of {edges} voxels, of which {margins} on each side are margin"

    @property
    def _distinct(self) -> list[tuple[int, int]]:
        return list(dict.fromkeys(zip(self.smallest, self.step, strict=True)))


def measure_patches(predict: Callable[[Size], Size], smallest: Sequence[int], step: Sequence[int]) -> Patches:
    """Finds out by trial which patches a network takes.

    The axes know nothing of each other, so each grows by itself, voxel by voxel, until nothing is in its way.

    Args:
        predict: Sketches the network for a patch, and gives the size of what is predicted; raises `MisfitError`.
        smallest: Where to begin: no smaller patch is taken.
        step: See `Patches`.

    Raises:
        ValueError: The network takes no patch, or what it predicts does not lie in the middle.
    """
    patch = list(smallest)
    while True:
        try:
            centre = predict(tuple(patch))
            break
        except MisfitError as error:
            if max(patch) > LARGEST_SEARCHED:
                raise
            patch = [edge + (axis in error.axes) for axis, edge in enumerate(patch)]
    left = [edge - inner for edge, inner in zip(patch, centre, strict=True)]
    if any(edge < 0 or edge % 2 for edge in left):
        raise ValueError(f"logits of {centre} voxels do not lie in the middle of a patch of {tuple(patch)}")
    return Patches(smallest=tuple(patch), step=tuple(step), margin=tuple(edge // 2 for edge in left))
