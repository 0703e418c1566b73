"""Measures of a case for a report, taken while its voxels are in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import prod

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import Problem
from autoseg.datasets.fingerprint import CaseFacts, fingerprint_case
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.integrity import Inspection
from autoseg.evaluation.views import find_reorientation
from autoseg.imaging.geometry import Volume
from autoseg.report.case_pictures import draw_thumbnail

SIGNATURE_SIDE = 12
"""Blocks along each axis of a signature. Decision: coarse enough to forgive noise and resampling, fine enough to tell
patients apart; 20,000 signatures take 140 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureMeasure:
    """A structure in a case.

    Attributes:
        volume_ml: Its volume in millilitres, or for pictures of one plane its area in thousands of pixels.
        leftness: Where its centre lies between the right border of the case, 0, and the left one, 1; None if left and
            right are not known.
    """

    volume_ml: float
    leftness: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMeasures:
    """A case of a report.

    Attributes:
        name: Name of the case.
        problems: What prevents its use; then the other attributes may be None or empty.
        facts: Measurements as in the fingerprint.
        structures: Name to measure of each structure that occurs.
        digest: Digest of the voxels of the image; equal for the same scan under two names.
        signature: The first channel as means of coarse blocks, of mean 0 and length 1, shape (n,), float32; compared by
            `duplicates`.
        picture: A picture with the labels, in WebP.
    """

    name: str
    problems: tuple[Problem, ...] = ()
    facts: CaseFacts | None = None
    structures: Mapping[str, StructureMeasure]
    digest: bytes = b""
    signature: NDArray[np.float32] | None = None
    picture: bytes = b""


def measure_case(inspection: Inspection, info: DatasetInfo, *, with_picture: bool = True) -> CaseMeasures:
    """Measures a case that was read; one with problems only has its name, its problems, and a picture if possible."""
    image, label = inspection.image, inspection.label
    picture = draw_case(inspection, info) if with_picture else b""
    if image is None or label is None or inspection.problems:
        return CaseMeasures(name=inspection.name, problems=inspection.problems, structures={}, picture=picture)
    summary, _ = fingerprint_case(inspection.name, image, label, draws=1)
    return CaseMeasures(
        name=inspection.name,
        facts=summary.facts,
        structures=_measure_structures(summary.facts, info),
        digest=blake2b(np.ascontiguousarray(image.array).tobytes(), digest_size=16).digest(),
        signature=sign(image),
        picture=picture,
    )


def draw_case(inspection: Inspection, info: DatasetInfo) -> bytes:
    """Draws a case that was read, in WebP; empty if its image cannot be read."""
    image = inspection.image
    return b"" if image is None else draw_thumbnail(image, _labels_that_fit(image, inspection.label), info.targets)


def sign(image: Volume) -> NDArray[np.float32]:
    """Returns the signature of an image: its first channel in coarse blocks, whatever the order of its axes.

    Returns:
        Means of `SIGNATURE_SIDE` blocks along each axis (fewer along an axis of fewer voxels, then repeated), shape
        (n,), of mean 0 and length 1; zeros for a constant image.

    Example:
        >>> from autoseg.imaging.geometry import Geometry
        >>> array = np.arange(24 * 24 * 24, dtype=np.float32).reshape(1, 24, 24, 24)
        >>> geometry = Geometry(shape=(24, 24, 24), spacing_mm=(1.0, 1.0, 1.0))
        >>> first, second = (sign(Volume(array=scale * array + 5, geometry=geometry)) for scale in (1, 3))
        >>> first.shape, round(float(first @ second), 4)
        ((1728,), 1.0)
    """
    blocks = find_reorientation(image.geometry).apply(image.array[0]).astype(np.float32)
    for axis, size in enumerate(blocks.shape):
        starts = np.arange(SIGNATURE_SIDE) * size // SIGNATURE_SIDE
        ends = np.maximum(starts + 1, (np.arange(SIGNATURE_SIDE) + 1) * size // SIGNATURE_SIDE)
        means = [
            blocks.take(range(start, end), axis=axis).mean(axis=axis) for start, end in zip(starts, ends, strict=True)
        ]
        blocks = np.stack(means, axis=axis)
    centred = (blocks - blocks.mean()).ravel()
    length = float(np.linalg.norm(centred))
    return np.asarray(centred / length if length > 0 else centred, dtype=np.float32)


def _measure_structures(facts: CaseFacts, info: DatasetInfo) -> dict[str, StructureMeasure]:
    voxel_ml = prod(facts.spacing_mm) / 1000
    measures = {}
    for name, numbers in info.targets.structures.items():
        parts = [part for part in facts.labels if part.label in numbers]
        voxels = sum(part.voxels for part in parts)
        if voxels:
            sides = [_leftness(part.center, facts.orientation) for part in parts]
            known = [side * part.voxels / voxels for side, part in zip(sides, parts, strict=True) if side is not None]
            leftness = sum(known) if len(known) == len(parts) else None
            measures[name] = StructureMeasure(volume_ml=voxels * voxel_ml, leftness=leftness)
    return measures


def _leftness(center: tuple[float, ...], orientation: str | None) -> float | None:
    """Returns where a centre lies between right, 0, and left, 1."""
    for position, letter in zip(center, orientation or "", strict=False):
        if letter in "LR":
            return position if letter == "L" else 1 - position
    return None


def _labels_that_fit(image: Volume, label: Volume | None) -> Volume:
    """Returns a label map on the grid of the image: the one at hand, or an empty one if there is none that fits."""
    if label is not None and label.geometry.shape == image.geometry.shape:
        return label
    return Volume(array=np.zeros(image.geometry.shape, dtype=np.int32), geometry=image.geometry)
