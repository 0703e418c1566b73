"""Corrected label maps, brought back into a raw dataset as a revision; see `datasets.revisions`.

All are read and checked before anything is written, and one bad file never hides another. A label map that was saved on
a part of the image, as 3D Slicer does, is laid on the whole of it.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.integrity import inspect_case
from autoseg.datasets.revisions import (
    AFTER,
    BEFORE,
    MACHINE,
    RECORD,
    RevisedCase,
    Revision,
    copy_whole,
    digest_file,
    list_revisions,
    revision_folder,
)
from autoseg.datasets.scans import check_channels, check_values, list_label_maps
from autoseg.errors import AutosegError, DatasetError, ProblemsError, UsageError
from autoseg.imaging.formats import split_ending
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map, write_label_map
from autoseg.imaging.placing import lay_on_grid
from autoseg.imaging.targets import Targets
from autoseg.importing.case_files import image_targets, write_images
from autoseg.runtime.artifact import atomic_file, atomic_folder
from autoseg.runtime.json_text import read_json_text
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads

MeasureDice = Callable[[NDArray[np.integer], NDArray[np.integer], Targets], Mapping[str, float]]
"""Measures the Dice of each structure of two label maps of shape (z, y, x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """What a user brings back.

    Attributes:
        label_maps: Name of each case to its corrected label map.
        scans: Name of each scan that may be new, to its files.
        machine: Name of a case to the label map that a model made of it.
        models: Name of a case to the digest of that model.
    """

    label_maps: Mapping[str, Path]
    scans: Mapping[str, Case]
    machine: Mapping[str, Path]
    models: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedCase:
    """A corrected label map that was read.

    Attributes:
        case: The case, with the label map of before; without one if it is new.
        label: The corrected label map, on the grid of the image.
        record: What becomes of it, without digests.
    """

    case: Case
    label: Volume
    record: RevisedCase


def find_corrected(folder: Path, dataset: Dataset) -> dict[str, Path]:
    """Returns the label maps of a folder by the name of their case.

    Raises:
        DatasetError: The folder is missing or holds none, or structures of the dataset overlap.
        ProblemsError: Files differ only in their type, with a line for each.
    """
    if dataset.info.masks:
        what = f"{dataset.name} has a mask for each structure, and corrections are label maps"
        raise DatasetError(what, "replace them in labelsTr, and run 'autoseg preprocess'")
    found = list_label_maps(folder)
    if twice := [paths for paths in found.values() if len(paths) > 1]:
        raise ProblemsError([f"{paths[0]} and {paths[1].name} have the same name; keep one of them" for paths in twice])
    return {name: paths[0] for name, paths in found.items()}


def read_corrections(
    corrections: Corrections, dataset: Dataset, measure: MeasureDice, reporter: Reporter
) -> list[CorrectedCase]:
    """Reads and checks corrected label maps; those that the dataset has already are left out.

    Args:
        corrections: What a user brings back.
        dataset: The dataset.
        measure: Measures the overlap of each structure.
        reporter: Shows progress, and is told what is as it was.

    Raises:
        ProblemsError: Label maps have no scan, cannot be read, or do not fit their scan or the labels, with a line for
            each.
    """
    known = {case.name: case for case in dataset.cases}
    lost = sorted(corrections.label_maps.keys() - known.keys() - corrections.scans.keys())
    lines = [f"{corrections.label_maps[name]} has no scan; give the folder of the scans with --scans" for name in lost]

    def read(name: str) -> CorrectedCase | None:
        return _read(name, known.get(name), corrections, dataset, measure)

    found = sorted(corrections.label_maps.keys() - set(lost))
    results = map_in_threads(read, found, title="reading corrections", reporter=reporter)
    lines += [str(result) for result in results if isinstance(result, AutosegError)]
    if lines:
        raise ProblemsError(lines)
    if same := [name for name, result in zip(found, results, strict=True) if result is None]:
        reporter.say(f"the dataset has these label maps already: {list_names(same)}")
    return [result for result in results if isinstance(result, CorrectedCase)]


def write_revision(read: Sequence[CorrectedCase], corrections: Corrections, dataset: Dataset) -> Revision:
    """Writes corrected label maps into a dataset, and what they were before into a folder of their own.

    Args:
        read: What `read_corrections` found; at least one.
        corrections: What a user brings back.
        dataset: The dataset, which is changed.

    Raises:
        WriteError: The disk is full, or the folder of the dataset cannot be written.
        UsageError: There are files of a new case already.
    """
    number = max((revision.number for revision in list_revisions(dataset.folder)), default=0) + 1
    with atomic_folder(revision_folder(dataset.folder, number), replace=False) as folder:
        for name in (BEFORE, MACHINE, AFTER, TRAINING_IMAGES):
            (folder / name).mkdir()
        records = {corrected.case.name: _stage(corrected, corrections, dataset, folder) for corrected in read}
        revision = Revision.make(number, records)
        revision.save(folder / RECORD)
    return apply_revision(revision, dataset.folder, dataset.info.file_ending)


def apply_revision(revision: Revision, dataset: Path, ending: str) -> Revision:
    """Replaces the files of a dataset by those of a revision; done twice, it changes nothing.

    Args:
        revision: The revision.
        dataset: Folder of the dataset.
        ending: Ending of its files.

    Returns:
        The record, which says that all are replaced.
    """
    folder = revision_folder(dataset, revision.number)
    images = sorted((folder / TRAINING_IMAGES).iterdir()) if (folder / TRAINING_IMAGES).is_dir() else []
    (dataset / TRAINING_IMAGES).mkdir(exist_ok=True)
    for image in images:
        image.replace(dataset / TRAINING_IMAGES / image.name)
    for name in revision.cases:
        copy_whole(folder / AFTER / f"{name}{ending}", dataset / TRAINING_LABELS / f"{name}{ending}")
    _list_cases(revision, dataset, ending)
    shutil.rmtree(folder / TRAINING_IMAGES, ignore_errors=True)
    applied = revision.model_copy(update={"applied": True})
    applied.save(folder / RECORD)
    return applied


def finish_revisions(dataset: Path, ending: str, reporter: Reporter) -> list[Revision]:
    """Returns the revisions of a dataset, after those that a run was ended in were applied."""
    revisions = list_revisions(dataset)
    for index, revision in enumerate(revisions):
        if not revision.applied:
            reporter.say(f"revision {revision.number} was begun by an earlier run, and is finished now")
            revisions[index] = apply_revision(revision, dataset, ending)
    return revisions


# --- Reading ----------------------------------------------------------------------------------------------------------


def _read(
    name: str, known: Case | None, corrections: Corrections, dataset: Dataset, measure: MeasureDice
) -> CorrectedCase | None:
    """Reads a corrected label map and compares it; None if the dataset has it already."""
    path, of_machine = corrections.label_maps[name], corrections.machine.get(name)
    case = known or replace(corrections.scans[name], label=None)
    if known is None:
        check_channels(case, dataset.info)
    label = _read_label(case, path, dataset.info)
    before = None if case.label is None else read_label_map(case.label)
    if before is not None and np.array_equal(before.array, label.array):
        return None
    reference, reference_path = before, case.label
    if of_machine is not None:
        reference, reference_path = read_label_map(of_machine), of_machine
    record = RevisedCase(
        origin="drawn" if reference is None else "corrected",
        is_new=known is None,
        machine_model=corrections.models.get(name) if of_machine else None,
        after="",
    )
    if reference is None:
        return CorrectedCase(case=case, label=label, record=record)
    if reference.array.shape != label.array.shape:
        what = f"{path} and {reference_path} differ in their numbers of voxels"
        raise DatasetError(what, "give masks of the same scan")
    changed = int(np.count_nonzero(reference.array != label.array))
    origin = "corrected" if changed or of_machine is None else "accepted"
    dice = measure(label.array, reference.array, dataset.info.targets)
    record = record.model_copy(update={"origin": origin, "changed_voxels": changed, "dice": dice})
    return CorrectedCase(case=case, label=label, record=record)


def _read_label(case: Case, path: Path, info: DatasetInfo) -> Volume:
    """Returns a label map on the grid of its image.

    Raises:
        DatasetError: Image or label map cannot be read, do not fit together, or values are no labels.
    """
    inspection = inspect_case(replace(case, label=path), info)
    problems, image, label = inspection.problems, inspection.image, inspection.label
    if image is None or label is None:
        raise DatasetError(f"case {case.name!r}: {problems[0].what}", problems[0].fix)
    laid = lay_on_grid(label, image.geometry) if label.array.shape != image.geometry.shape else None
    if laid is None and problems:
        raise DatasetError(f"{path}: {problems[0].what}", problems[0].fix)
    check_values([path], [label], info.targets)
    return label if laid is None else laid


# --- Writing ----------------------------------------------------------------------------------------------------------


def _stage(corrected: CorrectedCase, corrections: Corrections, dataset: Dataset, folder: Path) -> RevisedCase:
    """Writes all files of a case into the folder of a revision, and returns its record with their digests."""
    case, ending = corrected.case, dataset.info.file_ending
    after = folder / AFTER / f"{case.name}{ending}"
    write_label_map(after, corrected.label)
    digests = {"after": digest_file(after)}
    for key, path in (("before", case.label), ("machine", corrections.machine.get(case.name))):
        if path is not None:
            copy = folder / key / f"{case.name}{split_ending(path)[1]}"
            shutil.copyfile(path, copy)
            digests[key] = digest_file(copy)
    if corrected.record.is_new:
        placed = replace(case, label=after)
        existing = [target for target in image_targets(placed, dataset.info) if (dataset.folder / target).exists()]
        if existing:
            raise UsageError(f"{dataset.folder / existing[0]} exists, and belongs to no case", "move it away")
        write_images(placed, folder, dataset.info)
    return corrected.record.model_copy(update=digests)


def _list_cases(revision: Revision, dataset: Path, ending: str) -> None:
    """Writes what dataset.json says of the cases, if it says anything: their number, and where their files are.

    The dataset.json of before is kept in the folder of the revision.
    """
    path, kept = info_file(dataset), revision_folder(dataset, revision.number) / info_file(dataset).name
    content = json.loads(read_json_text(kept if kept.exists() else path))
    listed, number = content.get("dataset"), content.get("numTraining")
    if listed is None and number is None:
        return
    if not kept.exists():
        copy_whole(path, kept)
    if isinstance(listed, dict):
        for name in revision.cases:
            entry = listed.setdefault(name, {"images": _relative_images(name, dataset, ending)})
            entry["label"] = f"{TRAINING_LABELS}/{name}{ending}"
    if number is not None:
        content["numTraining"] = number + len(revision.new_cases)
    with atomic_file(path) as writing:
        writing.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _relative_images(name: str, dataset: Path, ending: str) -> list[str]:
    images: Iterable[Path] = sorted((dataset / TRAINING_IMAGES).glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}"))
    return [f"{TRAINING_IMAGES}/{path.name}" for path in images]
