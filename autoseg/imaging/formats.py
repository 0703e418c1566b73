"""File name endings of image formats."""

from pathlib import Path

from autoseg.imaging.tiff import TIFF_ENDINGS

PLANE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")

COLOUR_ENDINGS = (*PLANE_ENDINGS, *TIFF_ENDINGS)

# Longest first, so that ".nii.gz" is not taken for ".gz".
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
READABLE_ENDINGS = (*VOLUME_ENDINGS, *COLOUR_ENDINGS)


def split_ending(path: Path) -> tuple[str, str]:
    """Splits a file name into its stem and the ending of an image format, which is empty if there is none.

    Example:
        >>> split_ending(Path("liver_01.nii.gz")), split_ending(Path("notes.txt"))
        (('liver_01', '.nii.gz'), ('notes.txt', ''))
    """
    lower = path.name.lower()
    for ending in READABLE_ENDINGS:
        if lower.endswith(ending):
            return path.name[: -len(ending)], path.name[-len(ending) :]
    return path.name, ""
