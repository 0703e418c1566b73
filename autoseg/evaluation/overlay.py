"""Pictures for judging a segmentation by eye: the reference as outlines, the prediction as filled areas."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.metrics import Overlap, case_overlaps
from autoseg.evaluation.views import View, choose_views
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Decision: Okabe and Ito's colours, which people with any colour vision can tell apart, the brightest on grey first.
COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#0072B2")
BACKGROUND = "#101010"
FILL_OPACITY = 0.45
MOST_LEGEND_ENTRIES = 12

# Sizes in inches. Small structures are scaled up, large ones down, until the planes fill this frame.
WIDEST, HIGHEST, NARROWEST = 13.0, 6.0, 6.0
MARGIN, HEADER, LEGEND_ROW, LEGEND_COLUMN = 0.3, 0.9, 0.28, 2.4
DOTS_PER_INCH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the planes stand, in inches from the lower left corner; all have the same scale.

    Attributes:
        width, height: Of the picture.
        boxes: (left, bottom, width, height) of each plane.
        legend_columns: How many names fit side by side.
        legend_top: Height of the middle of the first row of names.
    """

    width: float
    height: float
    boxes: tuple[tuple[float, float, float, float], ...]
    legend_columns: int
    legend_top: float


def draw_overlay(
    path: Path, image: Volume, reference: Volume, prediction: Volume, *, title: str, targets: Targets
) -> None:
    """Draws one case as a PNG file, atomically: the planes of `views.choose_views`, and a legend with Dice per label.

    Where an outline is filled, reference and prediction agree; an empty outline was missed, and a filled area outside
    any outline was made up.

    Args:
        path: Of the PNG file.
        image: Shape (c, z, y, x); its first channel is shown.
        reference: Label map, shape (z, y, x), on the grid of the image.
        prediction: Label map on the same grid.
        title: One short line.
        targets: The structures to draw; where they overlap, the later ones cover those before them.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to import, for one picture

    views = choose_views(image, reference, prediction)
    overlaps = case_overlaps(reference.array, prediction.array, targets)
    entries = legend_entries(overlaps)
    layout = arrange(views, len(entries))
    figure = Figure(figsize=(layout.width, layout.height), facecolor=BACKGROUND)
    window = intensity_window([view.image for view in views])
    for view, (left, bottom, width, height) in zip(views, layout.boxes, strict=True):
        place = (left / layout.width, bottom / layout.height, width / layout.width, height / layout.height)
        _draw_view(figure.add_axes(place), view, window, targets)
    left, top = layout.boxes[0][0] / layout.width, 1 - 0.32 / layout.height
    figure.text(left, top, title, color="white", size=13, weight="bold", va="center", parse_math=False)
    _draw_legend(figure, entries, layout)
    with atomic_file(path) as writing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks shows as boxes
        figure.savefig(writing, dpi=DOTS_PER_INCH)


def arrange(views: Sequence[View], entries: int) -> Layout:
    """Gives all planes the largest common scale that fits, side by side and centred upon each other."""
    gaps = MARGIN * (len(views) + 1)
    total_mm, tallest_mm = sum(view.width_mm for view in views), max(view.height_mm for view in views)
    inches_per_mm = min((WIDEST - gaps) / total_mm, HIGHEST / tallest_mm)
    width = max(NARROWEST, inches_per_mm * total_mm + gaps)
    columns = max(1, int((width - 2 * MARGIN) / LEGEND_COLUMN))
    legend = LEGEND_ROW * (2.2 + -(-entries // columns))
    planes = inches_per_mm * tallest_mm
    left = (width - inches_per_mm * total_mm - gaps) / 2 + MARGIN
    boxes = []
    for view in views:
        box_width, box_height = inches_per_mm * view.width_mm, inches_per_mm * view.height_mm
        boxes.append((left, legend + (planes - box_height) / 2, box_width, box_height))
        left += box_width + MARGIN
    return Layout(
        width=width,
        height=legend + planes + HEADER,
        boxes=tuple(boxes),
        legend_columns=columns,
        legend_top=legend - LEGEND_ROW,
    )


def intensity_window(planes: Sequence[NDArray[np.floating]]) -> tuple[float, float]:
    """Darkest and brightest intensity to tell apart.

    Decision: a picture that reaches below -500 is a CT in Hounsfield units and gets the soft-tissue window of the
    clinic, -160 to 240. Any other gets the 0.5th to the 99.5th percentile of its pixels that are not zero, since zero
    is often the mere border of a scan. A constant picture gets a range of 1.
    """
    pixels = np.concatenate([plane.ravel() for plane in planes])
    if pixels.min() < -500:
        return -160.0, 240.0
    pixels = pixels[pixels != 0] if pixels.any() else pixels
    low, high = (float(value) for value in np.percentile(pixels, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def legend_entries(overlaps: Mapping[str, Overlap]) -> list[tuple[str, int]]:
    """Text and number, from 1, of the structures that case or prediction hold; the largest if there are over twelve."""

    def voxels(name: str) -> int:
        return max(overlaps[name].reference_voxels, overlaps[name].predicted_voxels)

    present = [name for name in overlaps if voxels(name) > 0]
    named = set(sorted(present, key=voxels, reverse=True)[:MOST_LEGEND_ENTRIES])
    return [
        (f"{name}  {overlap.dice:.2f}", number)
        for number, (name, overlap) in enumerate(overlaps.items(), start=1)
        if name in named
    ]


def label_colour(number: int) -> str:
    """The colour of a structure; there are seven, and the eighth looks like the first."""
    return COLOURS[(number - 1) % len(COLOURS)]


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The borders between the pixels of a mask and the others, along the edges of the pixels.

    Returns:
        Shape (n, 2, 2): n segments from (column, row) to (column, row), where pixel (0, 0) reaches from (0, 0) to
        (1, 1).
    """
    padded = np.pad(mask, 1).astype(np.int8)
    rows, columns = np.nonzero(np.diff(padded[:, 1:-1], axis=0))
    horizontal = np.stack([np.stack([columns, rows], 1), np.stack([columns + 1, rows], 1)], axis=1)
    rows, columns = np.nonzero(np.diff(padded[1:-1], axis=1))
    vertical = np.stack([np.stack([columns, rows], 1), np.stack([columns, rows + 1], 1)], axis=1)
    return np.concatenate([horizontal, vertical]).astype(np.float64)


