"""What the numbers of a label map mean at each step from the image file to the loss: five encodings.

    encoding       dtype          background  structure l   zero border  not annotated      beyond the image
    DatasetLabels  int32          0           l             0            ignore             -
    CaseLabels     int8 or int16  0           l             OUTSIDE      ignore             OUTSIDE, or ignore
    CascadeCodes   int16          s x base    l + s x base  OUTSIDE      ignore + s x base  OUTSIDE, or as ignore
    TargetLabels   int16 tensor   0           l             0            ignore             0, or ignore

- l is the number of a structure in dataset.json, and `ignore` the number of voxels that were not annotated, if any.
- s is the number that a coarser configuration predicted for the same voxel; `base` is a multiplier, see `code_base`.
- The zero border is the background around the nonzero region of the image (see `cropping`), on the grid of a
  configuration. `OUTSIDE` is -1. Structures that lie there keep their number.
- Beyond the image: a patch may stick out of its case. If the network sees the mirror image of the case there, the
  voxels beyond do not count: `CaseLabels` and `CascadeCodes` get the ignore number of `Targets.with_ignore`, and
  `CascadeCodes` change to the base of these targets. This is the fifth encoding, see `ignore_beyond`.

Each encoding has a type, which mypy tells from the others; at run time all of them are plain arrays or tensors.

Ten voxels in a row. The first three and the last two voxels of the image are zero:

>>> targets = Targets.of_labels({"kidney": 1, "tumour": 2})
>>> labels = DatasetLabels(np.array([0, 0, 0, 0, 1, 1, 2, 0, 0, 0]))
>>> nonzero = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
>>> case = mark_outside(labels, nonzero)
>>> case.tolist(), case.dtype.name
([-1, -1, -1, 0, 1, 1, 2, 0, -1, -1], 'int8')

In a cascade, a segmentation of the coarser configuration is added:

>>> previous = DatasetLabels(np.array([0, 0, 0, 0, 0, 1, 1, 2, 0, 0]))
>>> base = code_base(targets)
>>> codes = encode_cascade(case, previous, base)
>>> codes.tolist(), codes.dtype.name
([-1, -1, -1, 0, 1, 4, 5, 6, -1, -1], 'int16')
>>> decode_labels(codes, base).tolist()
[-1, -1, -1, 0, 1, 1, 2, 0, -1, -1]
>>> decode_previous(codes, base).tolist()
[0, 0, 0, 0, 0, 1, 1, 2, 0, 0]

A patch that begins at the fourth voxel and ends three voxels beyond the image, where it is mirrored:

>>> from autoseg.imaging.mirror_padding import mirror_indices
>>> seen, beyond = mirror_indices(3, 10, 10), np.arange(3, 13) >= 10
>>> patch = ignore_beyond(CaseLabels(case[seen]), beyond, targets)
>>> patch.tolist(), targets.with_ignore.ignore
([0, 1, 1, 2, 0, -1, -1, -1, 3, 3], 3)
>>> ignore_beyond_in_codes(CascadeCodes(codes[seen]), beyond, targets).tolist(), code_base(targets.with_ignore)
([0, 1, 5, 6, 8, -1, -1, -1, 11, 7], 4)

What the loss compares the network's outputs with:

>>> import torch
>>> encode_targets(torch.from_numpy(patch)).tolist()
[0, 1, 1, 2, 0, 0, 0, 0, 3, 3]
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NewType, cast, overload

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import OUTSIDE, Targets

if TYPE_CHECKING:
    import torch

DatasetLabels = NewType("DatasetLabels", NDArray[np.integer])
"""Numbers as in dataset.json; a label map as read from its file, or a segmentation."""

CaseLabels = NewType("CaseLabels", NDArray[np.integer])
"""Numbers as in dataset.json, and `OUTSIDE` for background in the zero border; the label map of a preprocessed case."""

CascadeCodes = NewType("CascadeCodes", NDArray[np.integer])
"""A number for each pair of label and coarser segmentation; `OUTSIDE` in the zero border."""

StoredLabels = CaseLabels | CascadeCodes
"""What a file of a preprocessed case holds: codes if the case belongs to a cascade's folder of labels."""

TargetLabels = NewType("TargetLabels", "torch.Tensor")
"""Numbers as in dataset.json, without `OUTSIDE`: what the outputs of a network are compared with."""

CodeBase = NewType("CodeBase", int)
"""What a number of the coarser segmentation is multiplied by in a cascade code."""


