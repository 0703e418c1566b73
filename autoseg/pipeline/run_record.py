"""What `run` remembers of a dataset: where it came from, what was asked for, and the state of the files it has read."""

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from autoseg._version import __version__
from autoseg.datasets.dataset import Dataset
from autoseg.errors import UsageError
from autoseg.planning.plan import ConfigurationName, PresetName
from autoseg.runtime.artifact import Artifact, state_of_files
from autoseg.runtime.units import describe_memory


class SourceState(BaseModel):
    """The files of a source, as they were when it was imported.

    Attributes:
        files: Number of files.
        size_bytes: Their size together.
        digest: Digest of the path, size and time of change of each; it does not depend on where the source lies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int
    size_bytes: int
    digest: str

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Self:
        """Returns the present state of files and of all files in folders.

        Example:
            >>> from tempfile import TemporaryDirectory
            >>> with TemporaryDirectory() as folder:
            ...     _ = (Path(folder) / "scan.nii").write_bytes(b"1234")
            ...     state = SourceState.of([Path(folder)])
            >>> state.files, state.size_bytes
            (1, 4)
        """
        digest, files, size_bytes = sha256(), 0, 0
        for path in paths:
            for name, state in _list_files(path):
                files, size_bytes = files + 1, size_bytes + state.st_size
                digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
            digest.update(b"\n")
        return cls(files=files, size_bytes=size_bytes, digest=digest.hexdigest())

    def describe(self) -> str:
        """Returns number and size of the files in words.

        >>> SourceState(files=1, size_bytes=2_000_000, digest="").describe()
        '1 file of 2 MB'
        """
        size = describe_memory(self.size_bytes)
        return f"{self.files} {'file' if self.files == 1 else 'files'} of {size}"


def _list_files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yields the files of a folder by their relative paths, or the one file, in a fixed order."""
    if not path.is_dir():
        yield path.name, path.stat()
        return
    for folder, folders, files in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(files):
            file = Path(folder) / name
            if file.exists():
                yield file.relative_to(path).as_posix(), file.stat()


class ImportOptions(BaseModel):
    """Options of `import_dataset`; each is as there, and paths are absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str | None = None
    name: str | None = None
    link: bool = False
    geometry: str = "own"
    series: str | None = None
    channels: tuple[str, ...] = ()
    resample_tilt: bool = False


class RunOptions(BaseModel):
    """Options of the steps that follow: of planning, of preprocessing and of training; each is as there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    configurations: tuple[ConfigurationName, ...] = ()
    memory: str | None = None
    preset: PresetName | None = None
    groups: str | None = None
    splits: str | None = None
    skip: tuple[str, ...] = ()
    epochs: int | None = None
    budget: str | None = None

    def updated(self, options: "RunOptions") -> "RunOptions":
        """Returns these options with those that were given now; a length of training replaces the other one.

        >>> RunOptions(preset="small", epochs=5).updated(RunOptions(budget="2h")).model_dump(exclude_defaults=True)
        {'preset': 'small', 'budget': '2h'}
        """
        changes: dict[str, Any] = options.model_dump(exclude_defaults=True)
        for pair in (("epochs", "budget"), ("memory", "preset")):
            if any(name in changes for name in pair):
                changes = {**dict.fromkeys(pair), **changes}
        return self.model_copy(update=changes)


class RunRecord(Artifact):
    """The content of run.json.

    Attributes:
        source: Path of the source; None if the dataset was there before.
        source_state: Its files when it was imported.
        importing: How it was imported.
        dataset: Name of the dataset, once it is imported.
        checked: Digest of the raw files that the fingerprint was taken of.
        options: What was asked for so far.
    """

    source: str | None = None
    source_state: SourceState | None = None
    importing: ImportOptions = ImportOptions()
    dataset: str | None = None
    checked: str | None = None
    options: RunOptions = RunOptions()

    @property
    def source_paths(self) -> list[Path]:
        """The source, and the folder of masks beside it."""
        return [Path(path) for path in (self.source, self.importing.labels) if path is not None]

    def with_source(self, source: Path, importing: ImportOptions) -> "RunRecord":
        """Returns the record with a source, which must be the one that was imported, if one was.

        Raises:
            UsageError: The source does not exist, has changed since it was imported, is another one, or is to be
                imported otherwise now.
        """
        given = importing.model_dump(exclude_defaults=True)
        importing = importing if self.dataset is None else self.importing.model_copy(update=given)
        asked = self.model_copy(update={"source": str(source.absolute()), "importing": importing})
        for path in asked.source_paths:
            if not path.exists():
                raise UsageError(f"{path} does not exist", "check the path")
        asked = asked.model_copy(update={"source_state": SourceState.of(asked.source_paths)})
        if self.dataset is None or self.source_state is None or asked.source_state is None:
            return asked
        fix = "leave SOURCE out to go on with what was imported, or import it under another number with -d"
        if importing != self.importing:
            names = [f"--{name.replace('_', '-')}" for name in given if given[name] != getattr(self.importing, name)]
            raise UsageError(f"{self.dataset} was imported with another {names[0]}", fix)
        if asked.source_state.digest == self.source_state.digest:
            return self
        before, now = self.source_state.describe(), asked.source_state.describe()
        if asked.source_paths != self.source_paths:
            raise UsageError(f"{self.dataset} was imported from {self.source}, and not from {source}", fix)
        counts = f"{before} then, {now} now" if before != now else f"{now}, with other sizes or times of change"
        raise UsageError(f"{source} has changed since {self.dataset} was imported from it ({counts})", fix)


def digest_raw_files(dataset: Dataset) -> str:
    """Returns a digest of all that a check of the dataset depends on: its files, dataset.json and this program."""
    digest = sha256(f"{__version__}\n{dataset.info.model_dump_json()}\n".encode())
    for case in dataset.cases:
        digest.update(f"{case.name}\0{state_of_files(case.files)}\n".encode(errors="surrogateescape"))
    for problem in dataset.problems:
        digest.update(f"{problem}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
