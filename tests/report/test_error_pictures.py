"""Pictures of errors show the slice where most is wrong, in the colours of the legend."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageColor

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.targets import Targets
from autoseg.report.case_pictures import GAP
from autoseg.report.error_pictures import ERRORS, PANEL, ComparedMaps, draw_errors

GEOMETRY = Geometry(shape=(20, 20, 20), spacing_mm=(1.0, 1.0, 1.0))
TARGETS = Targets.of_labels({"liver": 1, "tumour": 2})
SIDE = PANEL + GAP


def volume(array) -> Volume:
    """A volume on the grid of the case."""
    return Volume(array=array, geometry=GEOMETRY)


def panels(picture: bytes, columns: int) -> np.ndarray:
    """The panels of a picture as floats, shape (rows, columns, SIDE, SIDE, 3)."""
    pixels = np.asarray(Image.open(BytesIO(picture)).convert("RGB"), dtype=float)
    rows = pixels.shape[0] // SIDE
    assert pixels.shape == (rows * SIDE, columns * SIDE, 3)
    return pixels.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2)


def colour_at(panel: np.ndarray, row: float, column: float) -> np.ndarray:
    """The colour of a voxel of a plane of 20 x 20."""
    return panel[int(row * PANEL / 20 + PANEL / 40), int(column * PANEL / 20 + PANEL / 40)]


def is_like(colour: np.ndarray, name: str) -> bool:
    """Whether a half-transparent colour over grey is nearest to that of an error."""
    wanted = {error: np.array(ImageColor.getrgb(text)) for error, text in ERRORS.items()}
    tints = {error: rgb - rgb.mean() for error, rgb in wanted.items()}
    tint = colour - colour.mean()
    return max(tints, key=lambda error: tints[error] @ tint / np.linalg.norm(tints[error])) == name


def test_errors_are_shown_where_they_are():
    """In an axial slice: liver missed on the right of the patient, tumour too much, and liver taken for tumour."""
    reference, prediction = np.zeros((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint8)
    reference[4:6, 4:8, 4:8] = 1  # missed
    prediction[4:6, 12:16, 4:8] = 2  # too much
    reference[4:6, 12:16, 12:16], prediction[4:6, 12:16, 12:16] = 1, 2  # another label
    image = volume(np.random.default_rng(0).normal(100, 5, (1, 20, 20, 20)).astype(np.float32))
    maps = ComparedMaps(reference=volume(reference), predictions=[volume(prediction)], targets=TARGETS)
    axial = panels(draw_errors(image, maps), columns=4)[0]
    assert is_like(colour_at(axial[3], 6, 6), "missed")
    assert is_like(colour_at(axial[3], 14, 6), "too much")
    assert is_like(colour_at(axial[3], 14, 14), "another label")
    assert np.ptp(colour_at(axial[3], 6, 14)) < 12  # grey where nothing is
    assert np.ptp(colour_at(axial[0], 6, 6)) < 12
    assert np.ptp(colour_at(axial[1], 6, 6)) > 30  # the truth
    assert np.ptp(colour_at(axial[2], 6, 6)) < 12  # was not found


def test_two_runs_are_shown_where_they_differ():
    """One column for each, none for errors."""
    reference, first, second = (np.zeros((20, 20, 20), np.uint8) for _ in range(3))
    reference[2:8, 2:18, 2:18] = first[2:8, 2:18, 2:18] = second[2:8, 2:18, 2:18] = 1
    second[15, 8:12, 8:12] = 1
    image = volume(np.full((1, 20, 20, 20), 100, np.float32) + np.arange(20, dtype=np.float32))
    maps = ComparedMaps(reference=volume(reference), predictions=[volume(first), volume(second)], targets=TARGETS)
    axial = panels(draw_errors(image, maps), columns=4)[0]
    assert np.ptp(colour_at(axial[1], 10, 10)) < 12  # the axial slice is the fifteenth, where the truth has nothing
    assert np.ptp(colour_at(axial[2], 10, 10)) < 12
    assert np.ptp(colour_at(axial[3], 10, 10)) > 30


def test_ignored_voxels_are_no_errors():
    """They do not choose the slice either."""
    targets = Targets.of_labels({"liver": 1}, ignore=2)
    reference, prediction = np.zeros((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint8)
    reference[3], prediction[3] = 2, 1
    reference[9, 5:9, 5:9] = 1
    image = volume(np.ones((1, 20, 20, 20), np.float32) * np.arange(20, dtype=np.float32))
    maps = ComparedMaps(reference=volume(reference), predictions=[volume(prediction)], targets=targets)
    axial = panels(draw_errors(image, maps), columns=4)[0]
    assert is_like(colour_at(axial[3], 7, 7), "missed")
    assert np.ptp(colour_at(axial[3], 15, 15)) < 12
