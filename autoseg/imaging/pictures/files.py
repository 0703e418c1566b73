"""Opens a picture by the ending of its name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.imaging.formats import COLOUR_ENDINGS, TIFF_ENDINGS
from autoseg.imaging.geometry import Volume
from autoseg.imaging.pictures.picture import Picture
from autoseg.runtime.os_errors import advise_reading, reason_of


def is_picture(path: Path) -> bool:
    """Returns whether a file has the ending of a picture, a TIFF among them.

    Example:
        >>> is_picture(Path("photo.JPG")), is_picture(Path("scan.nii.gz"))
        (True, False)
    """
    return path.suffix.lower() in COLOUR_ENDINGS


def is_plain(path: Path) -> bool:
    """Returns whether other programs read the same numbers from a file: none of `pictures`' rules changes them.

    Raises:
        ImageError: It is a picture that cannot be read.
    """
    return not is_picture(path) or open_picture(path).is_plain


def open_picture(path: Path) -> Picture:
    """Reads the header of a picture, whose pixels are then read by `Picture.decode`.

    Raises:
        ImageError: The file cannot be read, is damaged, or of a kind that is not read.
    """
    try:
        return _choose_reader(path.suffix.lower())(path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {reason_of(error)}", advise_reading(error)) from error


def _choose_reader(ending: str) -> Callable[[Path], Picture]:
    """Returns what reads the pictures of an ending; decoders are imported when such a picture is met."""
    if ending == ".png":
        from autoseg.imaging.pictures.png import open_png

        return open_png
    if ending == ".bmp":
        from autoseg.imaging.pictures.bmp import open_bmp

        return open_bmp
    if ending in TIFF_ENDINGS:
        from autoseg.imaging.pictures.tiff import open_tiff

        return open_tiff
    from autoseg.imaging.pictures.jpeg import open_jpeg

    return open_jpeg


def read_picture(path: Path, *, as_mask: bool) -> Volume:
    """Reads a picture as (c, z, y, x) in its own number type, as it is shown and without transparency.

    Args:
        path: Path of the picture.
        as_mask: Whether a palette gives its indices instead of its colours.

    Raises:
        ImageError: The file cannot be read, is damaged, or of a kind that is not read.
    """
    picture = open_picture(path)
    return Volume(array=np.ascontiguousarray(picture.decode(as_mask)), geometry=picture.geometry)
