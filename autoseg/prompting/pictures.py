"""A slice as the network sees it, and masks on the way back.

Segment Anything and MedSAM have the same network and saw pictures that were prepared in two ways:

- "sam": the longer side fills the image, the rest is black, and colours are standardized by fixed numbers.
- "medsam": both sides fill the image, and the intensities of each slice reach from 0 to 1.

Source: Kirillov et al., ICCV 2023, and Ma et al., Nature Communications 15:654, with their published implementations.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from autoseg.errors import UsageError
from autoseg.imaging.geometry import Volume

Preparation = Literal["sam", "medsam"]
PREPARATIONS: tuple[Preparation, ...] = ("sam", "medsam")

COLOUR_MEAN, COLOUR_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Mean and standard deviation of red, green and blue, 0 to 255. Source: the published implementation."""

PERCENTILES = (0.5, 99.5)
"""Percentiles of all values that are not 0 that become black and white. Source: MedSAM, for all images but CT."""

LEAST_CONTRAST = 1e-4
"""Difference between black and white of a slice below which it is constant, and only rounded."""

Image = NDArray[np.float32]


def choose_preparation(name: str, weights: Path) -> Preparation:
    """Returns how slices are prepared.

    Args:
        name: "sam", "medsam", or "auto" for what the name of the file of weights says.
        weights: The file of weights.

    Raises:
        UsageError: There is no such preparation.

    Example:
        >>> choose_preparation("auto", Path("medsam_vit_b.pth")), choose_preparation("auto", Path("sam_vit_b.pth"))
        ('medsam', 'sam')
    """
    if name == "auto":
        return "medsam" if "medsam" in weights.name.lower() else "sam"
    for known in PREPARATIONS:
        if name == known:
            return known
    raise UsageError(f"there is no preparation {name!r}", f"choose from auto, {', '.join(PREPARATIONS)}")


def scale_intensities(volume: Volume, channel: int | None = None, window: tuple[float, float] | None = None) -> Image:
    """Returns the intensities of a scan from black, 0, to white, 1.

    Args:
        volume: The scan, shape (c, z, y, x).
        channel: The channel that is taken; None for the only one, or for all three colours of a picture.
        window: What becomes black and white, such as (-160, 240) Hounsfield units for the abdomen; None for
            `PERCENTILES`, or for 0 and 255 in a picture in colours.

    Returns:
        Shape (1, z, y, x), or (3, z, y, x) for colours.

    Raises:
        UsageError: There is no such channel, or which one is meant is not clear; or the window is empty.

    Example:
        >>> from autoseg.imaging.geometry import Geometry
        >>> geometry = Geometry(shape=(1, 1, 3), spacing_mm=(1.0, 1.0, 1.0))
        >>> scan = Volume(array=np.array([[[[-160, 40, 300]]]], np.float32), geometry=geometry)
        >>> scale_intensities(scan, window=(-160, 240)).tolist()
        [[[[0.0, 0.5, 1.0]]]]
    """
    array, count = volume.array, len(volume.array)
    is_coloured = channel is None and count == 3 and volume.geometry.dimensions == 2
    if window is not None and not window[0] < window[1]:
        raise UsageError(f"the window {window[0]:g} to {window[1]:g} is empty", "give its lower end first")
    if not is_coloured:
        array = array[_choose_channel(channel, count), None]
    elif window is None and array.min() >= 0 and array.max() <= 255:
        window = (0.0, 255.0)
    low, high = window if window is not None else _find_window(array)
    scaled: Image = np.clip((array - np.float32(low)) / np.float32(max(high - low, 1e-6)), 0, 1)
    return scaled


def _choose_channel(channel: int | None, count: int) -> int:
    if channel is None and count > 1:
        raise UsageError(f"the scan has {count} channels", f"choose a channel from 0 to {count - 1}")
    if channel is not None and not 0 <= channel < count:
        raise UsageError(f"the scan has no channel {channel}", f"choose a channel from 0 to {count - 1}")
    return channel or 0


def _find_window(array: Image) -> tuple[float, float]:
    values = array[array != 0]
    low, high = np.percentile(values, PERCENTILES).tolist() if values.size else (0.0, 1.0)
    return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFrame:
    """Where a slice lies in the image of the network.

    Attributes:
        slice_size: Rows and columns of the slice.
        size: Rows and columns that it fills.
        image: Rows, and columns, of the whole image.
        preparation: See above.
    """

    slice_size: tuple[int, int]
    size: tuple[int, int]
    image: int
    preparation: Preparation

    @classmethod
    def of(
        cls, slice_size: tuple[int, int], pixel_mm: tuple[float, float], image: int, preparation: Preparation
    ) -> "PictureFrame":
        """Returns the frame of slices.

        Decision: "sam" keeps the proportions of the patient, not those of the voxels, so that thick slices look as
        they do to people.

        Example:
            >>> PictureFrame.of((10, 64), (3.0, 1.0), 1024, "sam").size
            (480, 1024)
        """
        if preparation == "medsam":
            return cls(slice_size=slice_size, size=(image, image), image=image, preparation=preparation)
        rows, columns = (length * mm for length, mm in zip(slice_size, pixel_mm, strict=True))
        scale = image / max(rows, columns)
        size = (max(round(rows * scale), 1), max(round(columns * scale), 1))
        return cls(slice_size=slice_size, size=size, image=image, preparation=preparation)

    def prepare(self, picture: Image) -> Tensor:
        """Returns a slice as the network sees it.

        Args:
            picture: Intensities from 0 to 1, shape (1, rows, columns), or (3, rows, columns) for colours.

        Returns:
            Shape (1, 3, image, image).
        """
        tensor = torch.from_numpy(np.ascontiguousarray(picture))[None]
        mode = "bicubic" if self.preparation == "medsam" else "bilinear"
        scaled = F.interpolate(tensor, self.size, mode=mode, antialias=True, align_corners=False)
        colours = scaled.expand(-1, 3, -1, -1)
        if self.preparation == "medsam":
            low, high = colours.amin(), colours.amax()
            return (colours - low) / (high - low).clamp(min=LEAST_CONTRAST)
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (COLOUR_MEAN, COLOUR_DEVIATION))
        standardized = (colours * 255 - mean) / deviation
        return F.pad(standardized, (0, self.image - self.size[1], 0, self.image - self.size[0]))

    def place(self, row: float, column: float) -> tuple[float, float]:
        """Returns the pixel (x, y) of the image, counted from the centre of the first, of an index of the slice.

        Worked example: in a slice of 10 rows that fills 20, the centre of the first voxel, row 0, is the border between
        the first two rows of the image, 0.5.
        """
        y, x = (
            (value + 0.5) * filled / length - 0.5
            for value, filled, length in zip((row, column), self.size, self.slice_size, strict=True)
        )
        return x, y

    def restore(self, logits: Tensor) -> Tensor:
        """Returns coarse logits (rows, columns) of the whole image on the voxels of the slice."""
        maps = logits[None, None].float()
        if self.size != (self.image, self.image):
            whole = F.interpolate(maps, (self.image, self.image), mode="bilinear", align_corners=False)
            maps = whole[:, :, : self.size[0], : self.size[1]]
        return F.interpolate(maps, self.slice_size, mode="bilinear", align_corners=False)[0, 0]
