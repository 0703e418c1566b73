"""Finding files by name: scans to segment, and label maps to compare."""

from collections import Counter
from pathlib import Path

import numpy as np

from autoseg.dataset import Case, DatasetInfo, group_channels
from autoseg.errors import DatasetError
from autoseg.imageio import read_label_map

# Longest first, so that ".nii.gz" is not taken for ".gz".
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl.gz", ".gipl")
READABLE_ENDINGS = (*VOLUME_ENDINGS, ".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")


def split_ending(path: Path) -> tuple[str, str]:
    """Name and ending of an image file: ("liver_01", ".nii.gz"); the ending is empty if no image has it."""
    lower = path.name.lower()
    for ending in READABLE_ENDINGS:
        if lower.endswith(ending):
            return path.name[: -len(ending)], path.name[-len(ending) :]
    return path.name, ""


def result_ending(case: Case) -> str:
    """The ending for the segmentation of a case: that of its image where possible.

    JPEG would change labels and becomes PNG; a MetaImage in two files, .mhd, becomes one, .mha.
    """
    ending = split_ending(case.images[0])[1]
    return {".jpg": ".png", ".jpeg": ".png", ".mhd": ".mha"}.get(ending.lower(), ending)


def find_scans(source: Path, info: DatasetInfo) -> list[Case]:
    """Finds the scans that a model with these channels can segment.

    Args:
        source: A folder, whose files are grouped as those of a dataset are, whatever image type they have; or one file.
        info: Says the number of channels and the usual ending.

    Raises:
        DatasetError: The folder is missing or holds no images, or two scans have one name.
    """
    if source.is_file():
        return [Case(name=split_ending(source)[0].removesuffix("_0000"), images=(source,))]
    if not source.is_dir():
        raise DatasetError(f"{source} does not exist", "give a folder of scans with -i")
    endings = sorted({split_ending(path)[1] for path in source.iterdir() if not path.name.startswith(".")} - {""})
    cases = [
        Case(name=name, images=images)
        for ending in endings
        for name, images in group_channels(source, info.model_copy(update={"file_ending": ending})).items()
    ]
    if not cases:
        raise DatasetError(f"{source} holds no image files", f"put scans there, such as CASE_0000{info.file_ending}")
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        raise DatasetError(f"{source} holds {count} scans named {name!r}", "keep one file type of each scan")
    return sorted(cases, key=lambda case: case.name)


def pair_label_maps(reference: Path, prediction: Path) -> dict[str, tuple[Path, Path]]:
    """Pairs label maps of two folders by name, whatever image type they have.

    Returns:
        Name to (reference, prediction), for every prediction.

    Raises:
        DatasetError: A folder is missing or empty, or a prediction has no reference.
    """
    references, predictions = _label_maps(reference), _label_maps(prediction)
    alone = sorted(predictions.keys() - references.keys())
    if alone:
        raise DatasetError(f"{predictions[alone[0]]} has no reference in {reference}", "remove it or add its reference")
    return {name: (references[name], path) for name, path in sorted(predictions.items())}


def find_labels(reference: Path, pairs: dict[str, tuple[Path, Path]]) -> dict[str, int]:
    """Names the labels to compare: those of the dataset.json beside the references, else the numbers that they hold.

    Raises:
        DatasetError: dataset.json is wrong, or no reference holds any label.
        ImageError: A reference cannot be read.
    """
    for folder in (reference, reference.parent):
        if (folder / "dataset.json").is_file():
            return DatasetInfo.load(folder / "dataset.json").foreground
    numbers: set[int] = set()
    for truth, _ in pairs.values():
        numbers.update(np.unique(read_label_map(truth).array).tolist())
    if not numbers - {0}:
        raise DatasetError(f"the label maps in {reference} hold background only", "check the folder")
    return {f"label_{number}": number for number in sorted(numbers - {0})}


def _label_maps(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist", "give a folder of label maps")
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "overlay_"))]
    found = {name: path for path in files for name, ending in [split_ending(path)] if ending}
    if not found:
        raise DatasetError(f"{folder} holds no label maps", "check the path")
    return found
