"""How much work a prediction is worth: `--quality`, one name for what makes it slower and a little more accurate.

| quality | mirror images | distance of tiles | resampling of the image |
|---|---|---|---|
| `best` | all: eight of a volume, four of a plane | at most half a tile | cubic splines |
| `balanced` | two: as it is, and mirrored along all axes at once | at most half a tile | cubic splines |
| `fast` | one: as it is | at most three quarters of a tile | linear |
"""

from dataclasses import dataclass, replace
from typing import Literal

from autoseg.errors import UsageError
from autoseg.inference.axis_tiling import OVERLAP_STEP
from autoseg.preprocessing.resampling import IMAGE_ORDER, Order

MirrorImages = Literal["all", "two", "one"]
"""Images of a patch whose predictions are averaged: all mirror images; the patch and that mirrored along all axes at
once; or the patch alone."""

FAST_OVERLAP_STEP = 0.75
"""Decision: of a large volume, tiles that are three quarters of a tile apart are 0.3 of those that are half a tile
apart. At the voxel that is farthest from the centre of any tile the weight of a tile is still 0.01 along an axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionQuality:
    """What a prediction costs and is worth.

    Attributes:
        mirror_images: Which images of a patch are averaged; no more than training mirrored.
        overlap_step: Largest distance of neighbouring tiles, as a fraction of a tile. Networks with a margin, whose
            tiles need not overlap, have no more tiles than that needs either way.
        image_order: Order of the splines by which images are resampled; logits are resampled linearly in any case.
    """

    mirror_images: MirrorImages = "all"
    overlap_step: float = OVERLAP_STEP
    image_order: Order = IMAGE_ORDER

    def count_images(self, axes: int) -> int:
        """Returns the number of images of a patch that are averaged.

        Example:
            >>> [QUALITIES[name].count_images(3) for name in QUALITIES]
            [1, 2, 8]

        Args:
            axes: Number of axes that training mirrored.
        """
        most: dict[MirrorImages, int] = {"all": 1 << axes, "two": 2, "one": 1}
        return min(most[self.mirror_images], 1 << axes)

    def describe_tiles(self) -> list[str]:
        """Returns what differs from `BEST` beside mirror images, for the digest of a model."""
        tiles = [] if self.overlap_step == OVERLAP_STEP else [f"tiles {self.overlap_step} apart"]
        return tiles + ([] if self.image_order == IMAGE_ORDER else [f"splines of order {self.image_order}"])


BEST = PredictionQuality()
"""That of validation, and of the reference method."""

QUALITIES: dict[str, PredictionQuality] = {
    "fast": PredictionQuality(mirror_images="one", overlap_step=FAST_OVERLAP_STEP, image_order=1),
    "balanced": PredictionQuality(mirror_images="two"),
    "best": BEST,
}


def choose_quality(name: str, *, mirroring: bool | None = None) -> PredictionQuality:
    """Returns the quality of a name, with all mirror images or none if that was asked for as well.

    Example:
        >>> choose_quality("fast", mirroring=True).mirror_images
        'all'

    Args:
        name: One of `QUALITIES`.
        mirroring: Whether to average over all mirror images; None leaves it to the quality.

    Raises:
        UsageError: There is no such quality.
    """
    if name not in QUALITIES:
        raise UsageError(f"there is no quality {name!r}", f"choose from {', '.join(QUALITIES)}")
    quality = QUALITIES[name]
    return quality if mirroring is None else replace(quality, mirror_images="all" if mirroring else "one")
