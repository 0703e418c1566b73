"""The revisions of a raw dataset: what was corrected, when, and by which model it was made before.

    raw/Dataset004_Hippocampus/revisions/0001/
        revision.json        the record: a `Revision`
        before/CASE.nii.gz   the label map that was replaced
        machine/CASE.nii.gz  the label map as a model made it, if it was given
        after/CASE.nii.gz    the corrected label map, equal to that in labelsTr until the next revision
        imagesTr/            images of new scans, until they are moved to that folder of the dataset

A folder is written whole or not at all. Only then are the files of the dataset replaced, which a later run finishes if
this one was ended in between.
"""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg._version import __version__
from autoseg.runtime.artifact import Artifact, Score, atomic_file

FOLDER, RECORD = "revisions", "revision.json"
BEFORE, MACHINE, AFTER = "before", "machine", "after"

DIGITS = 16

Origin = Literal["corrected", "accepted", "drawn"]
"""Who made a label map: a person who corrected one of a model or of the dataset; a model, and a person left every voxel
as it was; or a person alone."""


class RevisedCase(BaseModel):
    """A case whose label map changed, or that is new.

    Attributes:
        origin: Who made the label map.
        is_new: Whether the case is new in the dataset.
        machine_model: Digest of the model that made the label map before the correction, as `autoseg predict` keeps it;
            None if that is not known.
        changed_voxels: Number of voxels that differ from the label map of the model, else from that of the dataset
            before; None if there was neither.
        dice: Overlap of each structure of the two; null if it is in neither.
        before, machine, after: Digests of the files of the same names; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Origin
    is_new: bool
    machine_model: str | None = None
    changed_voxels: int | None = None
    dice: Mapping[str, Score] | None = None
    before: str | None = None
    machine: str | None = None
    after: str


class Revision(Artifact):
    """The record of a revision.

    Attributes:
        number: Number of the revision, from 1.
        time: Date and time in UTC.
        program: Version of autoseg.
        applied: Whether all files of the dataset were replaced.
        cases: Name of each case to what became of it.

    Example:
        >>> case = RevisedCase(origin="corrected", is_new=False, changed_voxels=3, after="0123")
        >>> revision = Revision.make(1, {"liver_1": case})
        >>> revision.describe()
        'revision 1: 1 label map corrected, 0 accepted as they were, 0 drawn; 0 of the cases are new'
    """

    number: int
    time: str
    program: str
    applied: bool = False
    cases: Mapping[str, RevisedCase]

    @classmethod
    def make(cls, number: int, cases: Mapping[str, RevisedCase]) -> "Revision":
        """Returns the record of a revision that is made now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(number=number, time=now, program=__version__, cases=cases)

    @property
    def new_cases(self) -> list[str]:
        """Names of the cases that are new."""
        return [name for name, case in self.cases.items() if case.is_new]

    def describe(self) -> str:
        """Returns one line for people."""
        counts = {origin: sum(case.origin == origin for case in self.cases.values()) for origin in _ORIGINS}
        maps = "label map" if counts["corrected"] == 1 else "label maps"
        return (
            f"revision {self.number}: {counts['corrected']} {maps} corrected, {counts['accepted']} accepted as they "
            f"were, {counts['drawn']} drawn; {len(self.new_cases)} of the cases are new"
        )


_ORIGINS: tuple[Origin, ...] = ("corrected", "accepted", "drawn")


def revision_folder(dataset: Path, number: int) -> Path:
    """Returns the folder of a revision of a raw dataset."""
    return dataset / FOLDER / f"{number:04d}"


def list_revisions(dataset: Path) -> list[Revision]:
    """Returns the revisions of a raw dataset, in their order.

    Raises:
        ArtifactError: A record is damaged.
    """
    paths = sorted((dataset / FOLDER).glob(f"[0-9]*/{RECORD}"))
    return sorted((Revision.load(path) for path in paths), key=lambda revision: revision.number)


def digest_file(path: Path) -> str:
    """Returns the first digits of the SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()[:DIGITS]


def copy_whole(path: Path, target: Path) -> None:
    """Copies a file, whole or not at all.

    Raises:
        WriteError: The disk is full, or the folder cannot be written.
    """
    with atomic_file(target) as writing:
        shutil.copyfile(path, writing)
