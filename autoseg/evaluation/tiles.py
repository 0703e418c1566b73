"""Pictures of many small planes in rows, each with outlines and a caption."""

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

# Sizes in inches. Tiles shrink until a row of them is as wide as this.
LARGEST_TILE, WIDEST = 2.4, 16.0
GAP, CAPTION_GAP, CAPTION_LINE, HEADER, LEGEND = 0.14, 0.1, 0.165, 0.6, 0.4
LETTERS_PER_INCH, TITLE_LETTERS_PER_INCH = 13.0, 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One plane, ready to draw.

    Attributes:
        image, labels: Shape (rows, columns).
        caption: Phrases; each stays on one line if it can.
    """

    image: NDArray[np.floating]
    labels: NDArray[np.integer]
    caption: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the tiles of a picture stand, in inches.

    Attributes:
        width, height: Of the picture.
        tile_width, tile_height: Of each tile.
        bottoms: Lower edge of each row of tiles, from the lower edge of the picture.
    """

    width: float
    height: float
    tile_width: float
    tile_height: float
    bottoms: tuple[float, ...]

    def place(self, row: int, column: int) -> tuple[float, float, float, float]:
        """(left, bottom, width, height) of a tile, as shares of the picture."""
        left = GAP + column * (self.tile_width + GAP)
        return (
            left / self.width,
            self.bottoms[row] / self.height,
            self.tile_width / self.width,
            self.tile_height / self.height,
        )


def draw_tiles(
    path: Path, rows: Sequence[Sequence[Tile]], *, title: str, structures: Mapping[str, Numbers], pixel_aspect: float
) -> None:
    """Draws rows of planes as a PNG file, atomically.

    Args:
        path: Of the PNG file.
        rows: Planes of one size. All of a row are as bright as its first one, so that changes show.
        title: One short line.
        structures: Name to label numbers; outlined, and named below.
        pixel_aspect: Height of a pixel by its width.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to import, for one picture

    grid = arrange_tiles(rows, pixel_aspect, narrowest=len(title) / TITLE_LETTERS_PER_INCH + 2 * GAP)
    figure = Figure(figsize=(grid.width, grid.height), facecolor=BACKGROUND)
    left = GAP / grid.width
    height = 1 - HEADER / 2 / grid.height
    figure.text(left, height, title, color="white", size=13, weight="bold", va="center", parse_math=False)
    for number, row in enumerate(rows):
        window = intensity_window([row[0].image])
        for column, tile in enumerate(row):
            axes = figure.add_axes(grid.place(number, column))
            _draw_tile(axes, tile, window, structures)
            text, colour = "\n".join(wrap(tile.caption, grid.tile_width)), "0.7" if column else "white"
            axes.set_title(text, color=colour, size=8.5, loc="left", pad=4, linespacing=1.2, parse_math=False)
    present = {int(number) for row in rows for tile in row for number in np.unique(tile.labels)}
    colours = {name: label_colour(number) for number, name in enumerate(structures, start=1)}
    _draw_names(figure, grid, {name: colours[name] for name, numbers in structures.items() if present & {*numbers}})
    with atomic_file(path) as writing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks shows as boxes
        figure.savefig(writing, dpi=DOTS_PER_INCH, format="png")


def arrange_tiles(rows: Sequence[Sequence[Tile]], pixel_aspect: float, *, narrowest: float) -> Grid:
    """Gives each row the height that its longest caption needs, and the picture at least the width of its title."""
    columns = max(len(row) for row in rows)
    pixels_high, pixels_wide = rows[0][0].image.shape
    slope = pixels_high * pixel_aspect / pixels_wide
    tile_width = min(LARGEST_TILE, LARGEST_TILE / slope, (WIDEST - GAP) / columns - GAP)
    tile_height = tile_width * slope
    lines = [max(len(wrap(tile.caption, tile_width)) for tile in row) for row in rows]
    heights = [CAPTION_GAP + CAPTION_LINE * count + tile_height + GAP for count in lines]
    height = HEADER + sum(heights) + LEGEND
    return Grid(
        width=max(narrowest, GAP + columns * (tile_width + GAP)),
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        bottoms=tuple(float(height - HEADER - below + GAP) for below in np.cumsum(heights)),
    )


def wrap(phrases: Sequence[str], width: float) -> list[str]:
    """Puts phrases, set apart by commas, into lines of a width in inches; one that is longer has a line of its own."""
    letters = max(8, int(width * LETTERS_PER_INCH))
    lines: list[str] = []
    for number, phrase in enumerate(phrases):
        text = phrase + ("," if number < len(phrases) - 1 else "")
        if lines and len(lines[-1]) + 1 + len(text) <= letters:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return [line if len(line) <= letters else f"{line[: letters - 1]}…" for line in lines]


def _draw_tile(axes: "Axes", tile: Tile, window: tuple[float, float], structures: Mapping[str, Numbers]) -> None:
    from matplotlib.collections import LineCollection  # noqa: PLC0415 - see draw_tiles

    low, high = window
    rows, columns = tile.image.shape
    extent = (0.0, float(columns), float(rows), 0.0)  # row 0 is the top
    axes.imshow(tile.image, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest", aspect="auto")
    for number, values in enumerate(structures.values(), start=1):
        segments = list(outline(np.isin(tile.labels, values)))
        lines = LineCollection(segments, colors=label_colour(number), linewidths=1.1, capstyle="round")
        axes.add_collection(lines, autolim=False)
    axes.set_axis_off()


def _draw_names(figure: "Figure", grid: Grid, colours: Mapping[str, str]) -> None:
    """Writes names side by side in their colours, as many as fit."""
    left = GAP
    for name, colour in colours.items():
        if left + len(name) / LETTERS_PER_INCH > grid.width - GAP:
            return
        place = (left / grid.width, LEGEND / 2 / grid.height)
        figure.text(*place, name, color=colour, size=10, va="center", parse_math=False)
        left += (len(name) + 3) / LETTERS_PER_INCH
