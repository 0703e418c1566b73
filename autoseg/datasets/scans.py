"""Lists files by name: scans to segment, and label maps to compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.channel_files import find_missing_channels, group_channels
from autoseg.datasets.dataset import Case, allow_missing
from autoseg.datasets.dicom_scans import find_dicom_scans
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.names import FORMULA_FIX, is_formula
from autoseg.datasets.passed_over import SEG, find_passed_over, is_beside_its_scan
from autoseg.datasets.time_series import split_scans
from autoseg.dicom.detection import holds_dicom
from autoseg.dicom.selection import ONLY_SERIES, SeriesChoice
from autoseg.errors import DatasetError, ProblemsError
from autoseg.imaging.formats import readable_name, split_ending, writable_ending
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets

PROBABILITIES_FOLDER = "probabilities"
"""Subfolder of the segmentations with a probability map for each scan and requested label."""

DISAGREEMENT_FOLDER = "disagreement"
"""Subfolder of the segmentations with a map for each scan of where folds and mirror images disagree."""

DICOM_FOLDER = "dicom"
"""Subfolder of the segmentations with the DICOM objects of all scans."""

MESHES_FOLDER = "meshes"
"""Subfolder of the segmentations with the surface meshes of all scans."""


def result_ending(case: Case) -> str:
    """Returns the file ending for the segmentation of a case: that of its image where possible; see `writable_ending`.

    Example:
        >>> result_ending(Case(name="photo", images=(Path("photo.jpg"),)))
        '.png'
    """
    image = case.images[0]
    return writable_ending(split_ending(image)[1] or image.suffix)


def find_scans(source: Path, info: DatasetInfo, choice: SeriesChoice = ONLY_SERIES) -> list[Case]:
    """Finds the scans that a model with these channels can segment.

    Args:
        source: A folder, whose files of any image type are grouped as those of a dataset are; or one file; or DICOM
            files, as of `find_dicom_scans`, for a folder if it holds no other image files.
        info: States the number of channels and the usual file ending.
        choice: Which series of DICOM files are meant.

    Returns:
        The scans, ordered by name; where a model has one channel and a file several volumes, each of these is a scan,
        as a point in time. Files of one name but different types are one scan, which `check_channels` refuses.

    Raises:
        DatasetError: The folder is missing or holds no images; the text says what it holds instead. Or a label of the
            model is a formula.
        AutosegError: DICOM files cannot be read, or it is not clear which series is meant; see `find_dicom_scans`.
    """
    _check_labels(info)
    if source.is_file() and holds_dicom(source):
        return find_dicom_scans(source, info, choice)
    if source.is_file():
        scan = Case(name=split_ending(source)[0].removesuffix("_0000"), images=(source,))
        return split_scans([scan]) if info.channels == 1 else [scan]
    if not source.is_dir():
        raise DatasetError(f"{source} does not exist", "give a folder of scans with -i")
    files = [path for path in source.iterdir() if not path.name.startswith(".") and not path.is_dir()]
    endings = sorted({split_ending(path)[1].lower() for path in files} - {""})
    scans: dict[str, tuple[Path, ...]] = {}
    for ending in endings:
        for name, images in group_channels(source, info.model_copy(update={"file_ending": ending})).items():
            scans[name] = (*scans.get(name, ()), *images)
    if not scans and holds_dicom(source):
        return find_dicom_scans(source, info, choice)
    if not scans:
        raise _no_scans(source, info)
    kept = {name: images for name, images in sorted(scans.items()) if not is_beside_its_scan(name, scans)}
    cases = list(allow_missing((Case(name=name, images=images) for name, images in kept.items()), info))
    return split_scans(cases) if info.channels == 1 else cases


def _no_scans(source: Path, info: DatasetInfo) -> DatasetError:
    """Returns the error of a folder without scans, which says what is in it instead."""
    passed_over = find_passed_over(source)
    if not passed_over:
        fix = f"put scans there, such as CASE_0000{info.file_ending}"
        return DatasetError(f"{source} holds no image files", fix)
    present = ", and ".join(passed.describe() for passed in passed_over)
    fixes = dict.fromkeys(passed.kind.fix for passed in passed_over)
    return DatasetError(f"{source} holds no image files that are read here, but {present}", "; ".join(fixes))


def _check_labels(info: DatasetInfo) -> None:
    """Refuses a model whose labels would reach a spreadsheet as formulas, in the names of columns."""
    if formula := next(filter(is_formula, info.labels), None):
        raise DatasetError(f"the label {formula!r} of the model is a formula", FORMULA_FIX)


def check_channels(scan: Case, info: DatasetInfo) -> None:
    """Checks that a scan has one file for each channel of a model, or for some of them if it may lack channels.

    One file may hold all channels.

    Raises:
        DatasetError: Channels are missing or surplus, or several files are the same channel; or its name is a formula.
    """
    if is_formula(scan.name):
        raise DatasetError("the name of its file is a formula", FORMULA_FIX)
    if scan.series or scan.missing_channels:
        return
    stems = [split_ending(path)[0] for path in scan.images]
    if len(stems) == 1 or stems == [f"{scan.name}_{channel:04d}" for channel in range(info.channels)]:
        return
    files = ", ".join(path.name for path in scan.images)
    if info.channels == 1:
        raise DatasetError(f"{files} have the same name", "keep one of them, or rename the others")
    raise DatasetError(
        f"{files} are not one file for each of the {info.channels} channels ({', '.join(info.channel_names.values())})",
        f"bring {scan.name}_0000 to {scan.name}_{info.channels - 1:04d}"
        + (", or say --missing-channels" if find_missing_channels(scan.name, scan.images, info.channels) else ""),
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
    references, predictions = _without_seg(list_label_maps(reference), list_label_maps(prediction))
    duplicates = [paths for files in (references, predictions) for paths in files.values() if len(paths) > 1]
    problems = [f"{paths[0]} and {paths[1].name} have the same name; keep one of them" for paths in duplicates]
    formulas = [paths[0] for name, paths in references.items() if is_formula(name)]
    problems += [f"the name of {path} is a formula; {FORMULA_FIX}" for path in formulas]
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


def _without_seg(*folders: dict[str, list[Path]]) -> list[dict[str, list[Path]]]:
    """Returns the label maps of two folders, of which "scan.seg.nrrd", as Slicer writes it, belongs to "scan"."""
    names = [set(files) for files in folders]
    common = {name for name in names[0] ^ names[1] if name.lower().endswith(SEG)}
    renamed: list[dict[str, list[Path]]] = []
    for files, others in zip(folders, reversed(names), strict=True):
        by_name: dict[str, list[Path]] = {}
        for name, paths in files.items():
            plain = name[: -len(SEG)]
            by_name.setdefault(plain if name in common and plain in others else name, []).extend(paths)
        renamed.append(by_name)
    return renamed


def list_label_maps(folder: Path) -> dict[str, list[Path]]:
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
            and path.name not in (PROBABILITIES_FOLDER, DISAGREEMENT_FOLDER, DICOM_FOLDER, MESHES_FOLDER)
            and any(split_ending(mask)[1] for mask in path.iterdir())
        ):
            name, ending = readable_name(path.name), "/"
        if ending and not path.name.startswith((".", "overlay_")):
            files.setdefault(name, []).append(path)
    if not files:
        raise DatasetError(f"{folder} holds no label maps", "check the path")
    return files
