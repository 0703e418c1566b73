"""Tests whether two labels mirror each other about the middle of the images, by their positions in the cases."""

from dataclasses import dataclass

import numpy as np

from autoseg.datasets.fingerprint import Fingerprint

# Decision: positions in fewer cases may be coincidental.
FEWEST_CASES = 3

# Least fraction of the cases in which the same label is the left one. Decision: a few operated or mislabelled patients
# are tolerated.
SAME_ORDER_SHARE = 0.9

# Largest distance of the mirror image of one structure from the other, along each axis, as a fraction of the distance
# between the two. Decision: structures that mirror each other, such as kidneys, stay well below; the atria of the
# heart, of which one lies behind the other, do not.
LARGEST_OFFSET = 0.5

# Largest ratio of the volumes of two structures whose names are a pair. Decision: above 2 they are not alike.
LARGEST_RATIO = 2.0

# If the names say no side, positions must be clearer. Decision: both at the same distance from the middle and on one
# level, each within a tenth of the image, clearly apart, and of about equal volume.
CLEAR_OFFSET = 0.1
CLEAR_DISTANCE = 0.15
CLEAR_RATIO = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativePositions:
    """The relative positions and volumes of two labels in the typical case.

    Attributes:
        offset: Largest distance, along any axis, from one to the mirror image of the other, as a fraction of the image.
        distance: Distance between the two along the axis from side to side, as a fraction of the image.
        relative_offset: `offset` as a fraction of `distance`, both in mm.
        same_order: Fraction of the cases in which the same label lies on the same side.
        ratio: Ratio of the larger to the smaller volume, at least 1.
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
        """Whether two labels are a pair by their positions alone."""
        clear = self.offset < CLEAR_OFFSET and self.distance > CLEAR_DISTANCE and self.ratio <= CLEAR_RATIO
        return clear and self.are_mirrored


def compare_positions(fingerprint: Fingerprint, labels: tuple[int, int], axis: int) -> RelativePositions | None:
    """Compares the positions of two labels along the axes of the files; None if too few cases contain both.

    Medians are taken of signed values, so that patients who lie off the middle, some to the left and some to the right,
    cancel.

    Args:
        fingerprint: Measurements of the training cases.
        labels: The numbers of the two labels.
        axis: The axis from side to side.
    """
    cases = [(case, {facts.label: facts for facts in case.labels}) for case in fingerprint.cases]
    cases = [(case, facts) for case, facts in cases if facts.keys() >= set(labels)]
    if len(cases) < FEWEST_CASES:
        return None
    first, second = (np.array([facts[label].center for _, facts in cases]) for label in labels)
    sizes_mm = np.array([np.multiply(case.shape_after_crop, case.spacing_mm) for case, _ in cases])
    ratios = [facts[labels[0]].voxels / facts[labels[1]].voxels for _, facts in cases]
    offsets = first - second
    apart = offsets[:, axis].copy()
    offsets[:, axis] = first[:, axis] + second[:, axis] - 1  # from the second to the mirror image of the first
    distance_mm = abs(np.median(apart * sizes_mm[:, axis]))
    offset_mm = np.abs(np.median(offsets * sizes_mm, axis=0)).max()
    ratio = float(np.median(ratios))
    return RelativePositions(
        offset=float(np.abs(np.median(offsets, axis=0)).max()),
        distance=float(abs(np.median(apart))),
        relative_offset=float(offset_mm / distance_mm) if distance_mm > 0 else np.inf,
        same_order=float(max(np.mean(apart > 0), np.mean(apart < 0))),
        ratio=max(ratio, 1 / ratio),
    )
