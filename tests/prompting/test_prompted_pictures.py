"""Slices as the network sees them, and masks on the way back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.errors import UsageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.prompting.pictures import (
    COLOUR_DEVIATION,
    COLOUR_MEAN,
    PictureFrame,
    choose_preparation,
    scale_intensities,
)

FRAMES = [
    PictureFrame.of((20, 40), (1.0, 1.0), 64, "sam"),
    PictureFrame.of((20, 40), (3.0, 1.0), 64, "sam"),
    PictureFrame.of((20, 40), (1.0, 1.0), 64, "medsam"),
    PictureFrame.of((100, 90), (1.0, 1.0), 64, "sam"),
]


def scan(array: object, dimensions: int = 3) -> Volume:
    """A scan of these voxels."""
    voxels = np.asarray(array, np.float32)
    geometry = Geometry(shape=voxels.shape[1:], spacing_mm=(1.0, 1.0, 1.0), dimensions=dimensions)
    return Volume(array=voxels, geometry=geometry)


def test_sides_fill_the_image_as_the_weights_learned() -> None:
    """In proportion of mm, or both of them."""
    assert [frame.size for frame in FRAMES] == [(32, 64), (64, 43), (64, 64), (64, 58)]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame.preparation} {frame.size}")
def test_a_square_comes_back_where_it_was(frame: PictureFrame) -> None:
    """A bright square is found at the place of its box, and its pixels give its voxels back."""
    rows, columns = frame.slice_size
    picture = np.zeros((1, rows, columns), np.float32)
    top, left, bottom, right = rows // 4, columns // 4, rows // 2, columns * 3 // 4
    picture[0, top:bottom, left:right] = 1
    image = frame.prepare(picture)
    assert image.shape == (1, 3, 64, 64)
    bright = image[0, 0] > image[0, 0].max() / 2
    found_rows, found_columns = torch.nonzero(bright, as_tuple=True)
    (x, y), (end_x, end_y) = frame.place(top - 0.5, left - 0.5), frame.place(bottom - 0.5, right - 0.5)
    assert abs(found_rows.min() - 0.5 - y) <= 1
    assert abs(found_rows.max() + 0.5 - end_y) <= 1
    assert abs(found_columns.min() - 0.5 - x) <= 1
    assert abs(found_columns.max() + 0.5 - end_x) <= 1
    restored = frame.restore(torch.where(bright, 1.0, -1.0)) > 0
    wrong = (restored.numpy() != (picture[0] > 0)).sum()
    assert wrong <= 0.06 * picture.sum()


def test_colours_are_standardized_by_the_published_numbers() -> None:
    """What is beyond the slice is 0, and white is as white as in the photographs."""
    image = FRAMES[0].prepare(np.ones((1, 20, 40), np.float32))
    for colour, (mean, deviation) in enumerate(zip(COLOUR_MEAN, COLOUR_DEVIATION, strict=True)):
        assert torch.allclose(image[0, colour, :32], torch.tensor((255 - mean) / deviation))
        assert (image[0, colour, 32:] == 0).all()


def test_medsam_stretches_each_slice() -> None:
    """From 0 to 1; a constant slice is next to 0, without a division by it."""
    frame = FRAMES[2]
    image = frame.prepare(np.linspace(0.2, 0.4, 800, dtype=np.float32).reshape(1, 20, 40))
    assert (image.min(), image.max()) == (0, 1)
    assert frame.prepare(np.full((1, 20, 40), 0.3, np.float32)).max() < 0.01


def test_intensities_are_those_of_the_window() -> None:
    """Of percentiles without zeros if there is no window, and of 8 bits for colours."""
    values = np.concatenate([np.zeros(5000), np.linspace(100, 200, 1001)]).reshape(1, 1, 1, -1)
    scaled = scale_intensities(scan(values))
    assert scaled.shape == (1, 1, 1, 6001)
    assert scaled[0, 0, 0, 5000 + 500] == pytest.approx(0.5)
    assert (scaled[0, 0, 0, -5:] == 1).all()
    assert (scale_intensities(scan(values), window=(0, 400)).max()) == pytest.approx(0.5)
    assert (scale_intensities(scan(np.zeros((1, 2, 2, 2)))) == 0).all()
    colours = np.stack([np.full((1, 2, 2), value) for value in (0, 51, 255)])
    assert scale_intensities(scan(colours, 2))[:, 0, 0, 0] == pytest.approx([0, 0.2, 1])
    assert scale_intensities(scan(colours), channel=1).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("channel", "window", "text"),
    [
        (None, None, "the scan has 3 channels; choose a channel from 0 to 2"),
        (3, None, "the scan has no channel 3; choose a channel from 0 to 2"),
        (0, (5.0, 5.0), "the window 5 to 5 is empty; give its lower end first"),
    ],
)
def test_what_is_not_there_is_refused(channel: int | None, window: tuple | None, text: str) -> None:
    """A volume has no colours."""
    with pytest.raises(UsageError) as caught:
        scale_intensities(scan(np.zeros((3, 2, 2, 2))), channel, window)
    assert str(caught.value) == text
    with pytest.raises(UsageError, match="there is no preparation 'sam2'; choose from auto, sam, medsam"):
        choose_preparation("sam2", Path("weights.pth"))
