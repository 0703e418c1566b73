"""Lists files by name: scans to segment, and label maps to compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Case, group_channels
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import DatasetError, ProblemsError
from autoseg.imaging.formats import split_ending, writable_ending
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets

PROBABILITIES_FOLDER = "probabilities"
"""Subfolder of the segmentations with a probability map for each scan and requested label."""

DISAGREEMENT_FOLDER = "disagreement"
"""Subfolder of the segmentations with a map for each scan of where folds and mirror images disagree."""


def result_ending(case: Case) -> str:
    """Returns the file ending for the segmentation of a case: that of its image where possible; see `writable_ending`.

    Example:
        >>> result_ending(Case(name="photo", images=(Path("photo.jpg"),)))
        '.png'
    """
    image = case.images[0]
    return writable_ending(split_ending(image)[1] or image.suffix)


def find_scans(source: Path, info: DatasetInfo) -> list[Case]:
    """Finds the scans that a model with these channels can segment.

    Args:
        source: A folder, whose files of any image type are grouped as those of a dataset are; or one file.
        info: States the number of channels and the usual file ending.

    Returns:
        The scans, ordered by name; files of one name but different types are one scan, which `check_channels` refuses.

    Raises:
        DatasetError: The folder is missing or holds no images.
    """
    if source.is_file():
        return [Case(name=split_ending(source)[0].removesuffix("_0000"), images=(source,))]
    if not source.is_dir():
        raise DatasetError(f"{source} does not exist", "give a folder of scans with -i")
    endings = sorted({split_ending(path)[1] for path in source.iterdir() if not path.name.startswith(".")} - {""})
    scans: dict[str, tuple[Path, ...]] = {}
    for ending in endings:
        for name, images in group_channels(source, info.model_copy(update={"file_ending": ending})).items():
            scans[name] = (*scans.get(name, ()), *images)
    if not scans:
        raise DatasetError(f"{source} holds no image files", f"put scans there, such as CASE_0000{info.file_ending}")
    return [Case(name=name, images=images) for name, images in sorted(scans.items())]


def check_channels(scan: Case, info: DatasetInfo) -> None:
    """Checks that a scan has one file for each channel of a model; one file may hold all channels.

    Raises:
        DatasetError: Channels are missing or surplus, or several files are the same channel.
    """
    stems = [split_ending(path)[0] for path in scan.images]
    if len(stems) == 1 or stems == [f"{scan.name}_{channel:04d}" for channel in range(info.channels)]:
        return
    files = ", ".join(path.name for path in scan.images)
    if info.channels == 1:
        raise DatasetError(f"{files} have the same name", "keep one of them, or rename the others")
    raise DatasetError(
        f"{files} are not one file for each of the {info.channels} channels ({', '.join(info.channel_names.values())})",
        f"bring {scan.name}_0000 to {scan.name}_{info.channels - 1:04d}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedLabelMaps:
    """Label maps of two folders, paired by name.

    Attributes:
        pairs: Name to the paths of (reference, prediction).
        unpredicted: Name to the path of each reference without a prediction.
    """

    pairs: dict[str, tuple[Path, Path]]
    unpredicted: dict[str, Path]


def pair_label_maps(reference: Path, prediction: Path) -> PairedLabelMaps:
    """Pairs label maps of two folders by name, whatever image type they have; or two files.

    Raises:
        DatasetError: A folder is missing or empty.
        ProblemsError: Predictions have no reference, or files of a folder differ only in type, with a line for each.
    """
    if reference.is_file() and prediction.is_file():
        return PairedLabelMaps(pairs={split_ending(prediction)[0]: (reference, prediction)}, unpredicted={})
    references, predictions = _list_label_maps(reference), _list_label_maps(prediction)
    duplicates = [paths for files in (references, predictions) for paths in files.values() if len(paths) > 1]
    problems = [f"{paths[0]} and {paths[1].name} have the same name; keep one of them" for paths in duplicates]
    problems += [
        f"{predictions[name][0]} has no reference in {reference}; remove it or add its reference"
        for name in sorted(predictions.keys() - references.keys())
    ]
    if problems:
        raise ProblemsError(problems)
    return PairedLabelMaps(
        pairs={name: (references[name][0], paths[0]) for name, paths in sorted(predictions.items())},
        unpredicted={name: paths[0] for name, paths in sorted(references.items()) if name not in predictions},
    )


def find_info(reference: Path, prediction: Path) -> DatasetInfo | None:
    """Reads the dataset.json in or beside the folder of references, or in that of predictions; None if there is none.

    Raises:
        DatasetError: dataset.json is wrong.
    """
    for folder in (reference, reference.parent, prediction):
        if info_file(folder).is_file():
            return DatasetInfo.load(info_file(folder))
    return None


def check_values(paths: Sequence[Path], label_maps: Sequence[Volume], targets: Targets) -> None:
    """Checks that label maps hold only values that dataset.json names; its numbers have no gaps.

    Raises:
        DatasetError: A label map holds another value.
    """
    highest = max(targets.values)
    for path, label_map in zip(paths, label_maps, strict=True):
        for value in (int(label_map.array.min()), int(label_map.array.max())):
            if not 0 <= value <= highest:
                what = f"{path} holds the value {value}, but dataset.json names 0 to {highest}"
                raise DatasetError(what, "correct the label map or dataset.json")


def _list_label_maps(folder: Path) -> dict[str, list[Path]]:
    """Lists the label maps and the folders of masks in a folder, by name; several per name if their types differ."""
    if folder.is_file():
        raise DatasetError(f"{folder} is a file, and the other one is a folder", "give two folders, or two files")
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist", "give a folder of label maps")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name, ending = split_ending(path)
        if (
            path.is_dir()
            and path.name not in (PROBABILITIES_FOLDER, DISAGREEMENT_FOLDER)
            and any(split_ending(mask)[1] for mask in path.iterdir())
        ):
            name, ending = path.name, "/"
        if ending and not path.name.startswith((".", "overlay_")):
            files.setdefault(name, []).append(path)
    if not files:
        raise DatasetError(f"{folder} holds no label maps", "check the path")
    return files
