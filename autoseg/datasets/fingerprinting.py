"""Takes the fingerprint of a dataset on disk: every case is read once, checked and measured.

For each sound case a part file is written: its measurements and its sampled voxels. So the memory does not grow with
the number of cases, and after a run that was stopped, or that found bad cases, the others need not be read again. The
part files are removed when fingerprint.json is complete.
"""

import shutil
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg._version import __version__
from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.fingerprint import (
    CaseFacts,
    CaseSummary,
    Fingerprint,
    draws_per_case,
    fingerprint_case,
    fingerprint_dataset,
)
from autoseg.datasets.integrity import Inspection, find_oddities, find_problems, inspect_case
from autoseg.datasets.oddities import CaseExtent
from autoseg.errors import ArtifactError, ProblemsError
from autoseg.imaging.geometry import Volume
from autoseg.runtime.artifact import Artifact, atomic_file, state_of_files
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.workspace import DatasetFolders

# Errors of reading a file that is truncated, overwritten, or was not written by this program.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, ArtifactError)


class FileState(BaseModel):
    """Everything that a part file depends on; if any of it changes, the case is read again.

    Attributes:
        program: Version of this program.
        info: Digest of the content of dataset.json.
        files: Name, size in bytes, and time of the last change in nanoseconds, of each image and of the label map.
        draws: Number of voxels sampled from the foreground.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str
    info: str
    files: tuple[tuple[str, int, int], ...]
    draws: int


class FingerprintPart(Artifact):
    """The content of a part file, beside the sampled voxels.

    Attributes:
        origin: State of the files that the part was made from.
        labels_seen: Values of the label map; see `Inspection`.
        summary: Measurements of the case.
    """

    origin: FileState
    labels_seen: frozenset[int]
    summary: CaseSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadCase:
    """A case after it was read.

    Attributes:
        inspection: Its problems.
        summary: Its measurements; None if it has problems.
        reused: Whether an earlier run read it.
    """

    inspection: Inspection
    summary: CaseSummary | None
    reused: bool = False


def compute_fingerprint(dataset: Dataset, folders: DatasetFolders, reporter: Reporter) -> Fingerprint:
    """Checks and measures every case; goes on where an earlier run was stopped.

    The same cases give the same fingerprint, for any number of threads and however often the run was stopped. The part
    files are removed after fingerprint.json is written, so that nothing is lost in between.

    Args:
        dataset: The dataset.
        folders: Folders that receive fingerprint.json and the part files.
        reporter: Shows progress, and is told how many cases an earlier run had read.

    Raises:
        ProblemsError: Cases are damaged or incomplete, with a line for each. The measurements of the others are kept.
        WriteError: The disk is full, or the folder cannot be written.
        ArtifactError: Another run removed the part files meanwhile.
    """
    for remark in dataset.remarks:
        reporter.say(remark)
    draws = draws_per_case(len(dataset.cases))
    info = sha256(dataset.info.model_dump_json(exclude={"codes"}).encode()).hexdigest()

    def examine(case: Case) -> _ReadCase:
        path = folders.fingerprint_part(case.name)
        origin = FileState(program=__version__, info=info, files=state_of_files(case.files), draws=draws)
        part = _load_part(path, origin)
        return _read_case(case, dataset, path, origin) if part is None else _reuse_part(case, part)

    cases = results_or_raise(map_in_threads(examine, dataset.cases, title="reading cases", reporter=reporter))
    reused = sum(case.reused for case in cases)
    if reused:
        reporter.say(f"{reused} of {len(cases)} cases were read by an earlier run and are taken over")
    inspections = [case.inspection for case in cases]
    for line in find_oddities(dataset, inspections):
        reporter.say(line)
    problems = find_problems(dataset, inspections)
    if problems:
        raise ProblemsError([str(problem) for problem in problems])

    def read_draws(name: str, channel: int) -> NDArray[np.float32]:
        return _read_draws(folders.fingerprint_part(name), channel)

    summaries = [case.summary for case in cases if case.summary is not None]
    fingerprint = fingerprint_dataset(summaries, draws=draws, read_draws=read_draws)
    fingerprint.save(folders.fingerprint)
    shutil.rmtree(folders.fingerprint_parts, ignore_errors=True)
    return fingerprint


def remeasure(dataset: Dataset, names: Collection[str], folders: DatasetFolders, reporter: Reporter) -> None:
    """Measures some cases again, such as corrected or new ones, and writes them into fingerprint.json.

    Decision: the intensities of the channels stay those of the cases that were planned with, because a network that
    goes on must see scans that are normalized as before. A fingerprint of nnU-Net names no cases, and stays as it is.

    Args:
        dataset: The dataset.
        names: Names of the cases.
        folders: Folders of the dataset.
        reporter: Shows progress.

    Raises:
        ProblemsError: Cases are damaged, with a line for each; the fingerprint stays as it was.
    """
    if not folders.fingerprint.is_file():
        return
    fingerprint = Fingerprint.load(folders.fingerprint)

    def measure(case: Case) -> CaseFacts | list[str]:
        inspection = inspect_case(case, dataset.info)
        if inspection.problems or inspection.image is None or inspection.label is None:
            return [str(problem) for problem in inspection.problems]
        image = _reorient(inspection.image, dataset.info.orientation)
        label = _reorient(_remove_ignored(inspection.label, dataset.info.targets.ignore), dataset.info.orientation)
        return fingerprint_case(case.name, image, label, draws=1)[0].facts

    chosen = dataset.only(names).cases
    measured = results_or_raise(map_in_threads(measure, chosen, title="measuring cases", reporter=reporter))
    if lines := [line for found in measured if isinstance(found, list) for line in found]:
        raise ProblemsError(lines)
    facts = {case.name: case for case in fingerprint.cases}
    facts |= {found.name: found for found in measured if isinstance(found, CaseFacts)}
    cases = tuple(facts[name] for name in sorted(facts))
    fingerprint.model_copy(update={"cases": cases}).save(folders.fingerprint)


def _read_case(case: Case, dataset: Dataset, path: Path, origin: FileState) -> _ReadCase:
    """Reads, checks and measures a case; writes a part file if it is sound."""
    inspection = inspect_case(case, dataset.info)
    findings, labels_seen = inspection.without_voxels(), inspection.labels_seen
    if inspection.problems or inspection.image is None or inspection.label is None or labels_seen is None:
        return _ReadCase(inspection=findings, summary=None)
    image = _reorient(inspection.image, dataset.info.orientation)
    label = _reorient(_remove_ignored(inspection.label, dataset.info.targets.ignore), dataset.info.orientation)
    summary, drawn = fingerprint_case(case.name, image, label, draws=origin.draws)
    _save_part(path, FingerprintPart(origin=origin, labels_seen=labels_seen, summary=summary), drawn)
    return _ReadCase(inspection=findings, summary=summary)


def _remove_ignored(label: Volume, ignore: int | None) -> Volume:
    """Returns a label map in which the ignore label is replaced by background."""
    return label if ignore is None else replace(label, array=np.where(label.array == ignore, 0, label.array))


def _reorient(volume: Volume, orientation: str | None) -> Volume:
    """Returns a volume in the orientation that dataset.json asks for, if it does; 2D images stay as they are."""
    return volume if orientation is None or volume.geometry.dimensions == 2 else volume.reoriented(orientation)


def _reuse_part(case: Case, part: FingerprintPart) -> _ReadCase:
    """Returns a case that an earlier run found sound, from its part file."""
    facts = part.summary.facts
    extent = CaseExtent(
        name=case.name,
        shape=facts.shape or facts.shape_after_crop,
        spacing_mm=facts.spacing_mm,
        intensities=facts.intensities,
    )
    findings = Inspection(
        name=case.name, image=None, label=None, problems=(), labels_seen=part.labels_seen, extent=extent
    )
    return _ReadCase(inspection=findings, summary=part.summary, reused=True)


def _save_part(path: Path, part: FingerprintPart, drawn: NDArray[np.float32]) -> None:
    """Writes a part file: the values as JSON, and the samples of each channel as a separate array."""
    text = np.frombuffer(part.model_dump_json().encode(), dtype=np.uint8)
    with atomic_file(path, durable=False) as writing:  # its checksums show whether it is complete
        np.savez(writing, part=text, **{_key(channel): values for channel, values in enumerate(drawn)})


def _load_part(path: Path, origin: FileState) -> FingerprintPart | None:
    """Reads a part file; returns None if it is missing, incomplete, or made from other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        with np.load(path, allow_pickle=False) as file:
            part = FingerprintPart.parse(file["part"].tobytes().decode(), source=str(path))
            complete = all(_key(channel) in file for channel in range(len(part.summary.foreground)))
    except DAMAGE:
        return None
    return part if complete and part.origin == origin else None


def _read_draws(path: Path, channel: int) -> NDArray[np.float32]:
    """Reads the sampled voxels of one channel from a part file.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[_key(channel)], dtype=np.float32)
    except DAMAGE as error:
        what = f"{path} was removed or changed while the fingerprint was taken"
        raise ArtifactError(what, "run the command again, once at a time") from error


def _key(channel: int) -> str:
    return f"channel_{channel}"
