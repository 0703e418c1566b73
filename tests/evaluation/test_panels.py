"""Arranging and drawing of panels."""

import numpy as np
import pytest
from PIL import Image

from autoseg.evaluation.panels import WIDEST, Panel, arrange_panels, draw_panels, wrap


def panel(shape=(10, 12), caption=("plain",), value=1):
    """Makes a panel of noise with a labelled corner."""
    labels = np.zeros(shape, np.int16)
    labels[:4, :5] = value
    return Panel(image=np.random.default_rng(0).normal(size=shape), labels=labels, caption=caption)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (4, 50)])
@pytest.mark.parametrize("aspect", [0.3, 1.0, 5.0])
def test_panels_lie_inside_the_picture_and_apart(rows, columns, aspect):
    """Rows do not overlap, and a wide row shrinks."""
    grid = arrange_panels([[panel(caption=("a", "b" * 30))] * columns] * rows, aspect, narrowest=3.0)
    assert grid.width <= WIDEST + 0.01
    assert grid.panel_height / grid.panel_width == pytest.approx(10 * aspect / 12)
    for row in range(rows):
        left, bottom, width, height = grid.position(row, columns - 1)
        assert 0 < left < left + width < 1
        assert 0 < bottom < bottom + height < 1
        if row:
            assert bottom + height < grid.position(row - 1, 0)[1]


def test_captions_are_wrapped_between_phrases():
    """A phrase stays whole if it fits; one that is too long is cut."""
    assert wrap(("turned 30°", "noise 0.10", "gamma 1.20"), 2.0) == ["turned 30°, noise 0.10,", "gamma 1.20"]
    assert wrap((), 2.0) == []
    [line] = wrap(("a_very_long_name_of_a_case_that_nobody_reads",), 2.0)
    assert line.endswith("…")
    assert len(line) <= 26


def test_picture_shows_the_outlines_of_the_structures(tmp_path):
    """The first structure is orange, the second blue."""
    path = tmp_path / "deep" / "picture.png"
    rows = [[panel(), panel(value=2)], [panel(caption=("x$y", "second"))]]
    structures = {"one": (1,), "two": (2,), "absent": (3,)}
    draw_panels(path, rows, title="all $ of it", structures=structures, pixel_aspect=1.0)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    for colour, expected in {(0xE6, 0x9F, 0x00): True, (0x56, 0xB4, 0xE9): True, (0xF0, 0xE4, 0x42): False}.items():
        assert bool((np.abs(pixels - colour).sum(axis=1) < 12).any()) == expected


def test_rows_are_as_bright_as_their_first_plane(tmp_path):
    """A plane that was darkened looks darker."""
    first = panel()
    darker = Panel(image=first.image - 10, labels=first.labels * 0, caption=("darker",))
    draw_panels(tmp_path / "a.png", [[first, darker]], title="", structures={}, pixel_aspect=1.0)
    image = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(float)
    grid = arrange_panels([[first, darker]], 1.0, narrowest=1.0)
    means = []
    for column in range(2):
        left, bottom, width, height = grid.position(0, column)
        rows, columns = image.shape
        part = image[
            int((1 - bottom - height) * rows) + 3 : int((1 - bottom) * rows) - 3,
            int(left * columns) + 3 : int((left + width) * columns) - 3,
        ]
        means.append(part.mean())
    assert means[0] > 80
    assert means[1] < 5
