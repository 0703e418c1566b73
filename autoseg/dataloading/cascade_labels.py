"""The segmentation of a coarser configuration, which a cascade sees beside the image.

It travels with the label map: where the label is l and the segmentation s, a patch holds the code l + s x base. So it
is read, turned, deformed and mirrored exactly as labels are. Outside the case the code is `OUTSIDE`, as a label is.
With the base 3, label 2 and segmentation 1 are the code 5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.dataloading.sampling import PatchSource
from autoseg.imaging.geometry import Box, Shape
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
from autoseg.preprocessing.foreground import Foreground

# How training disturbs a segmentation, so that the network does not trust it blindly. Source: the reference method.
OPERATION_PROBABILITY, REMOVAL_PROBABILITY = 0.4, 0.2  # Of a patch
STRUCTURE_PROBABILITY = 0.5  # Of each structure of it
RADIUS = (1.0, 8.0)  # Voxels, of the ball that grows or shrinks a structure
LARGEST_REMOVED = 0.15  # Share of the patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """What labels become beyond the border of a case, where its mirror image is seen: they do not count.

    They get the number of `Targets.with_ignore`. Decision: `OUTSIDE` stays; the image is empty there too, and is to
    stay so. In a cascade the codes change their base to that of these targets, and the segmentation is mirrored.

    Attributes:
        targets: Structures of the dataset.
        is_cascade: Whether labels are codes.
    """

    targets: Targets
    is_cascade: bool = False

    def __call__(self, labels: NDArray[np.integer], beyond: NDArray[np.bool_]) -> StoredLabels:
        """Labels or codes (z, y, x), int16, of which some are beyond the border."""
        if self.is_cascade:
            return ignore_beyond_in_codes(CascadeCodes(labels), beyond, self.targets)
        return ignore_beyond(CaseLabels(labels), beyond, self.targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CaseOfCascade:
    """A case of which another is read in its own way.

    Attributes:
        case: Where patches are centred.
    """

    case: PatchSource

    @property
    def name(self) -> str:
        """Of the case."""
        return str(getattr(self.case, "name", "a case in memory"))

    @property
    def shape(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self.case.shape

    @property
    def foreground(self) -> Foreground:
        """Where some of its foreground is."""
        return self.case.foreground


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingCase(_CaseOfCascade):
    """A case of a cascade: the image of one, the codes of another, of the same shape.

    Attributes:
        case: Where the image is too.
        codes: Where the codes are, in place of the labels.
    """

    codes: PatchSource

    def read(self, box: Box) -> tuple[NDArray[np.float32], CascadeCodes]:
        """The image (c, z, y, x) and codes (z, y, x) inside a box that lies within the case."""
        return self.case.read(box)[0], CascadeCodes(self.codes.read(box)[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class DisturbedCase(_CaseOfCascade):
    """A case of a cascade whose segmentation is not what it was.

    Attributes:
        targets: Structures of the dataset.
        seed: Of the changes.
    """

    targets: Targets
    seed: int

    def read(self, box: Box) -> tuple[NDArray[np.float32], CascadeCodes]:
        """The image and changed codes inside a box; the same each time."""
        image, codes = self.case.read(box)
        return image, disturb(CascadeCodes(codes), self.targets, np.random.default_rng(self.seed))


def disturb(codes: CascadeCodes, targets: Targets, random: np.random.Generator) -> CascadeCodes:
    """Changes the segmentation in a patch by chance: structures grow, shrink or lose a component.

    Source of the changes and their numbers: the reference method's cascade transforms. Decision: they come before the
    patch is turned, so that they need no second way for a device; and where a structure grows, it covers others, since
    a voxel of the segmentation has one number.

    Args:
        codes: Shape (z, y, x) or (y, x).
        targets: Structures of the dataset.
        random: Source of every draw.
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
    """Grows or shrinks a structure by a ball, or opens or closes it."""
    mask, radius = np.isin(previous, numbers), random.uniform(*RADIUS)
    operation = int(random.integers(4))
    changed = mask
    for grows in ((True,), (False,), (False, True), (True, False))[operation]:
        changed = _grow(changed, radius) if grows else ~_grow(~changed, radius)
    result = np.where(mask & ~changed, 0, previous)
    return DatasetLabels(np.where(changed & ~mask, numbers[-1], result))


def _grow(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """All voxels no further than the radius from the mask; by distances, which is far faster than trying a ball."""
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius)


def _remove_component(previous: DatasetLabels, numbers: Numbers, random: np.random.Generator) -> DatasetLabels:
    """Takes one component of a structure away, if it has small ones."""
    components, count = ndimage.label(np.isin(previous, numbers))
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    (small,) = np.nonzero(sizes < LARGEST_REMOVED * previous.size)
    if not len(small):
        return previous
    return DatasetLabels(np.where(components == 1 + random.choice(small), 0, previous))
