"""Volumes of a case for the viewer: numbered structures, small copies, and copies of full resolution."""

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.overlay import intensity_window
from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.imaging.targets import Targets
from autoseg.report.nifti_bytes import encode_nifti

CLIPPED_PERCENT = 0.1
"""Share of the voxels at each end of the intensities that a small copy clips. Decision: metal and noise then leave the
256 steps of a byte to tissue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How many voxels along (z, y, x) become one voxel of a small copy."""

    factors: Shape

    @property
    def is_reduced(self) -> bool:
        """Whether the copy has fewer voxels than the volume."""
        return prod(self.factors) > 1

    def place(self, geometry: Geometry) -> Geometry:
        """Returns the grid of the copy; the last blocks may reach beyond the border of the volume."""
        shape = [ceil(size / factor) for size, factor in zip(geometry.shape, self.factors, strict=True)]
        padded = [size * factor for size, factor in zip(shape, self.factors, strict=True)]
        whole = Geometry(
            shape=(padded[0], padded[1], padded[2]),
            spacing_mm=geometry.spacing_mm,
            origin_mm=geometry.origin_mm,
            direction=geometry.direction,
        )
        return whole.resample((shape[0], shape[1], shape[2]))

    def average(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """Returns the mean of each block, shape (z, y, x)."""
        if not self.is_reduced:
            return array.astype(np.float32)
        return np.asarray(self._split(array).mean(axis=(1, 3, 5), dtype=np.float32))

    def reduce_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns the blocks of which a mask covers half or more; if there is none, those that it touches.

        Decision: a lesion that is smaller than a block must not vanish.
        """
        shares = self.average(mask)
        covered = shares >= 0.5
        return covered if covered.any() else shares > 0

    def _split(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        padding = [(0, -size % factor) for size, factor in zip(array.shape, self.factors, strict=True)]
        sizes = [
            part
            for size, factor in zip(array.shape, self.factors, strict=True)
            for part in (ceil(size / factor), factor)
        ]
        return np.pad(array, padding, mode="edge").reshape(sizes)


def choose_blocks(geometry: Geometry, most_voxels: int) -> Blocks:
    """Returns blocks with which a volume has at most so many voxels, and those are as nearly cubes as can be.

    Example:
        >>> choose_blocks(Geometry(shape=(40, 512, 512), spacing_mm=(5.0, 0.8, 0.8)), 1_000_000).factors
        (1, 4, 3)
    """
    factors = [1, 1, 1]
    while prod(ceil(size / factor) for size, factor in zip(geometry.shape, factors, strict=True)) > most_voxels:
        sides = [
            factor * side if size > factor else np.inf
            for size, factor, side in zip(geometry.shape, factors, geometry.spacing_mm, strict=True)
        ]
        factors[int(np.argmin(sides))] += 1
    return Blocks(factors=(factors[0], factors[1], factors[2]))


def number_structures(label: Volume, targets: Targets) -> Volume:
    """Returns a label map whose numbers are those of the structures, from 1; later ones cover earlier ones.

    Args:
        label: Label map, shape (z, y, x); numbers that are no structure become 0.
        targets: What its numbers mean.

    Example:
        >>> geometry = Geometry(shape=(1, 1, 3), spacing_mm=(1.0, 1.0, 1.0))
        >>> targets = Targets(structures={"whole": (4, 7), "core": (7,)}, exclusive=False, region_class_order=(4, 7))
        >>> number_structures(Volume(array=np.array([[[0, 4, 7]]]), geometry=geometry), targets).array.tolist()
        [[[0, 1, 2]]]
    """
    highest = max(targets.values)
    numbers = np.zeros(highest + 2, dtype=np.uint8 if len(targets.structures) < 256 else np.uint16)
    for number, values in enumerate(targets.structures.values(), start=1):
        numbers[list(values)] = number
    known = (label.array >= 0) & (label.array <= highest)
    return Volume(array=numbers[np.where(known, label.array, highest + 1)], geometry=label.geometry)


def encode_image(channel: Volume, blocks: Blocks) -> bytes:
    """Returns a small copy of an image, 256 steps of intensity, as a packed NIfTI file.

    Args:
        channel: Shape (z, y, x).
        blocks: See `choose_blocks`.
    """
    means = blocks.average(np.nan_to_num(channel.array, posinf=0, neginf=0))
    low, high = (float(level) for level in np.percentile(means, (CLIPPED_PERCENT, 100 - CLIPPED_PERCENT)))
    slope = (high - low) / 255 or 1.0
    stored = np.clip(np.rint((means - low) / slope), 0, 255).astype(np.uint8)
    window = intensity_window([means])
    return encode_nifti(stored, blocks.place(channel.geometry), scale=(slope, low), window=window, packed=True)


def encode_mask(mask: Volume, blocks: Blocks) -> bytes:
    """Returns a small copy of a label map of `number_structures` as a packed NIfTI file."""
    if blocks.is_reduced:
        reduced = np.zeros(blocks.place(mask.geometry).shape, mask.array.dtype)
        for number in np.unique(mask.array):
            if number:
                reduced[blocks.reduce_mask(mask.array == number)] = number
        mask = Volume(array=reduced, geometry=blocks.place(mask.geometry))
    return encode_nifti(mask.array, mask.geometry, packed=True)


def encode_whole(volume: Volume, most_voxels: int) -> bytes:
    """Returns an image or a label map with its own intensities as a NIfTI file that is not packed.

    Args:
        volume: Shape (z, y, x).
        most_voxels: A larger volume is reduced to so many voxels, which a browser can hold.
    """
    blocks, array, geometry = choose_blocks(volume.geometry, most_voxels), volume.array, volume.geometry
    if np.issubdtype(array.dtype, np.integer):
        strides = tuple(slice(factor // 2, None, factor) for factor in blocks.factors)
        return encode_nifti(array[strides] if blocks.is_reduced else array, blocks.place(geometry))
    means = blocks.average(np.nan_to_num(array, posinf=0, neginf=0))
    window = intensity_window([means])
    stored = means.astype(np.int16) if np.abs(means).max(initial=0) < 2**15 else means
    is_whole = stored.dtype == np.int16 and np.array_equal(stored, means)
    return encode_nifti(stored if is_whole else means, blocks.place(geometry), window=window)
