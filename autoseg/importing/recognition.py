"""Recognises what a foreign folder holds: its cases, its labels, and its own description. Nothing is written.

Four kinds of source are recognised:

    dataset.json with "modality"         a Medical Segmentation Decathlon folder
    dataset.json with "channel_names"    a raw folder of nnU-Net
    a folder of images, one of masks     paired by file name
    a folder per case                    an image, and a folder of one mask per structure (see `structures`)
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.nnunet_files import SPLITS_FILE, read_splits
from autoseg.errors import DatasetError, UsageError
from autoseg.imaging.formats import PLANE_ENDINGS
from autoseg.imaging.image_headers import channels_in
from autoseg.imaging.label_combinations import Combination
from autoseg.importing import pairing
from autoseg.importing.label_values import MaskValues, number_values, read_values
from autoseg.importing.structures import (
    Structures,
    find_annotated,
    find_case_folders,
    find_combinations,
    list_cases,
    list_masks,
    number_structures,
)
from autoseg.runtime.artifact import read_text
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

IMAGE_FOLDERS = ("images", "imagestr", "image")
KIND_UNKNOWN = (
    "The kind of image is not known and counts as MR (z-score); for CT, write 'CT' as the channel's name into "
    "dataset.json"
)
LABEL_FOLDERS = ("labels", "labelstr", "masks", "mask", "label")

# Keys of a foreign dataset.json that the new one replaces; the others, such as the licence, are kept.
REPLACED_KEYS = {
    *DatasetInfo.model_fields,
    *("modality", "training", "test", "numTraining", "numTest", "tensorImageSize", "dataset"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A recognised source, which `sources` imports.

    Attributes:
        info: Content of the new dataset.json.
        cases: Training cases, with their files in the source.
        tests: Scans without labels.
        numbers: Mask value to label number; empty if dataset.json states the numbers.
        structures: Structures and their numbers, if the label of a case is a folder of masks.
        notes: Further keys of the new dataset.json.
        splits: File of nnU-Net's folds of these cases.
    """

    info: DatasetInfo
    cases: tuple[Case, ...]
    tests: tuple[Case, ...]
    numbers: dict[int, int] = field(default_factory=dict)
    structures: Structures | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    splits: Path | None = None


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
        return _from_case_folders(source, folders, reporter)
    images, masks = _subfolder(source, IMAGE_FOLDERS), _subfolder(source, LABEL_FOLDERS)
    if images is None or masks is None:
        what = f"{source} holds neither dataset.json nor a folder of images beside one of masks, nor folders of cases"
        raise UsageError(what, "give the images as SOURCE and the masks with --labels")
    return _from_folders(images, masks, _subfolder(source, ("imagests",)), reporter)


def _from_description(folder: Path, reporter: Reporter) -> Source:
    """Reads a folder of the Decathlon or of nnU-Net, whose dataset.json describes the files."""
    path = info_file(folder)
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}", "mend the file") from error
    if not isinstance(content, dict) or not {"channel_names", "modality"} & content.keys():
        raise DatasetError(f"{path} has neither 'channel_names' nor 'modality'", "add the names of the image channels")
    ending = str(content.get("file_ending") or "") or None
    cases = _listed_cases(folder, reporter) if "dataset" in content else _described_cases(folder, content, reporter)
    info = _describe(content, pairing.common_ending(cases), path)
    cases = _select_complete(cases, _count_channels(cases, info.channels, reporter), info.channels, reporter)
    notes = {key: value for key, value in content.items() if key not in REPLACED_KEYS}
    tests = pairing.group_tests(pairing.list_images(folder / TEST_IMAGES, ending), len(cases[0].images), reporter)
    splits = _find_splits(folder, cases, reporter)
    return Source(info=info, cases=cases, tests=tests, notes=notes, splits=splits)


def _describe(content: dict[str, Any], ending: str, path: Path) -> DatasetInfo:
    """Returns the content of the new dataset.json; nnU-Net's reader is left out if the files are converted."""
    described = {**content, "file_ending": ending}
    if ending != content.get("file_ending"):
        described.pop("overwrite_image_reader_writer", None)
    return DatasetInfo.parse(json.dumps(described), source=str(path))


def _described_cases(folder: Path, content: dict[str, Any], reporter: Reporter) -> tuple[Case, ...]:
    """Returns the cases of imagesTr, with the masks that dataset.json lists, else those of labelsTr."""
    images = pairing.list_images(folder / TRAINING_IMAGES, str(content.get("file_ending") or "") or None)
    masks = _listed_masks(folder, content) or pairing.masks_by_image(folder / TRAINING_LABELS, images)
    return pairing.pair_by_name(images, masks, folder, reporter)


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
    paths = [(image, folder / label) for image, label in pairs if isinstance(image, str) and isinstance(label, str)]
    return {pairing.stem_of(folder / image): label for image, label in paths if label.is_file()}


