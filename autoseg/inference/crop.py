"""The part of an image that is worth the work of the networks: around what a coarse model found in it.

The coarse segmentation decides a box, which is grown by a margin. Of all tiles of the image, only those are predicted
that a voxel of the box depends on; they stay where they are, so that inside the box the result is that of the whole
image, up to rounding. Outside it is background.

Example, along an axis of 10 voxels with tiles of 4: the structure is at voxels 0 and 1, and the margin is one voxel.

    voxel   0 1 2 3 4 5 6 7 8 9
    box     # # #
    tile 0  # # # #
    tile 1      # # # #
    tile 2          . . . .          which is left out
    tile 3              . . . .      likewise
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.cropping import box_around
from autoseg.imaging.geometry import Box, Shape, Volume
from autoseg.imaging.targets import Targets
from autoseg.inference.tiling import TiledImage, group_identical
from autoseg.planning.machine_speed import describe_roughly
from autoseg.preprocessing.case import PreprocessRecord

MARGIN_VOXELS = 8
"""Margin around what the coarse model found, in its own voxels. Decision: the border of its structures is one or two of
them off; a structure that it saw half of still lies inside if the other half is no wider than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionOfInterest:
    """What a coarse model found in an image, around which a finer one looks.

    Attributes:
        segmentation: Label map (z, y, x), or a mask for each structure (structures, z, y, x), on the grid of the image.
        margin_mm: Distance by which the box around all structures is grown on each side.
        coarse_seconds: Time that the coarse model took.
        is_needed_anyway: Whether the finer model, a cascade, needs this segmentation in any case.
    """

    segmentation: Volume
    margin_mm: float
    coarse_seconds: float = 0.0
    is_needed_anyway: bool = False

    def find_box(self, record: PreprocessRecord) -> Box | None:
        """Returns the box to keep, as voxels of the cropping box of a preprocessed case; None if nothing was found.

        Example:
            >>> from autoseg.imaging.geometry import Geometry
            >>> geometry = Geometry(shape=(1, 1, 8), spacing_mm=(1.0, 1.0, 2.0))
            >>> found = Volume(array=np.array([[[0, 0, 0, 0, 1, 0, 0, 0]]]), geometry=geometry)
            >>> record = PreprocessRecord(
            ...     geometry=geometry,
            ...     axis_order=(0, 1, 2),
            ...     box=Box(start=(0, 0, 1), stop=(1, 1, 8)),
            ...     shape=(1, 1, 7),
            ...     spacing_mm=(1.0, 1.0, 2.0),
            ... )
            >>> RegionOfInterest(segmentation=found, margin_mm=3.0).find_box(record)
            Box(start=(0, 0, 1), stop=(1, 1, 6))
        """
        array = self.segmentation.array
        mask = record.crop(np.asarray(array.any(axis=0) if array.ndim == 4 else array != 0))
        if not mask.any():
            return None
        box = box_around(mask)
        margins = [ceil(self.margin_mm / spacing) for spacing in record.box_spacing_mm]
        sizes = zip(box.start, box.stop, margins, mask.shape, strict=True)
        edges = [(max(0, start - margin), min(size, stop + margin)) for start, stop, margin, size in sizes]
        return _make_box(edges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """What of an image was predicted.

    Attributes:
        kept: Voxels of the cropping box of the preprocessed case whose result is kept; None for all, since the coarse
            model found nothing.
        tiles: Number of tiles that were predicted; of equal, constant tiles only one is.
        all_tiles: Number of tiles of the whole image, counted likewise.
        seconds: Time that the networks took for these tiles.
        coarse_seconds, coarse_is_needed_anyway: See `RegionOfInterest`.
    """

    kept: Box | None
    tiles: int
    all_tiles: int
    seconds: float
    coarse_seconds: float = 0.0
    coarse_is_needed_anyway: bool = False

    @classmethod
    def pool(cls, crops: Sequence["Crop"]) -> "Crop":
        """Returns what several configurations predicted of one image after one coarse segmentation."""
        tiles, all_tiles = (sum(crop.tiles for crop in crops), sum(crop.all_tiles for crop in crops))
        return replace(crops[0], tiles=tiles, all_tiles=all_tiles, seconds=sum(crop.seconds for crop in crops))

    @property
    def seconds_of_whole(self) -> float:
        """About the time in which the networks would have predicted the whole image."""
        coarse = self.coarse_seconds if self.coarse_is_needed_anyway else 0.0
        return self.seconds * self.all_tiles / self.tiles + coarse


@dataclass(frozen=True, slots=True, kw_only=True)
class CroppedTiles:
    """The tiles of an image that are to be predicted.

    Attributes:
        tiled: The image with these tiles.
        crop: What they are of the image, without the time that they take; None if they are all.
        started: When their prediction began, by `time.perf_counter`.
    """

    tiled: TiledImage
    crop: Crop | None
    started: float

    @classmethod
    def of(cls, tiled: TiledImage, record: PreprocessRecord, region: RegionOfInterest | None) -> Self:
        """Chooses the tiles of a preprocessed case that a region needs; all if there is no region."""
        if region is None:
            return cls(tiled=tiled, crop=None, started=time.perf_counter())
        kept = region.find_box(record)
        chosen = tiled if kept is None else tiled.only(find_needed_voxels(kept, record))
        tiles, all_tiles = (len(group_identical(some.volume, some.tiles)) for some in (chosen, tiled))
        crop = Crop(
            kept=kept,
            tiles=tiles,
            all_tiles=all_tiles,
            seconds=0.0,
            coarse_seconds=region.coarse_seconds,
            coarse_is_needed_anyway=region.is_needed_anyway,
        )
        return cls(tiled=chosen, crop=crop, started=time.perf_counter())

    def finish(self) -> Crop | None:
        """Returns the crop with the time since the tiles were chosen."""
        return None if self.crop is None else replace(self.crop, seconds=time.perf_counter() - self.started)


def find_needed_voxels(kept: Box, record: PreprocessRecord) -> Box:
    """Returns the voxels of a preprocessed case on which the result in a box depends, when it is resampled back.

    Linear interpolation takes the two nearest voxels along each axis; one more on each side is for rounding.

    Example:
        An axis of 8 voxels that was resampled to 4: voxel 2 of 8 lies at 0.75 of 4.

        >>> from autoseg.imaging.geometry import Geometry
        >>> record = PreprocessRecord(
        ...     geometry=Geometry(shape=(1, 1, 8), spacing_mm=(1.0, 1.0, 1.0)),
        ...     axis_order=(0, 1, 2),
        ...     box=Box(start=(0, 0, 0), stop=(1, 1, 8)),
        ...     shape=(1, 1, 4),
        ...     spacing_mm=(1.0, 1.0, 2.0),
        ... )
        >>> find_needed_voxels(Box(start=(0, 0, 0), stop=(1, 1, 3)), record)
        Box(start=(0, 0, 0), stop=(1, 1, 3))
    """
    edges = []
    for start, stop, size, box_size in zip(kept.start, kept.stop, record.shape, record.box.shape, strict=True):
        scale = size / box_size
        first, last = floor((start + 0.5) * scale - 0.5) - 1, ceil((stop - 0.5) * scale - 0.5) + 1
        edges.append((max(0, first), min(size, last + 1)))
    return _make_box(edges)


def clear_outside(volume: Volume, record: PreprocessRecord, kept: Box | None, outside: float = 0) -> Volume:
    """Returns a volume (z, y, x) on the grid of the image with one value outside the box that is kept."""
    if kept is None:
        return volume
    array: NDArray[Any] = np.full_like(volume.array, outside)
    record.crop(array)[kept.slices] = record.crop(volume.array)[kept.slices]
    return Volume(array=array, geometry=volume.geometry)


def list_remarks(crop: Crop, segmentation: Volume, record: PreprocessRecord, targets: Targets) -> tuple[str, ...]:
    """Returns remarks about a crop: that nothing was found, or that structures reach its edge inside the image.

    Args:
        crop: The crop.
        segmentation: The result: a label map (z, y, x), or a mask for each structure (structures, z, y, x).
        record: The record of the case.
        targets: What its numbers, or masks, mean.
    """
    if crop.kept is None:
        return ("the coarse model found nothing, so the whole scan was segmented",)
    kept = crop.kept
    reaching = [name for name, mask in _list_masks(segmentation, targets) if _reaches_edge(record.crop(mask), kept)]
    if not reaching:
        return ()
    verb = "reaches" if len(reaching) == 1 else "reach"
    advice = "predict it with a larger --crop-margin, or without --crop-by"
    return (f"{', '.join(reaching)} {verb} the edge of the crop, beyond which more may be: {advice}",)


def describe_gain(crops: Sequence[Crop]) -> str:
    """Returns what crops of some images have saved.

    Example:
        >>> crop = Crop(kept=_make_box([(0, 4)] * 3), tiles=3, all_tiles=30, seconds=6.0, coarse_seconds=4.0)
        >>> describe_gain([crop])
        'cropped: 10 % of the tiles were calculated; the networks took about 10 s, and without --crop-by about 60 s'
    """
    share = sum(crop.tiles for crop in crops) / sum(crop.all_tiles for crop in crops)
    took = sum(crop.seconds + crop.coarse_seconds for crop in crops)
    whole = sum(crop.seconds_of_whole for crop in crops)
    times = f"the networks took about {describe_roughly(took)}, and without --crop-by about {describe_roughly(whole)}"
    return f"cropped: {share:.0%} of the tiles were calculated; {times}".replace("%", " %")


def _list_masks(segmentation: Volume, targets: Targets) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields the name of each structure and its mask (z, y, x)."""
    array = segmentation.array
    for position, (name, numbers) in enumerate(targets.structures.items()):
        yield name, array[position] != 0 if array.ndim == 4 else np.isin(array, numbers)


def _reaches_edge(mask: NDArray[np.bool_], kept: Box) -> bool:
    """Returns whether a mask has voxels at an edge of a box beyond which its array goes on."""
    inside, shape = mask[kept.slices], mask.shape
    for axis, (start, stop, size) in enumerate(zip(kept.start, kept.stop, shape, strict=True)):
        if start > 0 and inside.take(0, axis=axis).any():
            return True
        if stop < size and inside.take(-1, axis=axis).any():
            return True
    return False


def _make_box(edges: Sequence[tuple[int, int]]) -> Box:
    start, stop = zip(*edges, strict=True)
    return Box(start=_as_shape(start), stop=_as_shape(stop))


def _as_shape(values: Sequence[int]) -> Shape:
    z, y, x = values
    return z, y, x
