"""Folders of a source that people give the names of images and of masks."""

from collections.abc import Sequence
from pathlib import Path

from autoseg.errors import UsageError

IMAGE_FOLDERS = ("images", "imagestr", "image")
LABEL_FOLDERS = ("labels", "labelstr", "masks", "mask", "label")
MASK_FOLDERS = ("segmentations", "segmentation", "masks", "labels", "structures")


def find_subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    """Returns the subfolder that has one of the names, in small or capital letters; None if there is none.

    Raises:
        UsageError: There are two.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as source:
        ...     (Path(source) / "Masks").mkdir()
        ...     find_subfolder(Path(source), LABEL_FOLDERS).name
        'Masks'
    """
    matches = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in names)
    if len(matches) > 1:
        joined = " and ".join(path.name for path in matches)
        raise UsageError(f"{folder} holds {joined}", "give the images as SOURCE and the masks with --labels")
    return matches[0] if matches else None
