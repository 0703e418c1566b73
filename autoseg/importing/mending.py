"""Copies of raw datasets in which is mended what needs no judgement, with a list of what was mended.

What needs none: voxels stay, and where they lie is certain from the other files of the case. The page of the guide
"What your files may look like" has the list.
"""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import AutosegError
from autoseg.imaging.formats import PLANE_ENDINGS, VOLUME_ENDINGS, readable_name, split_ending, writable_ending
from autoseg.imaging.image_files import convert_image, read_label_map, write_label_map
from autoseg.imaging.pictures.spacing_file import find_spacing_file
from autoseg.importing.case_mending import Fix, mend_case
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.json_text import read_json_text
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

FIXES_FILE = "fixes.csv"
"""The list of what was mended in a copy: a row for each change, with the file and what was done."""

IMAGE_FOLDERS = (TRAINING_IMAGES, TRAINING_LABELS, TEST_IMAGES)


class _NothingToMendError(Exception):
    """Ends the copy of a dataset in which nothing was mended."""


def mend_dataset(folder: Path, target: Path, reporter: Reporter) -> list[Fix]:
    """Writes a mended copy of a raw dataset, whole or not at all; see `pipeline.raw_datasets.fix`.

    Args:
        folder: Folder of the dataset.
        target: Folder of the copy, which does not exist.
        reporter: Shows progress.

    Returns:
        What was mended; if it is empty there is no copy.

    Raises:
        DatasetError: dataset.json is wrong.
        ArtifactError: The copy cannot be written.
    """
    info = DatasetInfo.load(info_file(folder))
    listed = Dataset.open(folder).cases if _is_listed(folder) else None
    files = list(_name_files(folder, info) if listed is None else _name_listed(listed, info))
    with suppress(_NothingToMendError), atomic_folder(target) as writing:
        fixes = _copy_files(files, writing, reporter)
        fixes += _mend_description(folder, writing)
        copy = Dataset.open(writing)
        work = partial(mend_case, info=copy.info, folder=writing)
        mended = results_or_raise(map_in_threads(work, copy.cases, title="mending cases", reporter=reporter))
        fixes += [fix for fixes_of_case in mended for fix in fixes_of_case]
        if not fixes:
            raise _NothingToMendError
        _write_list(fixes, writing / FIXES_FILE)
        return fixes
    return []


def _copy_files(pairs: list[tuple[str, Path]], target: Path, reporter: Reporter) -> list[Fix]:
    """Copies files under new names, relative to the folder; returns what was changed."""
    for name in {Path(name).parent for name, _ in pairs}:
        (target / name).mkdir(parents=True, exist_ok=True)

    def copy(pair: tuple[str, Path]) -> list[Fix]:
        name, path = pair
        return _copy(path, target, name)

    copied = results_or_raise(map_in_threads(copy, pairs, title="copying", reporter=reporter))
    return [fix for fixes in copied for fix in fixes]


def _copy(path: Path, target: Path, name: str) -> list[Fix]:
    ending, wanted = split_ending(path)[1].lower(), split_ending(Path(name))[1].lower()
    if ending != wanted:
        try:
            if Path(name).parent.name == TRAINING_LABELS:
                write_label_map(target / name, read_label_map(path))
            else:
                convert_image(path, (target / name,))
        except AutosegError:  # it stays, and `check` names it
            shutil.copy2(path, (target / name).with_name(path.name))
            return []
        return [Fix(file=name, change=f"saved as {wanted}, was {path.name}")]
    shutil.copy2(path, target / name)
    return [Fix(file=name, change=f"renamed, was {path.name}")] if path.name != Path(name).name else []


def _is_listed(folder: Path) -> bool:
    return "dataset" in json.loads(read_json_text(info_file(folder)))


def _name_files(source: Path, info: DatasetInfo) -> Iterator[tuple[str, Path]]:
    """Yields the new name, relative to the folder, and the path of each file of a dataset."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path != info_file(source):
            yield path.name, path
    for folder in IMAGE_FOLDERS:
        paths = sorted((source / folder).iterdir()) if (source / folder).is_dir() else []
        files = [path for path in paths if path.is_file() and not path.name.startswith(".")]
        names = {path.name for path in files}
        for path in files:
            name = _mend_name(path, info.file_ending)
            is_free = name == path.name or name not in names
            names.add(name)
            yield f"{folder}/{name if is_free else path.name}", path


def _mend_name(path: Path, ending: str) -> str:
    """Returns the name of an image file with composed letters and the ending of its dataset."""
    stem, own = split_ending(path)
    is_of_kind = any(own.lower() in kinds and ending.lower() in kinds for kinds in (VOLUME_ENDINGS, PLANE_ENDINGS))
    if own.lower() == ending.lower() or (is_of_kind and writable_ending(ending) == ending):
        return stem + ending
    return readable_name(path.name)


def _name_listed(cases: Iterable[Case], info: DatasetInfo) -> Iterator[tuple[str, Path]]:
    """Yields the new name and the path of each file that dataset.json lists, and of the spacing files of TIFF."""
    for case in cases:
        present = [f"_{channel:04d}" for channel in range(info.channels) if channel not in case.missing_channels]
        suffixes = present if len(present) == len(case.images) else [""] * len(case.images)
        targets = [(TRAINING_IMAGES, image) for image in case.images]
        targets += [] if case.label is None else [(TRAINING_LABELS, case.label)]
        for suffix, (folder, path) in zip((*suffixes, ""), targets, strict=False):
            yield f"{folder}/{case.name}{suffix}{info.file_ending}", path
        for folder, path in dict(targets).items():
            if (spacing := find_spacing_file(path)) is not None:
                yield f"{folder}/{case.name}.json", spacing


def _mend_description(folder: Path, target: Path) -> list[Fix]:
    """Writes dataset.json, as it is or with the right number of cases; returns what was changed."""
    source = info_file(folder)
    text = read_json_text(source)
    content = json.loads(text)
    changes = []
    if source.read_bytes() != text.encode():
        changes.append("saved as plain JSON in UTF-8")
    if content.pop("dataset", None) is not None:
        changes.append("the files that it listed were brought into imagesTr and labelsTr")
    info_file(target).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    count = len(Dataset.open(target).cases)
    if content.get("numTraining", count) != count:
        changes.append(f"numTraining became {count}, was {content['numTraining']}")
        content["numTraining"] = count
    if changes:
        info_file(target).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        shutil.copy2(source, info_file(target))
    return [Fix(file=source.name, change=change) for change in changes]


def _write_list(fixes: list[Fix], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file", "change"))
        table.writerows((fix.file, fix.change) for fix in fixes)
