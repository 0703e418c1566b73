"""File name endings of image formats."""

import os
from pathlib import Path
from unicodedata import normalize

TIFF_ENDINGS = (".tif", ".tiff")
PLANE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")

COLOUR_ENDINGS = (*PLANE_ENDINGS, *TIFF_ENDINGS)

# Longest first, so that ".nii.gz" is not taken for ".gz".
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
SERIES_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings of formats that hold several volumes along a fourth axis, and that are written."""

READABLE_ENDINGS = (*VOLUME_ENDINGS, *COLOUR_ENDINGS)


WRITABLE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", *TIFF_ENDINGS)
"""Endings of formats that one file holds without loss."""

NEAREST_ENDINGS = {".jpg": ".png", ".jpeg": ".png", ".mhd": ".mha", ".nhdr": ".nrrd"}
"""Endings of formats that lose or take two files, and what is written in their place."""


def is_tiff(path: Path) -> bool:
    """Returns whether a file has the ending of a TIFF."""
    return path.suffix.lower() in TIFF_ENDINGS


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


def as_on_disk(path: Path, listings: dict[Path, dict[str, str]] | None = None) -> Path:
    """Returns the path of a file whose name is spelt in another way on the disk; without such a file, the path itself.

    A list of files that was written on macOS may spell accents in another way than the disk that holds the files.

    Args:
        path: The path.
        listings: The names in folders that were listed for other paths, as they read, to the names as they are spelt;
            added to, so that a folder of many files is listed once.
    """
    if path.exists() or path.parent == path:
        return path
    listings = {} if listings is None else listings
    folder = as_on_disk(path.parent, listings)
    if folder not in listings:
        entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        listings[folder] = {readable_name(name): name for name in entries}
    return folder / listings[folder].get(readable_name(path.name), path.name)


def find_listed(folder: Path, text: str, listings: dict[Path, dict[str, str]] | None = None) -> Path:
    """Returns the path of a file that a list names, as it is spelt on the disk; see `as_on_disk`.

    A list that was written on Windows may have backslashes, which divide folders there and nowhere else.

    Args:
        folder: Folder in which relative paths begin.
        text: The path in the list.
        listings: See `as_on_disk`.
    """
    path = as_on_disk(folder / text, listings)
    if "\\" not in text or path.exists():
        return path
    return as_on_disk(folder / text.replace("\\", "/"), listings)


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
