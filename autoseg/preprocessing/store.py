"""Preprocessed cases on disk: compressed in chunks, so that a patch is read without reading its case.

A case is one file, CASE.zip, in the folder of its configuration. Its parts are not compressed again:

    case.json          what the case was made from and how: a `CaseContent`
    image.b2nd         image, (c, z, y, x), float32, as a file of blosc2, as the following. Left out without channels
    label.b2nd         label map, (z, y, x)
    foreground.b2nd    indices of some foreground voxels, (n, 3)

Writing does not wait for the disk: a power cut may cost the cases of the last seconds, and the checksums tell which.

>>> import tempfile
>>> from autoseg.imaging.geometry import Geometry
>>> from autoseg.imaging.label_encoding import CaseLabels
>>> record = PreprocessRecord(
...     geometry=Geometry(shape=(1, 2, 2), spacing_mm=(1.0, 1.0, 1.0)),
...     axis_order=(0, 1, 2),
...     box=Box(start=(0, 0, 0), stop=(1, 2, 2)),
...     shape=(1, 2, 2),
...     spacing_mm=(1.0, 1.0, 1.0),
... )
>>> image, label = np.ones((1, 1, 2, 2), np.float32), CaseLabels(np.array([[[0, 0], [0, 1]]], np.int8))
>>> with tempfile.TemporaryDirectory() as name:
...     folder = Path(name)
...     save_case(folder, "liver_1", PreprocessedCase(image=image, label=label, record=record), patch_size=(2, 2))
...     stored = StoredCase.open(folder, "liver_1")
...     stored.load_label().tolist(), stored.load_foreground().voxels.tolist()
([[[0, 0], [0, 1]]], [[0, 1, 1]])
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ArtifactError, ProblemsError
from autoseg.imaging.geometry import Box, Shape
from autoseg.imaging.label_encoding import StoredLabels
from autoseg.preprocessing.archive import (
    AGAIN,
    DAMAGE,
    PartLocation,
    compress,
    compress_voxels,
    is_whole,
    open_array,
    read_part,
    write_archive,
)
from autoseg.preprocessing.case import PreprocessedCase, PreprocessRecord
from autoseg.preprocessing.foreground import Foreground, sample_foreground
from autoseg.preprocessing.provenance import CaseContent, Provenance
from autoseg.runtime.artifact import atomic_file

FOREGROUND_CHUNK = 4096  # Voxels per chunk. Decision: one is read at a time, for which 48 KiB are decompressed

MEMORY_FOR_CASES_BYTES = 4 * 10**9
"""Training holds whole cases in memory if all of them fit. Decision: half the memory of a small laptop."""

ENDING = ".zip"
HALF_WRITTEN = ".writing_"  # Prefix of the name of a file that is being written, see `atomic_file`
CONTENT, IMAGE, LABEL, FOREGROUND = "case.json", "image.b2nd", "label.b2nd", "foreground.b2nd"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCase:
    """A case on disk. No file stays open, so any number of cases can be held, and sent to other processes.

    Attributes:
        path: Path of its file.
        content: Its case.json.
        parts: Locations of the parts in the file, by name.
        nbytes: Memory that image and label map take when they are loaded.
    """

    path: Path
    content: CaseContent
    parts: dict[str, PartLocation]
    nbytes: int

    @classmethod
    def open(cls, folder: Path, name: str) -> "StoredCase":
        """Opens a case that `save_case` wrote.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        path = _path(folder, name)
        try:
            text, parts = read_part(path, CONTENT)
            content = CaseContent.parse(text.decode(), source=f"{CONTENT} in {path}")
            array_names = (IMAGE, LABEL) if content.channels else (LABEL,)
            arrays = [open_array(path, parts[array_name], content.record.shape) for array_name in array_names]
            open_array(path, parts[FOREGROUND], content.foreground_shape)
        except DAMAGE as error:
            raise _damaged(path) from error
        except ArtifactError as error:
            raise ArtifactError(error.what, AGAIN) from error
        nbytes = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)
        return cls(path=path, content=content, parts=parts, nbytes=nbytes)

    def verify(self) -> None:
        """Reads the file and compares all parts with their checksums.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        if not is_whole(self.path):
            raise _damaged(self.path)

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.path.name.removesuffix(ENDING)

    @property
    def record(self) -> PreprocessRecord:
        """How the case was made, for the way back."""
        return self.content.record

    @property
    def shape(self) -> Shape:
        """Number of voxels along (z, y, x)."""
        return self.content.record.shape

    @property
    def missing_channels(self) -> tuple[int, ...]:
        """Channels that the scan lacks."""
        return self.content.record.missing_channels

    @property
    def foreground(self) -> Foreground:
        """Some voxels of the foreground; they stay on disk, because those of all cases would fill the memory.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        try:
            voxels = open_array(self.path, self.parts[FOREGROUND], self.content.foreground_shape)
        except DAMAGE as error:
            raise _damaged(self.path) from error
        return replace(self._described, voxels=voxels)

    def read(self, box: Box) -> tuple[NDArray[np.float32], StoredLabels]:
        """Reads a part of the case.

        Args:
            box: A box that lies within the case; it may be empty.

        Returns:
            Image (c, *box.shape), float32, and label map (*box.shape); both new and writable.

        Raises:
            ArtifactError: The file is missing or damaged.
            ValueError: The box sticks out of the case.
        """
        edges = zip(box.start, box.stop, self.shape, strict=True)
        if not all(0 <= start <= stop <= size for start, stop, size in edges):
            raise ValueError(f"{box} does not lie inside the shape {self.shape} of case {self.name!r}")
        try:
            return self._read(IMAGE, box), self._read_label(box)
        except DAMAGE as error:
            raise _damaged(self.path) from error

    def _read(self, part: str, box: Box) -> NDArray[Any]:
        if part == IMAGE and not self.content.channels:
            return np.zeros((0, *box.shape), dtype=np.float32)
        return np.asarray(open_array(self.path, self.parts[part], self.shape)[(..., *box.slices)])

    def _read_label(self, box: Box) -> StoredLabels:
        return cast(StoredLabels, self._read(LABEL, box))

    def load(self) -> tuple[NDArray[np.float32], StoredLabels]:
        """Reads the whole image and label map; it raises the errors of `read`."""
        return self.read(Box(start=(0, 0, 0), stop=self.shape))

    def load_label(self) -> StoredLabels:
        """Reads the whole label map; it raises the errors of `read`."""
        try:
            return self._read_label(Box(start=(0, 0, 0), stop=self.shape))
        except DAMAGE as error:
            raise _damaged(self.path) from error

    def load_foreground(self) -> Foreground:
        """Returns `foreground` in memory; it raises the same errors."""
        try:
            return replace(self._described, voxels=np.asarray(self.foreground.voxels[:]))
        except DAMAGE as error:
            raise _damaged(self.path) from error

    @property
    def _described(self) -> Foreground:
        """The foreground without its voxels."""
        return Foreground(counts=self.content.foreground, labelled=self.content.labelled, voxels=None)


