"""The endings of image files."""

from pathlib import Path

from autoseg.imaging.tiff import TIFF_ENDINGS

PLANE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")

COLOUR_ENDINGS = (*PLANE_ENDINGS, *TIFF_ENDINGS)

# Longest first, so that ".nii.gz" is not taken for ".gz".
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
READABLE_ENDINGS = (*VOLUME_ENDINGS, *COLOUR_ENDINGS)


def split_ending(path: Path) -> tuple[str, str]:
    """Name and ending of an image file: ("liver_01", ".nii.gz"); the ending is empty if no image has it."""
    lower = path.name.lower()
    for ending in READABLE_ENDINGS:
        if lower.endswith(ending):
            return path.name[: -len(ending)], path.name[-len(ending) :]
    return path.name, ""
