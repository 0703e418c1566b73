"""Recognises what a foreign folder holds: its cases, its labels, and its own description. Nothing is written.

Four kinds of source are recognised:

    dataset.json with "modality"         a Medical Segmentation Decathlon folder
    dataset.json with "channel_names"    a raw folder of nnU-Net
    a folder of images, one of masks     paired by file name
    a folder per case                    an image, and a folder of one mask per structure (see `structures`)

Segmentations of 3D Slicer are read as masks of structures. Series of DICOM files are the fifth kind; see
`dicom_recognition`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset, allow_missing
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.nnunet_files import SPLITS_FILE, read_splits
from autoseg.datasets.passed_over import say_passed_over
from autoseg.errors import DatasetError, UsageError
from autoseg.imaging.formats import find_listed
from autoseg.imaging.volume_files.segment_file import read_segments
from autoseg.importing import pairing
from autoseg.importing.label_names import name_labels
from autoseg.importing.label_values import MaskValues, close_gaps, number_values, read_values, report_numbers
from autoseg.importing.picture_facts import name_colours
from autoseg.importing.recognised_source import KIND_UNKNOWN, Source, count_channels_of, select_complete
from autoseg.importing.series import split_cases
from autoseg.importing.source_folders import IMAGE_FOLDERS, LABEL_FOLDERS, find_subfolder
from autoseg.importing.structure_source import read_structures
from autoseg.importing.structures import find_case_folders, list_cases
from autoseg.runtime.json_text import read_json_text
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

# Keys of a foreign dataset.json that the new one replaces; the others, such as the licence, are kept.
REPLACED_KEYS = {
    *DatasetInfo.model_fields,
    *("modality", "training", "test", "numTraining", "numTest", "tensorImageSize", "dataset"),
}


def recognise(source: Path | tuple[Path, Path], reporter: Reporter) -> Source:
    """Recognises what a folder holds, or a folder of images and a folder of masks.

    Args:
        source: The folder, or the folder of images and the folder of masks.
        reporter: Shows progress, and is told what is left out.

    Raises:
        UsageError: The kind of the source is not known.
        DatasetError: The source contradicts itself, no image has a mask, or the masks are no label maps.
        ImageError: A file cannot be read.
    """
    for folder in source if isinstance(source, tuple) else (source,):
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder", "check the path")
    if isinstance(source, tuple):
        return _from_folders(*source, None, reporter)
    if info_file(source).is_file():
        return _from_description(source, reporter)
    if folders := find_case_folders(source):
        known = set(folders)
        others = [path.name for path in source.iterdir() if path.is_dir() and path not in known]
        pairing.report_left_out("Folders without masks", (name for name in others if name[0] != "."), reporter)
        return read_structures(list_cases(folders), source, reporter)
    scans, masks = find_subfolder(source, IMAGE_FOLDERS), find_subfolder(source, LABEL_FOLDERS)
    if scans is None or masks is None:
        what = f"{source} holds neither dataset.json nor a folder of images beside one of masks, nor folders of cases"
        raise UsageError(what, "give the images as SOURCE and the masks with --labels")
    return _from_folders(scans, masks, find_subfolder(source, ("imagests",)), reporter)


def _from_description(folder: Path, reporter: Reporter) -> Source:
    """Reads a folder of the Decathlon or of nnU-Net, whose dataset.json describes the files."""
    path = info_file(folder)
    try:
        content = json.loads(read_json_text(path))
    except RecursionError as error:
        raise DatasetError(f"{path} is nested too deeply for a description of a dataset", "mend the file") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}", "mend the file") from error
    if not isinstance(content, dict) or not {"channel_names", "modality"} & content.keys():
        raise DatasetError(f"{path} has neither 'channel_names' nor 'modality'", "add the names of the image channels")
    ending = str(content.get("file_ending") or "") or None
    cases = _listed_cases(folder, reporter) if "dataset" in content else _described_cases(folder, content, reporter)
    closed = close_gaps(content["labels"]) if isinstance(content.get("labels"), dict) else None
    labels, numbers = closed or (None, {})
    report_numbers(numbers, reporter)
    content = content if labels is None else {**content, "labels": labels}
    info, split = _describe(content, pairing.common_ending(cases), path), split_cases(cases, reporter)
    cases, info = split.cases, _with_groups(info, split.groups)
    cases = tuple(allow_missing(cases, info))
    cases = select_complete(cases, _count_channels(cases, info.channels, reporter), info.channels, reporter)
    notes = {key: value for key, value in content.items() if key not in REPLACED_KEYS}
    scans, files_per_case = pairing.list_images(folder / TEST_IMAGES, ending), max(len(case.images) for case in cases)
    tests = pairing.group_tests(scans, files_per_case, reporter, with_gaps=info.missing_channels)
    tests = tuple(allow_missing(tests, info))
    splits = _find_splits(folder, cases, reporter)
    return Source(info=info, cases=cases, tests=tests, numbers=numbers, notes=notes, splits=splits)


def _describe(content: dict[str, Any], ending: str, path: Path) -> DatasetInfo:
    """Returns the content of the new dataset.json; nnU-Net's reader is left out if the files are converted."""
    described = {**content, "file_ending": ending}
    if ending != content.get("file_ending"):
        described.pop("overwrite_image_reader_writer", None)
    return DatasetInfo.parse(json.dumps(described), source=str(path))


