"""The patch sizes that a network takes, and the margin of a patch that it does not predict.

Both are measured by running the network on shapes; no network declares them. A convolution that is not padded shrinks
its map by the extent of its kernel. So such a network sees a patch and predicts its centre; what is left on both sides
of an axis is its margin. And it takes only patches of which no map has an odd edge where it is pooled.

    patch     572 x 572   what the network sees
    margin     92         on each side
    logits    388 x 388   what it predicts

A network whose convolutions are padded has no margin, and takes all sizes that its strides divide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

Size = tuple[int, ...]

LARGEST_SEARCHED = 4096
"""Voxels of an edge up to which the smallest patch is searched."""


class PatchSizeError(ValueError):
    """A feature map has a size that the next layer cannot take.

    Attributes:
        axes: The axes along which it does not fit.
    """

    def __init__(self, axes: Sequence[int], text: str) -> None:
        super().__init__(text)
        self.axes = frozenset(axes)


def check_axes(misfits: Sequence[bool], text: str) -> None:
    """Raises `PatchSizeError` if any axis does not fit; `misfits` has one value per axis."""
    if any(misfits):
        raise PatchSizeError([axis for axis, misfit in enumerate(misfits) if misfit], text)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSizes:
    """The patch sizes that a network takes.

    Example: U-Net without padding has the smallest edge 188, the step 16 and the margin 92. It takes edges of 188, 204,
    220, ..., 572, ... voxels, and predicts 4, 20, 36, ..., 388, ... of them.

    >>> unpadded = PatchSizes(smallest=(188, 188), step=(16, 16), margin=(92, 92))
    >>> unpadded.centre((572, 572))
    (388, 388)
    >>> unpadded.cover((50, 30))
    (236, 220)

    Attributes:
        smallest: Voxels along each axis of the smallest patch.
        step: Difference in voxels between one edge and the next larger one; a tile that moves by a multiple of it meets
            the same grid at all resolutions.
        margin: Voxels along each axis, on each side, that are seen and not predicted.
    """

    smallest: Size
    step: Size
    margin: Size

    @classmethod
    def divisible_by(cls, divisor: Sequence[int]) -> "PatchSizes":
        """Returns the patch sizes of a network without a margin whose strides multiply to `divisor`."""
        return cls(smallest=tuple(divisor), step=tuple(divisor), margin=(0,) * len(divisor))

    @property
    def has_margin(self) -> bool:
        """Whether the network predicts less than it sees."""
        return any(self.margin)

    def centre(self, patch: Sequence[int]) -> Size:
        """Returns the size of the part of a patch that is predicted: the size of its logits."""
        return tuple(edge - 2 * margin for edge, margin in zip(patch, self.margin, strict=True))

    def cover(self, size: Sequence[float]) -> Size:
        """Returns the smallest patch whose centre is at least as large as `size`."""
        lowest = self.centre(self.smallest)
        return tuple(
            smallest + step * max(0, ceil((edge - least) / step))
            for edge, least, smallest, step in zip(size, lowest, self.smallest, self.step, strict=True)
        )

    def find_problem(self, patch: Sequence[int]) -> str | None:
        """Returns why the network does not take a patch, with the sizes that it takes; None if it does."""
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
        """Returns text such as "edges of 188, 204, 220, ... voxels, of which 92 on each side are margin"."""
        distinct = dict.fromkeys(zip(self.smallest, self.step, strict=True))
        first = [(smallest, smallest + step, smallest + 2 * step) for smallest, step in distinct]
        edges = " and ".join(f"{', '.join(map(str, some))}, ..." for some in first)
        margins = " and ".join(map(str, dict.fromkeys(self.margin)))
        return f"edges of {edges} voxels, of which {margins} on each side are margin"


def measure_patch_sizes(
    size_of_logits: Callable[[Size], Size], smallest: Sequence[int], step: Sequence[int]
) -> PatchSizes:
    """Finds the smallest patch that a network takes, and its margin, by trial.

    The axes are independent, so each edge grows by itself, voxel by voxel, until the network takes it.

    Args:
        size_of_logits: Returns the size of the logits for a patch size; raises `PatchSizeError`.
        smallest: The size to begin with: no smaller patch is taken.
        step: See `PatchSizes`.

    Raises:
        ValueError: The network takes no patch, or what it predicts does not lie in the centre.
    """
    patch = list(smallest)
    while True:
        try:
            centre = size_of_logits(tuple(patch))
            break
        except PatchSizeError as error:
            if max(patch) > LARGEST_SEARCHED:
                raise
            patch = [edge + (axis in error.axes) for axis, edge in enumerate(patch)]
    surplus = [edge - inner for edge, inner in zip(patch, centre, strict=True)]
    if any(edge < 0 or edge % 2 for edge in surplus):
        raise ValueError(f"logits of {centre} voxels do not lie in the middle of a patch of {tuple(patch)}")
    return PatchSizes(smallest=tuple(patch), step=tuple(step), margin=tuple(edge // 2 for edge in surplus))