def save_case(
    folder: Path,
    name: str,
    case: PreprocessedCase,
    *,
    patch_size: tuple[int, ...],
    provenance: Provenance | None = None,
) -> None:
    """Writes a case whole or not at all; an older file of the case is replaced.

    Args:
        folder: Folder of the configuration; it is made if it is missing.
        name: Name of the case.
        case: The case, with a label map.
        patch_size: Patch size of the configuration, (z, y, x) or (y, x): arrays are cut into chunks of about this size.
        provenance: What the voxels depend on; its settings say of which structures voxels are listed.

    Raises:
        ArtifactError: The folder cannot be written, for example because the disk is full.
        ValueError: The case has no label map.
    """
    if case.label is None:
        raise ValueError(f"case {name!r} has no label map; only labelled cases are stored")
    label = case.label

    def make_parts() -> Iterator[tuple[str, bytes]]:
        structures, ignore = (provenance.recipe.structures, provenance.recipe.ignore) if provenance else (None, None)
        foreground = sample_foreground(label, structures, ignore)
        content = CaseContent(
            origin=provenance,
            record=case.record,
            channels=len(case.image),
            foreground=foreground.counts,
            labelled=foreground.labelled,
        )
        yield CONTENT, content.model_dump_json(indent=2).encode()
        if len(case.image):
            yield IMAGE, compress_voxels(case.image, patch_size)
        yield LABEL, compress_voxels(label, patch_size)
        yield FOREGROUND, compress(foreground.voxels, (FOREGROUND_CHUNK, 3), (FOREGROUND_CHUNK, 3))

    path = _path(folder, name)
    with atomic_file(path, durable=False) as writing:
        write_archive(writing, make_parts())
        path.unlink(missing_ok=True)  # replacing a file would make the system wait for the disk


def is_up_to_date(folder: Path, name: str, provenance: Provenance) -> bool:
    """Returns whether a case is stored, whole to the last bit, and of this provenance."""
    try:
        return StoredCase.open(folder, name).content.origin == provenance and is_whole(_path(folder, name))
    except ArtifactError:
        return False


def is_stored(folder: Path, name: str) -> bool:
    """Returns whether a file of the case exists, be it damaged or not."""
    return _path(folder, name).is_file()


def open_stored(folder: Path, names: Iterable[str]) -> dict[str, StoredCase]:
    """Opens many cases by name.

    Raises:
        ProblemsError: Some are missing or damaged; one line for each.
    """
    cases, problems = {}, []
    for name in sorted(names):
        try:
            cases[name] = StoredCase.open(folder, name)
        except ArtifactError as error:
            problems.append(str(error))
    if problems:
        raise ProblemsError(problems)
    return cases


def list_unused_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """Returns the files of a folder that belong to none of these cases, or were left half-written."""
    used = {_path(folder, name) for name in names}
    return [
        path
        for path in sorted(folder.iterdir())
        if path not in used and (path.name.endswith(ENDING) or path.name.startswith(HALF_WRITTEN))
    ]


def _path(folder: Path, name: str) -> Path:
    return folder / (name + ENDING)


def _damaged(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is missing, damaged or cut off", AGAIN)
