"""Small pictures of a case: three planes side by side, with its labels in colour."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.overlay import FILL_OPACITY, intensity_window, label_colour
from autoseg.evaluation.views import PlaneView, choose_views
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

HEIGHT, WIDEST, GAP = 176, 560, 4
"""Size of a picture in pixels, and the gap between planes. Decision: wide enough to see a lesion of a few pixels, and
so small that a thousand pictures fit into a page of 15 MB."""

QUALITY = 72
"""Quality of WebP, of 100. Decision: edges of labels stay clear; a picture takes 4 to 9 kB."""


def draw_thumbnail(image: Volume, label: Volume, targets: Targets) -> bytes:
    """Draws the planes of `views.choose_views`: filled labels with a clear edge, in the colours of the overlays.

    Args:
        image: Shape (c, z, y, x); the first channel is shown.
        label: Shape (z, y, x), on the same grid.
        targets: The structures; where they overlap, later ones cover earlier ones.

    Returns:
        A picture in WebP, at most `HEIGHT` pixels high and `WIDEST` wide; empty if the image has no finite value.
    """
    views = choose_views(image, label, label)
    window = intensity_window([np.nan_to_num(view.image, posinf=0, neginf=0) for view in views])
    scale = _pixels_per_mm(views)
    planes = [_draw_labelled(view, window, scale, targets) for view in views]
    width = sum(plane.shape[1] for plane in planes) + GAP * (len(planes) - 1)
    canvas = np.full((max(plane.shape[0] for plane in planes), width, 3), 16, dtype=np.uint8)
    left = 0
    for plane in planes:
        top = (len(canvas) - len(plane)) // 2
        canvas[top : top + len(plane), left : left + plane.shape[1]] = plane
        left += plane.shape[1] + GAP
    content = BytesIO()
    encode(canvas).save(content, format="WEBP", quality=QUALITY)
    return content.getvalue()


def _draw_labelled(view: PlaneView, window: tuple[float, float], scale: float, targets: Targets) -> NDArray[np.uint8]:
    grey = draw_plane(view, window, scale)
    masks = [np.isin(view.reference, numbers) for numbers in targets.structures.values()]
    return draw_labels(grey, masks, (grey.shape[1], grey.shape[0]))


def _pixels_per_mm(views: list[PlaneView]) -> float:
    """Returns the largest common scale with which the planes fit beside each other."""
    room = WIDEST - GAP * (len(views) - 1)
    return min(HEIGHT / max(view.height_mm for view in views), room / sum(view.width_mm for view in views))


def draw_plane(view: PlaneView, window: tuple[float, float], scale: float) -> NDArray[np.uint8]:
    """Draws the image of a plane in grey, shape (rows, columns, 3).

    Args:
        view: The plane.
        window: Intensities shown as black and as white.
        scale: Pixels per mm.
    """
    size = (max(1, int(view.width_mm * scale)), max(1, int(view.height_mm * scale)))
    low, high = window
    grey = np.clip((view.image.astype(np.float32) - low) / (high - low), 0, 1)
    return np.repeat(_resize(grey * 255, size, smooth=True)[..., np.newaxis], 3, axis=2).astype(np.uint8)


def draw_labels(
    picture: NDArray[np.uint8],
    masks: Iterable[NDArray[np.bool_]],
    size: tuple[int, int],
    *,
    colours: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """Draws masks over a plane, filled, with a clear edge.

    Args:
        picture: The plane, shape (rows, columns, 3).
        masks: A mask for each structure, each of any shape; later ones cover earlier ones.
        size: Width and height of the picture.
        colours: Their colours; by default those of the overlays.
    """
    drawn = picture.astype(np.float32)
    for number, mask in enumerate(masks, start=1):
        inside = _resize(mask.astype(np.float32), size, smooth=False) > 0
        if inside.any():
            colour = _rgb(colours[number - 1] if colours else label_colour(number))
            drawn[inside] = (1 - FILL_OPACITY) * drawn[inside] + FILL_OPACITY * colour
            drawn[_edge(inside)] = colour
    return drawn.astype(np.uint8)


def encode(picture: NDArray[np.uint8]) -> "Picture":
    """Returns a picture of shape (rows, columns, 3), ready to be saved."""
    from PIL import Image  # noqa: PLC0415 - pictures are drawn for reports only

    return Image.fromarray(picture)


def _resize(plane: NDArray[np.float32], size: tuple[int, int], *, smooth: bool) -> NDArray[np.float32]:
    """Resizes a plane to (width, height); numbers of labels are not mixed."""
    from PIL import Image  # noqa: PLC0415 - see encode

    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.nan_to_num(plane)).resize(size, method), dtype=np.float32).copy()


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the pixels of a mask that have a neighbour outside."""
    padded = np.pad(inside, 1)
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(inside & ~within, dtype=np.bool_)


def _rgb(colour: str) -> NDArray[np.float32]:
    """Returns red, green and blue, 0 to 255, of a colour such as "#E69F00"."""
    return np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)], dtype=np.float32)