def _described_cases(folder: Path, content: dict[str, Any], reporter: Reporter) -> tuple[Case, ...]:
    """Returns the cases of imagesTr, with the masks that dataset.json lists, else those of labelsTr."""
    images = pairing.list_images(folder / TRAINING_IMAGES, str(content.get("file_ending") or "") or None)
    say_passed_over((folder / TRAINING_IMAGES, folder / TRAINING_LABELS), reporter)
    masks = _listed_masks(folder, content) or pairing.masks_by_image(folder / TRAINING_LABELS, images)
    return pairing.pair_by_name(images, masks, folder, reporter, with_gaps=content.get("missing_channels") is True)


def _listed_cases(folder: Path, reporter: Reporter) -> tuple[Case, ...]:
    """Returns the cases of a raw folder whose dataset.json lists their files."""
    dataset = Dataset.open(folder)
    pairing.report_left_out("Cases whose files are missing", (problem.case for problem in dataset.problems), reporter)
    if not dataset.cases:
        raise DatasetError(f"{folder}: {dataset.problems[0]}", "correct the paths there")
    return dataset.cases


def _find_splits(folder: Path, cases: tuple[Case, ...], reporter: Reporter) -> Path | None:
    """Returns the file of nnU-Net's folds; None if there is none, or if it names cases that are not imported."""
    path = folder / SPLITS_FILE
    if not path.is_file():
        return None
    names = {name for training, held_out in read_splits(path) for name in (*training, *held_out)}
    missing = names - {case.name for case in cases}
    if missing:
        reporter.say(f"Left out: {path}, which names {min(missing)!r}, a case that is not imported")
    return None if missing else path


def _listed_masks(folder: Path, content: dict[str, Any]) -> dict[str, Path]:
    """Returns the masks that a dataset.json of the Decathlon lists, by the stem of their image."""
    entries = content.get("training")
    if not isinstance(entries, list):
        return {}
    pairs = [(entry.get("image"), entry.get("label")) for entry in entries if isinstance(entry, dict)]
    texts = [(image, label) for image, label in pairs if isinstance(image, str) and isinstance(label, str)]
    listings: dict[Path, dict[str, str]] = {}
    paths = [(find_listed(folder, image, listings), find_listed(folder, label, listings)) for image, label in texts]
    return {pairing.stem_of(image): label for image, label in paths if label.is_file()}


def _from_folders(images_folder: Path, labels_folder: Path, tests_folder: Path | None, reporter: Reporter) -> Source:
    """Reads a folder of images and a folder of masks, without a description."""
    images = pairing.list_images(images_folder)
    say_passed_over((images_folder, labels_folder), reporter)
    paired = pairing.pair_by_name(images, pairing.masks_by_image(labels_folder, images), images_folder, reporter)
    scans = pairing.list_images(tests_folder) if tests_folder else []
    if all(case.label is not None and read_segments(case.label) for case in paired):
        return read_structures(paired, images_folder, reporter, scans)
    split = split_cases(paired, reporter)
    cases = split.cases
    counts, values = _read_channels_and_values(cases, reporter)
    cases = select_complete(cases, counts, None, reporter)
    channels = counts[cases[0].name]
    colours = name_colours(cases, reporter)
    numbers = number_values([values[case.name] for case in cases], labels_folder, reporter)
    if not colours:
        reporter.say(KIND_UNKNOWN)
    info = DatasetInfo(
        channel_names={str(index): colours[index] if colours else f"channel_{index}" for index in range(channels)},
        labels=name_labels(numbers, (labels_folder, labels_folder.parent), reporter),
        file_ending=pairing.common_ending(cases),
        groups=split.groups or None,
    )
    tests = pairing.group_tests(scans, len(cases[0].images), reporter)
    return Source(info=info, cases=cases, tests=tests, numbers=numbers)


def _read_channels_and_values(
    cases: tuple[Case, ...], reporter: Reporter
) -> tuple[dict[str, int], dict[str, MaskValues]]:
    """Returns the number of channels and the mask values of each case, by name; all unreadable files are reported."""
    masks = [(case.label, case.time_point) for case in cases if case.label]
    counts = map_in_threads(count_channels_of, cases, title="reading headers", reporter=reporter)
    values = map_in_threads(lambda mask: read_values(*mask), masks, title="reading masks", reporter=reporter)
    results_or_raise([*counts, *values])
    names = [case.name for case in cases]
    return dict(zip(names, results_or_raise(counts), strict=True)), dict(
        zip(names, results_or_raise(values), strict=True)
    )


def _count_channels(cases: tuple[Case, ...], expected: int, reporter: Reporter) -> dict[str, int]:
    """Returns the number of channels of each case, by name.

    If one channel is expected, a case with a single file is taken to have one, without reading the file.
    """
    unknown = [case for case in cases if expected > 1 or len(case.images) > 1]
    counts = results_or_raise(map_in_threads(count_channels_of, unknown, title="reading headers", reporter=reporter))
    return {case.name: 1 for case in cases} | dict(zip((case.name for case in unknown), counts, strict=True))


def _with_groups(info: DatasetInfo, groups: Mapping[str, str]) -> DatasetInfo:
    """Returns a description in which the points in time of a series belong to the group of the series."""
    if not groups or isinstance(info.groups, str):
        return info
    stated = info.groups or {}
    return info.model_copy(
        update={"groups": {**stated, **{point: stated.get(series, series) for point, series in groups.items()}}}
    )
