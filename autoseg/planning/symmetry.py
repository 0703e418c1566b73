"""Whether two labels mirror each other about the middle of the images, by where they lie in the cases."""

from dataclasses import dataclass

import numpy as np

from autoseg.datasets.fingerprint import Fingerprint

# Decision: what fewer cases show may be chance.
FEWEST_CASES = 3

# Share of the cases in which the same label is the left one. Decision: an operated or mislabelled patient may be there.
SAME_ORDER_SHARE = 0.9

# How far the mirror image of one structure may lie from the other, along each axis, as a share of the way between the
# two. Decision: structures that mirror each other, such as kidneys, stay well below; the atria of the heart, of which
# one lies behind the other, do not.
LARGEST_OFFSET = 0.5

# How many times larger one structure may be, if their names are a pair. Decision: beyond twice they are not alike.
LARGEST_RATIO = 2.0

# If the names say nothing, positions must say more. Decision: both at the same distance from the middle and on one
# level, each within a tenth of the image, clearly apart, and about equally large.
CLEAR_OFFSET = 0.1
CLEAR_DISTANCE = 0.15
CLEAR_RATIO = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """How two labels lie to each other in the typical case.

    Attributes:
        offset: Largest way, along any axis, from one to the mirror image of the other, as a share of the image.
        distance: Way between the two along the axis from side to side, as a share of the image.
        relative_offset: `offset` as a share of `distance`, both in mm.
        same_order: Share of the cases in which the same one lies on the same side.
        ratio: How many times larger one is, at least 1.
    """

    offset: float
    distance: float
    relative_offset: float
    same_order: float
    ratio: float

    @property
    def are_mirrored(self) -> bool:
        """Whether two labels whose names are a pair mirror each other."""
        in_place = self.same_order >= SAME_ORDER_SHARE and self.relative_offset <= LARGEST_OFFSET
        return in_place and self.ratio <= LARGEST_RATIO

    @property
    def are_clearly_mirrored(self) -> bool:
        """Whether two labels are a pair for their positions alone."""
        clear = self.offset < CLEAR_OFFSET and self.distance > CLEAR_DISTANCE and self.ratio <= CLEAR_RATIO
        return clear and self.are_mirrored


def measure_positions(fingerprint: Fingerprint, labels: tuple[int, int], axis: int) -> Positions | None:
    """Compares the positions of two labels along the axes of the files; None if too few cases hold both.

    Medians are taken of signed values, so that patients who lie off the middle, some here and some there, cancel.

    Args:
        fingerprint: The facts of the training cases.
        labels: Their numbers.
        axis: The one that runs from side to side.
    """
    seen = [(case, {facts.label: facts for facts in case.labels}) for case in fingerprint.cases]
    seen = [(case, facts) for case, facts in seen if facts.keys() >= set(labels)]
    if len(seen) < FEWEST_CASES:
        return None
    first, second = (np.array([facts[label].center for _, facts in seen]) for label in labels)
    sizes_mm = np.array([np.multiply(case.shape_after_crop, case.spacing_mm) for case, _ in seen])
    volumes = [facts[labels[0]].voxels / facts[labels[1]].voxels for _, facts in seen]
    offsets = first - second
    apart = offsets[:, axis].copy()
    offsets[:, axis] = first[:, axis] + second[:, axis] - 1  # from the second to the mirror image of the first
    distance_mm = abs(np.median(apart * sizes_mm[:, axis]))
    offset_mm = np.abs(np.median(offsets * sizes_mm, axis=0)).max()
    ratio = float(np.median(volumes))
    return Positions(
        offset=float(np.abs(np.median(offsets, axis=0)).max()),
        distance=float(abs(np.median(apart))),
        relative_offset=float(offset_mm / distance_mm) if distance_mm > 0 else np.inf,
        same_order=float(max(np.mean(apart > 0), np.mean(apart < 0))),
        ratio=max(ratio, 1 / ratio),
    )