def _draw_view(axes: "Axes", view: View, window: tuple[float, float], targets: Targets) -> None:
    from matplotlib.collections import LineCollection  # noqa: PLC0415 - see draw_overlay
    from matplotlib.colors import to_rgba  # noqa: PLC0415

    low, high = window
    extent = (0.0, view.width_mm, view.height_mm, 0.0)  # row 0 is the top
    axes.imshow(view.image, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    fill = np.zeros((*view.image.shape, 4))
    for number, values in enumerate(targets.structures.values(), start=1):
        fill[np.isin(view.prediction, values)] = to_rgba(label_colour(number), FILL_OPACITY)
        segments = outline(np.isin(view.reference, values)) * (view.column_mm, view.row_mm)
        lines = LineCollection(list(segments), colors=label_colour(number), linewidths=1.4, capstyle="round")
        axes.add_collection(lines, autolim=False)
    axes.imshow(fill, extent=extent, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(view.caption, color="0.7", size=10, loc="left", pad=5)
    _write_direction(axes, view.left, x=0.015, y=0.5, ha="left", va="center")
    _write_direction(axes, view.top, x=0.5, y=0.985, ha="center", va="top")


def _write_direction(axes: "Axes", letter: str, *, x: float, y: float, **alignment: Any) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415 - see draw_overlay

    halo = [withStroke(linewidth=2.5, foreground="black")]
    axes.text(x, y, letter, transform=axes.transAxes, color="white", size=10, path_effects=halo, **alignment)


def _draw_legend(figure: "Figure", entries: Sequence[tuple[str, int]], layout: Layout) -> None:
    """Writes the names row by row, and below them what outlines, areas and numbers mean."""
    from matplotlib.colors import to_rgba  # noqa: PLC0415 - see draw_overlay
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    left = layout.boxes[0][0]
    for index, (text, number) in enumerate(entries):
        row, column = divmod(index, layout.legend_columns)
        x, y = left + column * LEGEND_COLUMN, layout.legend_top - row * LEGEND_ROW
        swatch = Rectangle(
            (x / layout.width, (y - 0.06) / layout.height),
            0.22 / layout.width,
            0.14 / layout.height,
            facecolor=to_rgba(label_colour(number), FILL_OPACITY),
            edgecolor=label_colour(number),
            linewidth=1.4,
            transform=figure.transFigure,
        )
        figure.add_artist(swatch)
        x += 0.32
        figure.text(x / layout.width, y / layout.height, text, color="white", size=11, va="center", parse_math=False)
    key = "outline: reference    filled: prediction    number: Dice of the whole case"
    figure.text(left / layout.width, 0.2 / layout.height, key, color="0.7", size=10, va="center")