def _from_folders(images_folder: Path, labels_folder: Path, tests_folder: Path | None, reporter: Reporter) -> Source:
    """Reads a folder of images and a folder of masks, without a description."""
    images = pairing.list_images(images_folder)
    cases = pairing.pair_by_name(images, pairing.masks_by_image(labels_folder, images), images_folder, reporter)
    counts, values = _read_channels_and_values(cases, reporter)
    cases = _select_complete(cases, counts, None, reporter)
    channels = counts[cases[0].name]
    colours = channels == 3 and len(cases[0].images) == 1 and pairing.ending_of(cases[0].images[0]) in PLANE_ENDINGS
    numbers = number_values([values[case.name] for case in cases], labels_folder, reporter)
    if not colours:
        reporter.say(KIND_UNKNOWN)
    info = DatasetInfo(
        channel_names={str(index): "rgb_to_0_1" if colours else f"channel_{index}" for index in range(channels)},
        labels={"background" if value == 0 else f"label_{value}": number for value, number in numbers.items()},
        file_ending=pairing.common_ending(cases),
    )
    scans = pairing.list_images(tests_folder) if tests_folder else []
    tests = pairing.group_tests(scans, len(cases[0].images), reporter)
    return Source(info=info, cases=cases, tests=tests, numbers=numbers)


def _from_case_folders(source: Path, folders: list[Path], reporter: Reporter) -> Source:
    """Reads a folder per case, with masks of structures that may overlap."""
    cases = list_cases(folders)
    masks = [case.label for case in cases if case.label is not None]
    names = sorted({name for folder in masks for name in list_masks(folder)})
    counts = dict(zip((case.name for case in cases), map(_count_channels_of, cases), strict=True))
    cases = _select_complete(cases, counts, None, reporter)

    def find(folder: Path) -> set[Combination]:
        return find_combinations(folder, names)

    combinations = results_or_raise(map_in_threads(find, masks, title="reading masks", reporter=reporter))
    structures = number_structures(names, combinations, source)
    reporter.say(
        f"{len(structures.names)} structures, of which some overlap: each is segmented as a mask of its own"
        if structures.overlap
        else f"{len(structures.names)} structures, of which none overlap: they are labels that exclude each other"
    )
    channels = counts[cases[0].name]
    is_ct = channels == 1 and all(pairing.stem_of(case.images[0]).lower() == "ct" for case in cases)
    if not is_ct:
        reporter.say(KIND_UNKNOWN)
    info = DatasetInfo(
        channel_names={str(channel): "CT" if is_ct else f"channel_{channel}" for channel in range(channels)},
        labels=structures.labels(),
        file_ending=pairing.common_ending(replace(case, label=None) for case in cases),
        masks=structures.overlap,
        annotated=find_annotated(cases, structures) or None,
    )
    return Source(info=info, cases=cases, tests=(), structures=structures)


def _read_channels_and_values(
    cases: tuple[Case, ...], reporter: Reporter
) -> tuple[dict[str, int], dict[str, MaskValues]]:
    """Returns the number of channels and the mask values of each case, by name; all unreadable files are reported."""
    masks = [case.label for case in cases if case.label]
    counts = map_in_threads(_count_channels_of, cases, title="reading headers", reporter=reporter)
    values = map_in_threads(read_values, masks, title="reading masks", reporter=reporter)
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
    counts = results_or_raise(map_in_threads(_count_channels_of, unknown, title="reading headers", reporter=reporter))
    return {case.name: 1 for case in cases} | dict(zip((case.name for case in unknown), counts, strict=True))


def _select_complete(
    cases: tuple[Case, ...], counts: Mapping[str, int], expected: int | None, reporter: Reporter
) -> tuple[Case, ...]:
    """Leaves out cases whose number of channels differs from the expected one, or from that of most cases."""
    usual_count = expected or Counter(counts.values()).most_common(1)[0][0]
    kept = tuple(case for case in cases if counts[case.name] == usual_count)
    if not kept:
        raise DatasetError(f"no case has {usual_count} channels", "correct channel_names in dataset.json")
    pairing.report_left_out(
        f"Cases that do not have {usual_count} channels", counts.keys() - {case.name for case in kept}, reporter
    )
    return kept


def _count_channels_of(case: Case) -> int:
    """Returns the number of channels of a case; reads the header of the image if it is a single file."""
    return len(case.images) if len(case.images) > 1 else channels_in(case.images[0])


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    """Returns the subfolder that has one of the names; None if there is none."""
    matches = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in names)
    if len(matches) > 1:
        joined = " and ".join(path.name for path in matches)
        raise UsageError(f"{folder} holds {joined}", "give the images as SOURCE and the masks with --labels")
    return matches[0] if matches else None
