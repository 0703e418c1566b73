"""Pictures of many small panels in rows: planes of images with outlines of the labels and a caption."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.overlay import BACKGROUND, DOTS_PER_INCH, intensity_window, label_colour, outline
from autoseg.imaging.targets import Numbers
from autoseg.runtime.artifact import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Sizes in inches. Panels shrink until a row of them is at most as wide as WIDEST.
LARGEST_PANEL, WIDEST = 2.4, 16.0
GAP, CAPTION_GAP, CAPTION_LINE, HEADER, LEGEND = 0.14, 0.1, 0.165, 0.6, 0.4
LETTERS_PER_INCH, TITLE_LETTERS_PER_INCH = 13.0, 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plane, ready to draw.

    Attributes:
        image, labels: Intensities and label numbers, shape (rows, columns).
        caption: Phrases of the caption; each stays on one line if it fits.
    """

    image: NDArray[np.floating]
    labels: NDArray[np.integer]
    caption: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelGrid:
    """Layout of the panels of a picture, in inches.

    Attributes:
        width, height: Size of the picture.
        panel_width, panel_height: Size of each panel.
        bottoms: Lower edge of each row of panels, measured from the lower edge of the picture.
    """

    width: float
    height: float
    panel_width: float
    panel_height: float
    bottoms: tuple[float, ...]

    def position(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Returns (left, bottom, width, height) of a panel as fractions of the size of the picture."""
        left = GAP + column * (self.panel_width + GAP)
        return (
            left / self.width,
            self.bottoms[row] / self.height,
            self.panel_width / self.width,
            self.panel_height / self.height,
        )


def draw_panels(
    path: Path, rows: Sequence[Sequence[Panel]], *, title: str, structures: Mapping[str, Numbers], pixel_aspect: float
) -> None:
    """Draws rows of panels as a PNG file, atomically.

    Args:
        path: Path of the PNG file.
        rows: Panels of one size. All panels of a row have the intensity window of the first one, so that changes of
            brightness are visible.
        title: Title of the picture, one short line.
        structures: Name of each structure to its label numbers; structures are outlined and named below the panels.
        pixel_aspect: Height of a pixel divided by its width.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - importing matplotlib takes a second

    grid = arrange_panels(rows, pixel_aspect, narrowest=len(title) / TITLE_LETTERS_PER_INCH + 2 * GAP)
    figure = Figure(figsize=(grid.width, grid.height), facecolor=BACKGROUND)
    left = GAP / grid.width
    height = 1 - HEADER / 2 / grid.height
    figure.text(left, height, title, color="white", size=13, weight="bold", va="center", parse_math=False)
    for number, row in enumerate(rows):
        window = intensity_window([row[0].image])
        for column, panel in enumerate(row):
            axes = figure.add_axes(grid.position(number, column))
            _draw_panel(axes, panel, window, structures)
            text, colour = "\n".join(wrap(panel.caption, grid.panel_width)), "0.7" if column else "white"
            axes.set_title(text, color=colour, size=8.5, loc="left", pad=4, linespacing=1.2, parse_math=False)
    present = {int(number) for row in rows for panel in row for number in np.unique(panel.labels)}
    colours = {name: label_colour(number) for number, name in enumerate(structures, start=1)}
    _draw_names(figure, grid, {name: colours[name] for name, numbers in structures.items() if present & {*numbers}})
    with atomic_file(path) as writing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks are drawn as boxes
        figure.savefig(writing, dpi=DOTS_PER_INCH, format="png")


def arrange_panels(rows: Sequence[Sequence[Panel]], pixel_aspect: float, *, narrowest: float) -> PanelGrid:
    """Computes the layout of a picture.

    Args:
        rows: Panels of one size. Each row gets the height that its longest caption needs.
        pixel_aspect: Height of a pixel divided by its width.
        narrowest: Smallest width of the picture in inches: that of its title.
    """
    columns = max(len(row) for row in rows)
    pixels_high, pixels_wide = rows[0][0].image.shape
    slope = pixels_high * pixel_aspect / pixels_wide
    panel_width = min(LARGEST_PANEL, LARGEST_PANEL / slope, (WIDEST - GAP) / columns - GAP)
    panel_height = panel_width * slope
    lines = [max(len(wrap(panel.caption, panel_width)) for panel in row) for row in rows]
    heights = [CAPTION_GAP + CAPTION_LINE * count + panel_height + GAP for count in lines]
    height = HEADER + sum(heights) + LEGEND
    return PanelGrid(
        width=max(narrowest, GAP + columns * (panel_width + GAP)),
        height=height,
        panel_width=panel_width,
        panel_height=panel_height,
        bottoms=tuple(float(height - HEADER - below + GAP) for below in np.cumsum(heights)),
    )


def wrap(phrases: Sequence[str], width: float) -> list[str]:
    """Wraps phrases, separated by commas, into lines of a width in inches; a phrase that is too long is truncated.

    >>> wrap(("rotated 30°", "noise 0.10", "gamma 1.20"), width=2.0)
    ['rotated 30°, noise 0.10,', 'gamma 1.20']
    """
    letters = max(8, int(width * LETTERS_PER_INCH))
    lines: list[str] = []
    for number, phrase in enumerate(phrases):
        text = phrase + ("," if number < len(phrases) - 1 else "")
        if lines and len(lines[-1]) + 1 + len(text) <= letters:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return [line if len(line) <= letters else f"{line[: letters - 1]}…" for line in lines]


def _draw_panel(axes: "Axes", panel: Panel, window: tuple[float, float], structures: Mapping[str, Numbers]) -> None:
    from matplotlib.collections import LineCollection  # noqa: PLC0415 - see draw_panels

    low, high = window
    rows, columns = panel.image.shape
    extent = (0.0, float(columns), float(rows), 0.0)  # row 0 is the top
    axes.imshow(panel.image, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest", aspect="auto")
    for number, values in enumerate(structures.values(), start=1):
        segments = list(outline(np.isin(panel.labels, values)))
        lines = LineCollection(segments, colors=label_colour(number), linewidths=1.1, capstyle="round")
        axes.add_collection(lines, autolim=False)
    axes.set_axis_off()


def _draw_names(figure: "Figure", grid: PanelGrid, colours: Mapping[str, str]) -> None:
    """Writes the names of structures side by side in their colours, as many as fit."""
    left = GAP
    for name, colour in colours.items():
        if left + len(name) / LETTERS_PER_INCH > grid.width - GAP:
            return
        figure.text(
            left / grid.width, LEGEND / 2 / grid.height, name, color=colour, size=10, va="center", parse_math=False
        )
        left += (len(name) + 3) / LETTERS_PER_INCH