def mark_outside(labels: DatasetLabels, mask: NDArray[np.bool_]) -> CaseLabels:
    """Sets background outside a mask to `OUTSIDE`.

    Args:
        labels: Label map of any shape.
        mask: The nonzero region of the image, of the same shape.

    Returns:
        A new array of the smallest signed integer type, int8 at least, that holds all labels.
    """
    dtype = np.result_type(np.int8, np.min_scalar_type(-int(labels.max(initial=0)) - 1))
    return CaseLabels(np.where(mask | (labels != 0), labels, OUTSIDE).astype(dtype))


def code_base(targets: Targets) -> CodeBase:
    """Returns the base of the codes of a dataset: one more than the highest number of a label map."""
    return CodeBase(max(targets.values) + 1)


def encode_cascade(labels: CaseLabels, previous: DatasetLabels, base: CodeBase) -> CascadeCodes:
    """Joins a label map and a coarser segmentation of the same shape into one array of codes, int16.

    With the base 3, label 2 and segmentation 1 are the code 5.
    """
    codes = labels.astype(np.int32) + previous.astype(np.int32) * base
    return CascadeCodes(np.where(labels == OUTSIDE, OUTSIDE, codes).astype(np.int16))


@overload
def decode_labels(codes: CascadeCodes, base: CodeBase) -> CaseLabels: ...
@overload
def decode_labels(codes: "torch.Tensor", base: CodeBase) -> "torch.Tensor": ...
def decode_labels(codes: Any, base: CodeBase) -> Any:
    """Returns the label map of codes; `OUTSIDE` stays."""
    return codes % base * (codes != OUTSIDE) + OUTSIDE * (codes == OUTSIDE)


@overload
def decode_previous(codes: CascadeCodes, base: CodeBase) -> DatasetLabels: ...
@overload
def decode_previous(codes: "torch.Tensor", base: CodeBase) -> "torch.Tensor": ...
def decode_previous(codes: Any, base: CodeBase) -> Any:
    """Returns the coarser segmentation of codes; 0 where they are `OUTSIDE`."""
    return codes // base * (codes != OUTSIDE)


@lru_cache(maxsize=4)  # it is called for each batch
def swapped_code_pairs(pairs: tuple[tuple[int, int], ...], base: CodeBase) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of codes to exchange where pairs of labels are exchanged in label map and segmentation at once.

    Each code is in one pair at most. For a base of 3, exchanging the labels 1 and 2 exchanges these codes:

    >>> swapped_code_pairs(((1, 2),), CodeBase(3))
    ((3, 6), (1, 2), (4, 8), (5, 7))
    """
    partner = list(range(base))
    for first, second in pairs:
        partner[first], partner[second] = second, first
    every = [(label, previous) for label in range(base) for previous in range(base)]
    moved = [(label + previous * base, partner[label] + partner[previous] * base) for label, previous in every]
    return tuple((code, other) for code, other in moved if code < other)


def ignore_beyond(labels: CaseLabels, beyond: NDArray[np.bool_], targets: Targets) -> CaseLabels:
    """Sets labels beyond the border of a case, where its mirror image is seen, to the ignore number.

    Decision: `OUTSIDE` stays; the image is empty there too, and is to stay so.

    Args:
        labels: Label map of a patch, of any shape.
        beyond: True for voxels beyond the border, of the same shape.
        targets: The structures of the dataset.

    Returns:
        A new label map, int16, in the numbers of `targets.with_ignore`.
    """
    ignore = cast(int, targets.with_ignore.ignore)
    return CaseLabels(np.where(beyond & (labels != OUTSIDE), ignore, labels).astype(np.int16))


def ignore_beyond_in_codes(codes: CascadeCodes, beyond: NDArray[np.bool_], targets: Targets) -> CascadeCodes:
    """Does the same as `ignore_beyond` to the labels in codes; the segmentation in them stays.

    Returns:
        New codes, int16, whose base is that of `targets.with_ignore`.
    """
    base = code_base(targets)
    labels = ignore_beyond(decode_labels(codes, base), beyond, targets)
    return encode_cascade(labels, decode_previous(codes, base), code_base(targets.with_ignore))


def encode_targets(labels: "torch.Tensor") -> TargetLabels:
    """Sets `OUTSIDE` to 0, background; the type of the numbers stays, int16 for patches.

    Codes of a cascade may be decoded afterwards too, because code 0 is background in both maps.
    """
    return TargetLabels(labels.clamp_min(0))
