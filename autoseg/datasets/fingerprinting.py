"""A dataset on disk, looked at: every case is read once, checked and measured.

Each sound case leaves a part file beside fingerprint.json to be: its facts and the voxels that were drawn from it. So
the memory does not grow with the number of cases, and a run that was stopped, or that found bad cases, need not read
the others again. The parts go when the fingerprint is complete.
"""

import shutil
import zipfile
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg._version import __version__
from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.fingerprint import CaseSummary, Fingerprint, draws_per_case, fingerprint_case, fingerprint_dataset
from autoseg.datasets.integrity import Inspection, find_problems, inspect_case
from autoseg.errors import ArtifactError, ProblemsError
from autoseg.imaging.geometry import Volume
from autoseg.runtime.artifact import Artifact, atomic_file, state_of_files
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.workspace import DatasetFolders

# What reading a file can raise that is cut off, overwritten, or was never one of ours.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, ArtifactError)


class FileState(BaseModel):
    """All that a part follows from; if any of it has changed, the case is read again.

    Attributes:
        program: Version of this program.
        info: Digest of what dataset.json says.
        files: Of each image and of the label map: name, bytes, and nanoseconds of the last change.
        draws: Voxels drawn from the foreground.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str
    info: str
    files: tuple[tuple[str, int, int], ...]
    draws: int


class FingerprintPart(Artifact):
    """What is kept of one sound case until the fingerprint is complete, beside its draws.

    Attributes:
        origin: See there.
        labels_seen: See `Inspection`.
        summary: Its facts.
    """

    origin: FileState
    labels_seen: frozenset[int]
    summary: CaseSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadCase:
    """A case after it was looked at; its summary is None if it has problems."""

    inspection: Inspection
    summary: CaseSummary | None
    taken_over: bool = False


def compute_fingerprint(dataset: Dataset, folders: DatasetFolders, reporter: Reporter) -> Fingerprint:
    """Checks every case and takes its facts; goes on where an earlier run was stopped.

    The same cases give the same fingerprint, however many threads there are and however often the run was stopped.
    fingerprint.json is written here and the parts go after that, so that nothing is lost in between.

    Args:
        dataset: The cases to look at.
        folders: Where fingerprint.json and, until then, the parts belong.
        reporter: Shows progress, and is told how many cases were taken over.

    Raises:
        ProblemsError: Cases are damaged or incomplete, each with its line. What was found of the others is kept.
        WriteError: The disk is full, or the folder cannot be written.
        ArtifactError: Another run of the same kind removed the parts meanwhile.
    """
    for remark in dataset.remarks:
        reporter.say(remark)
    draws = draws_per_case(len(dataset.cases))
    info = sha256(dataset.info.model_dump_json().encode()).hexdigest()

    def look(case: Case) -> _ReadCase:
        path = folders.fingerprint_part(case.name)
        origin = FileState(program=__version__, info=info, files=state_of_files(case.files), draws=draws)
        part = _load_part(path, origin)
        return _read_case(case, dataset, path, origin) if part is None else _take_over(case, part)

    looks = results_or_raise(map_in_threads(look, dataset.cases, title="reading cases", reporter=reporter))
    taken_over = sum(one.taken_over for one in looks)
    if taken_over:
        reporter.say(f"{taken_over} of {len(looks)} cases were read by an earlier run and are taken over")
    problems = find_problems(dataset, [one.inspection for one in looks])
    if problems:
        raise ProblemsError([str(problem) for problem in problems])

    def read_draws(name: str, channel: int) -> NDArray[np.float32]:
        return _read_draws(folders.fingerprint_part(name), channel)

    summaries = [one.summary for one in looks if one.summary is not None]
    fingerprint = fingerprint_dataset(summaries, draws=draws, read_draws=read_draws)
    fingerprint.save(folders.fingerprint)
    shutil.rmtree(folders.fingerprint_parts, ignore_errors=True)
    return fingerprint


def _read_case(case: Case, dataset: Dataset, path: Path, origin: FileState) -> _ReadCase:
    """Reads, checks and measures a case, and leaves a part of it if it is sound."""
    inspection = inspect_case(case, dataset.info)
    findings, seen = inspection.without_voxels(), inspection.labels_seen
    if inspection.problems or inspection.image is None or inspection.label is None or seen is None:
        return _ReadCase(inspection=findings, summary=None)
    image = _turned(inspection.image, dataset.info.orientation)
    label = _turned(_without(inspection.label, dataset.info.targets.ignore), dataset.info.orientation)
    summary, drawn = fingerprint_case(case.name, image, label, draws=origin.draws)
    _save_part(path, FingerprintPart(origin=origin, labels_seen=seen, summary=summary), drawn)
    return _ReadCase(inspection=findings, summary=summary)


def _without(label: Volume, ignore: int | None) -> Volume:
    """A label map in which voxels that nobody labelled are background."""
    return label if ignore is None else replace(label, array=np.where(label.array == ignore, 0, label.array))


def _turned(volume: Volume, orientation: str | None) -> Volume:
    """A volume as the network will see it, if dataset.json asks for an orientation; planes know of none."""
    return volume if orientation is None or volume.geometry.dimensions == 2 else volume.reoriented(orientation)


def _take_over(case: Case, part: FingerprintPart) -> _ReadCase:
    """A case that an earlier run found sound."""
    findings = Inspection(name=case.name, image=None, label=None, problems=(), labels_seen=part.labels_seen)
    return _ReadCase(inspection=findings, summary=part.summary, taken_over=True)


def _save_part(path: Path, part: FingerprintPart, drawn: NDArray[np.float32]) -> None:
    """Writes a part: its values as JSON, and each channel of its draws as an array that can be read alone."""
    text = np.frombuffer(part.model_dump_json().encode(), dtype=np.uint8)
    with atomic_file(path, durable=False) as writing:  # its checksums tell whether it is whole
        np.savez(writing, part=text, **{_key(channel): values for channel, values in enumerate(drawn)})


def _load_part(path: Path, origin: FileState) -> FingerprintPart | None:
    """Reads a part if it is there, whole, and of the same origin."""
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
    """Reads the draws of one channel.

    Raises:
        ArtifactError: The part is gone or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[_key(channel)], dtype=np.float32)
    except DAMAGE as error:
        what = f"{path} was removed or changed while the fingerprint was taken"
        raise ArtifactError(what, "run the command again, once at a time") from error


def _key(channel: int) -> str:
    return f"channel_{channel}"
