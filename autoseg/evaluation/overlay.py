"""Overlay pictures for visual inspection: the reference as outlines, the prediction as filled areas."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.metrics import Overlap, case_overlaps
from autoseg.evaluation.views import PlaneView, choose_views
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Decision: the colours of Okabe and Ito, which people with any colour vision can tell apart. The brightest on grey come
# first.
COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#0072B2")
BACKGROUND = "#101010"
FILL_OPACITY = 0.45
MOST_LEGEND_ENTRIES = 12

# Sizes in inches. The planes are scaled up or down until they fill this frame.
WIDEST, HIGHEST, NARROWEST = 13.0, 6.0, 6.0
MARGIN, HEADER, LEGEND_ROW, LEGEND_COLUMN = 0.3, 0.9, 0.28, 2.4
DOTS_PER_INCH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayLayout:
    """Layout of the planes of a picture, in inches from its lower left corner; all planes have the same scale.

    Attributes:
        width, height: Size of the picture.
        boxes: (left, bottom, width, height) of each plane.
        legend_columns: Number of names side by side in the legend.
        legend_top: Height of the middle of the first row of the legend.
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

    Reference and prediction agree where an outline is filled. An empty outline is a false negative, and a filled area
    outside all outlines is a false positive.

    Args:
        path: Path of the PNG file.
        image: Image of shape (c, z, y, x); its first channel is shown.
        reference: Label map of shape (z, y, x), on the grid of the image.
        prediction: Label map on the same grid.
        title: Title of the picture, one short line.
        targets: The structures to draw; where they overlap, later structures cover earlier ones.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - importing matplotlib takes a second

    views = choose_views(image, reference, prediction)
    overlaps = case_overlaps(reference.array, prediction.array, targets)
    entries = legend_entries(overlaps)
    layout = arrange_planes(views, len(entries))
    figure = Figure(figsize=(layout.width, layout.height), facecolor=BACKGROUND)
    window = intensity_window([view.image for view in views])
    for view, (left, bottom, width, height) in zip(views, layout.boxes, strict=True):
        box = (left / layout.width, bottom / layout.height, width / layout.width, height / layout.height)
        _draw_view(figure.add_axes(box), view, window, targets)
    left, top = layout.boxes[0][0] / layout.width, 1 - 0.32 / layout.height
    figure.text(left, top, title, color="white", size=13, weight="bold", va="center", parse_math=False)
    _draw_legend(figure, entries, layout)
    with atomic_file(path) as writing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks are drawn as boxes
        figure.savefig(writing, dpi=DOTS_PER_INCH)


def arrange_planes(views: Sequence[PlaneView], entries: int) -> OverlayLayout:
    """Arranges planes side by side, vertically centred, with the largest common scale that fits.

    Args:
        views: The planes.
        entries: Number of entries of the legend.
    """
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
    return OverlayLayout(
        width=width,
        height=legend + planes + HEADER,
        boxes=tuple(boxes),
        legend_columns=columns,
        legend_top=legend - LEGEND_ROW,
    )


def intensity_window(planes: Sequence[NDArray[np.floating]]) -> tuple[float, float]:
    """Chooses the intensity window of planes: the intensities shown as black and as white.

    Decision: planes that reach below -500 are a CT in Hounsfield units and get the clinical soft-tissue window, -160 to
    240. All others get the 0.5th to the 99.5th percentile of their pixels that are not zero, since zero is often just
    the border of a scan. Constant planes get a window of width 1.

    >>> intensity_window([np.array([[-1000.0, 40.0]])]), intensity_window([np.full((2, 2), 7.0)])
    ((-160.0, 240.0), (7.0, 8.0))
    """
    pixels = np.concatenate([plane.ravel() for plane in planes])
    if pixels.min() < -500:
        return -160.0, 240.0
    pixels = pixels[pixels != 0] if pixels.any() else pixels
    low, high = (float(value) for value in np.percentile(pixels, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def legend_entries(overlaps: Mapping[str, Overlap]) -> list[tuple[str, int]]:
    """Returns the entries of the legend: text, and number of the structure in the order of the structures, from 1.

    Structures that occur in neither reference nor prediction are left out, and so are all but the twelve largest.

    >>> legend_entries({"liver": Overlap(true_positive=8, false_positive=1, false_negative=1)})
    [('liver  0.89', 1)]
    """

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
    """Returns the colour of a structure, numbered from 1; after seven structures the colours repeat.

    >>> label_colour(1), label_colour(8)
    ('#E69F00', '#E69F00')
    """
    return COLOURS[(number - 1) % len(COLOURS)]


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Finds the outline of a mask along the edges of its pixels.

    >>> outline(np.array([[True]])).tolist()
    [[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]]

    Args:
        mask: Shape (rows, columns).

    Returns:
        Line segments of shape (segments, 2, 2), each from (column, row) to (column, row), where pixel (0, 0) reaches
        from (0, 0) to (1, 1).
    """
    padded = np.pad(mask, 1).astype(np.int8)
    rows, columns = np.nonzero(np.diff(padded[:, 1:-1], axis=0))
    horizontal = np.stack([np.stack([columns, rows], 1), np.stack([columns + 1, rows], 1)], axis=1)
    rows, columns = np.nonzero(np.diff(padded[1:-1], axis=1))
    vertical = np.stack([np.stack([columns, rows], 1), np.stack([columns, rows + 1], 1)], axis=1)
    return np.concatenate([horizontal, vertical]).astype(np.float64)


def _draw_view(axes: "Axes", view: PlaneView, window: tuple[float, float], targets: Targets) -> None:
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


def _draw_legend(figure: "Figure", entries: Sequence[tuple[str, int]], layout: OverlayLayout) -> None:
    """Draws the legend row by row, and below it a key of outlines, areas and numbers."""
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
