"""File name endings of image formats."""

import os
from pathlib import Path
from unicodedata import normalize

from autoseg.imaging.tiff import TIFF_ENDINGS

PLANE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")

COLOUR_ENDINGS = (*PLANE_ENDINGS, *TIFF_ENDINGS)

# Longest first, so that ".nii.gz" is not taken for ".gz".
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
READABLE_ENDINGS = (*VOLUME_ENDINGS, *COLOUR_ENDINGS)


WRITABLE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", *TIFF_ENDINGS)
"""Endings of formats that one file holds without loss."""

NEAREST_ENDINGS = {".jpg": ".png", ".jpeg": ".png", ".mhd": ".mha", ".nhdr": ".nrrd"}
"""Endings of formats that lose or take two files, and what is written in their place."""


def writable_ending(ending: str) -> str:
    """Returns the ending of the format in which results of images with an ending are written.

    It is the same ending where one file holds labels without loss, else that of the nearest such format, and
    ".nii.gz" for a format that can only be read.

    Example:
        >>> writable_ending(".NII.GZ"), writable_ending(".jpg"), writable_ending(".mhd"), writable_ending(".img")
        ('.NII.GZ', '.png', '.mha', '.nii.gz')
    """
    lower = ending.lower()
    return ending if lower in WRITABLE_ENDINGS else NEAREST_ENDINGS.get(lower, ".nii.gz")


def readable_name(name: str) -> str:
    r"""Returns a file name as people read it: letters and accents composed, "\ufffd" for bytes that are no text.

    Linux and macOS spell a name such as "Müller" in two ways, which look the same; here they are the same.

    Example:
        >>> readable_name("Mu\u0308ller") == readable_name("M\u00fcller")
        True
    """
    return normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def is_text(path: Path) -> bool:
    r"""Returns whether a path is text; names from old file systems may hold bytes that are none.

    Example:
        >>> is_text(Path("liver_01.nii.gz")), is_text(Path("M\udcfcller.nii.gz"))
        (True, False)
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def split_ending(path: Path) -> tuple[str, str]:
    """Splits a file name into its stem, as `readable_name`, and the ending of an image format, empty if there is none.

    Example:
        >>> split_ending(Path("liver_01.nii.gz")), split_ending(Path("notes.txt"))
        (('liver_01', '.nii.gz'), ('notes.txt', ''))
    """
    lower = path.name.lower()
    for ending in READABLE_ENDINGS:
        if lower.endswith(ending):
            return readable_name(path.name[: -len(ending)]), path.name[-len(ending) :]
    return readable_name(path.name), ""
