"""The segmentation of a coarser configuration, which the network of a cascade gets beside the image.

It is stored together with the label map: where the label is l and the coarse segmentation s, a patch holds the code
l + s x base. So it is read, rotated, deformed and mirrored exactly as labels are. Outside the case the code is
`OUTSIDE`, as a label is. Example: with the base 3, label 2 and segmentation 1 are the code 5.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from autoseg.dataloading.sampling import DerivedCase, PatchSource
from autoseg.imaging.geometry import Box
from autoseg.imaging.label_encoding import (
    CascadeCodes,
    CaseLabels,
    DatasetLabels,
    StoredLabels,
    code_base,
    decode_labels,
    decode_previous,
    encode_cascade,
    ignore_beyond,
    ignore_beyond_in_codes,
)
from autoseg.imaging.targets import Numbers, Targets

# Training changes the coarse segmentation, so that the network does not trust it blindly. Source: the reference method.
OPERATION_PROBABILITY, REMOVAL_PROBABILITY = 0.4, 0.2  # of each patch
STRUCTURE_PROBABILITY = 0.5  # of each structure in such a patch
RADIUS = (1.0, 8.0)  # radius of the ball that grows or shrinks a structure, in voxels
LARGEST_REMOVED = 0.15  # components below this share of the patch may be removed


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """Marks labels beyond the border of a case, where its mirror image is read, so that the loss ignores them.

    They become the ignore label of `Targets.with_ignore`. Decision: `OUTSIDE` stays, because the image is empty there
    too. In a cascade the codes change to the base of these targets, and the coarse segmentation stays mirrored.

    Attributes:
        targets: Structures of the dataset.
        is_cascade: Whether the labels are codes of a cascade.
    """

    targets: Targets
    is_cascade: bool = False

    def __call__(self, labels: NDArray[np.integer], beyond: NDArray[np.bool_]) -> StoredLabels:
        """Returns the changed labels or codes, int16.

        Args:
            labels: Labels or codes, shape (z, y, x).
            beyond: Mask of the voxels beyond the border, shape (z, y, x).
        """
        if self.is_cascade:
            return ignore_beyond_in_codes(CascadeCodes(labels), beyond, self.targets)
        return ignore_beyond(CaseLabels(labels), beyond, self.targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CaseOfCascade(DerivedCase):
    """A case of a cascade that is based on another case, which gives its name, too."""

    @property
    def name(self) -> str:
        """Name of the case."""
        return str(getattr(self.case, "name", "a case in memory"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingCase(_CaseOfCascade):
    """A case of a cascade whose image and codes are read from two stores of the same shape.

    Attributes:
        case: The case whose image is read.
        codes: The store whose codes are read in place of labels.
    """

    codes: PatchSource

    def read(self, box: Box) -> tuple[NDArray[np.float32], CascadeCodes]:
        """Reads the image (c, z, y, x) and the codes (z, y, x) inside a box that lies within the case."""
        return self.case.read(box)[0], CascadeCodes(self.codes.read(box)[1])

    def load_label(self) -> CascadeCodes:
        """Reads the codes of the whole case."""
        return CascadeCodes(self.codes.load_label())


@dataclass(frozen=True, slots=True, kw_only=True)
class DisturbedCase(_CaseOfCascade):
    """A case of a cascade whose coarse segmentation is changed at random.

    Attributes:
        targets: Structures of the dataset.
        seed: Seed of the changes.
    """

    targets: Targets
    seed: int

    def read(self, box: Box) -> tuple[NDArray[np.float32], CascadeCodes]:
        """Reads the image and the changed codes inside a box; the same each time."""
        image, codes = self.case.read(box)
        return image, disturb(CascadeCodes(codes), self.targets, np.random.default_rng(self.seed))


def disturb(codes: CascadeCodes, targets: Targets, random: np.random.Generator) -> CascadeCodes:
    """Changes the coarse segmentation in a patch at random: structures grow, shrink or lose a component.

    Source of the changes and their numbers: the reference method's cascade transforms. Decision: they come before the
    patch is warped, so that they need no second implementation for a device. Where a structure grows, it covers other
    structures, because a voxel of the segmentation has one number.

    Args:
        codes: Codes of the patch, shape (z, y, x) or (y, x).
        targets: Structures of the dataset.
        random: Source of every random number.

    Returns:
        The changed codes, of the same shape.
    """
    operates, removes = random.random() < OPERATION_PROBABILITY, random.random() < REMOVAL_PROBABILITY
    if not operates and not removes:
        return codes
    base = code_base(targets)
    label, previous = decode_labels(codes, base), decode_previous(codes, base)
    present = [numbers for numbers in targets.structures.values() if np.isin(previous, numbers).any()]
    for numbers in present:
        if operates and random.random() < STRUCTURE_PROBABILITY:
            previous = _operate(previous, numbers, random)
        if removes and random.random() < STRUCTURE_PROBABILITY:
            previous = _remove_component(previous, numbers, random)
    return encode_cascade(label, previous, base)


def _operate(previous: DatasetLabels, numbers: Numbers, random: np.random.Generator) -> DatasetLabels:
    """Dilates, erodes, opens or closes a structure with a ball of random radius."""
    mask, radius = np.isin(previous, numbers), random.uniform(*RADIUS)
    operation = int(random.integers(4))
    changed = mask
    for dilates in ((True,), (False,), (False, True), (True, False))[operation]:
        changed = _dilate(changed, radius) if dilates else ~_dilate(~changed, radius)
    result = np.where(mask & ~changed, 0, previous)
    return DatasetLabels(np.where(changed & ~mask, numbers[-1], result))


def _dilate(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Dilates a mask with a ball, by a distance transform, which is far faster than a morphological operation."""
    if not mask.any():
        return mask
    return np.asarray(scipy.ndimage.distance_transform_edt(~mask) <= radius)


def _remove_component(previous: DatasetLabels, numbers: Numbers, random: np.random.Generator) -> DatasetLabels:
    """Removes a random one of the small components of a structure, if there are any."""
    components, count = scipy.ndimage.label(np.isin(previous, numbers))
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    (small,) = np.nonzero(sizes < LARGEST_REMOVED * previous.size)
    if not len(small):
        return previous
    return DatasetLabels(np.where(components == 1 + random.choice(small), 0, previous))
