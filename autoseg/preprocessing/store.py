"""Preprocessed cases on disk: compressed in chunks, so that a patch is read without reading its case.

A case is one file, CASE.zip, in the folder of its configuration. Its parts are not compressed again:

    case.json          what it was made from and how: a `CaseContent`
    image.b2nd         image, (c, z, y, x), float32, as blosc2 writes it; so are the others. Left out without channels
    label.b2nd         label map, (z, y, x)
    foreground.b2nd    where some of its foreground is, (n, 3)

Nothing waits for the disk: a power cut may cost the cases of the last seconds, and the checksums tell which.
"""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import blosc2
import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ArtifactError, ProblemsError
from autoseg.imaging.geometry import Box, Shape
from autoseg.imaging.label_encoding import StoredLabels
from autoseg.preprocessing.archive import (
    DAMAGE,
    PartLocation,
    compress,
    compress_voxels,
    is_whole,
    read_part,
    write_archive,
)
from autoseg.preprocessing.case import PreprocessedCase, PreprocessRecord
from autoseg.preprocessing.foreground import Foreground, sample_foreground
from autoseg.preprocessing.provenance import Provenance
from autoseg.runtime.artifact import Artifact, atomic_file

# Whatever its parameters say, blosc2 begins and ends threads for each chunk that it copies into a file, unless the
# environment forbids it: a case of 36 slices then takes 1.5 instead of 25 ms. It is asked anew at each call.
os.environ.setdefault("BLOSC_NTHREADS", "1")

PLACES_PER_CHUNK = 4096  # Of the foreground. Decision: one is read at a time, 48 KiB are decompressed for it

MEMORY_FOR_CASES_BYTES = 4 * 10**9
"""Training holds cases in memory whole if all of them fit. Decision: half the memory of a small laptop."""

ENDING = ".zip"
HALF_WRITTEN = ".writing_"  # Begins the name of a file that has not taken its place, see `atomic_file`
CONTENT, IMAGE, LABEL, FOREGROUND = "case.json", "image.b2nd", "label.b2nd", "foreground.b2nd"

AGAIN = "run 'autoseg preprocess' again"


class CaseContent(Artifact):
    """case.json.

    Attributes:
        origin: What the case was made from; None if its maker did not say.
        record: How it was made, for the way back.
        channels: Of the image; none if only a label map is kept.
        foreground: How many voxels of each structure are listed; see `Foreground`.
        labelled: How many of all that was labelled.
    """

    format_version: int = 3  # 2 had a file for each part

    origin: Provenance | None
    record: PreprocessRecord
    channels: int
    foreground: tuple[int, ...]
    labelled: int

    @property
    def foreground_shape(self) -> tuple[int, int]:
        """Of the list of voxels."""
        return sum(self.foreground) + self.labelled, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCase:
    """A case on disk. No file stays open, so any number of cases can be held, and sent to other processes.

    Attributes:
        path: Of its file.
        content: What it says of itself.
        places: Of the parts, by name.
        nbytes: Memory that image and label map take when they are loaded.
    """

    path: Path
    content: CaseContent
    places: dict[str, PartLocation]
    nbytes: int

    @classmethod
    def open(cls, folder: Path, name: str) -> "StoredCase":
        """Finds a case that `save_case` wrote.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        path = _path(folder, name)
        try:
            text, places = read_part(path, CONTENT)
            content = CaseContent.parse(text.decode(), source=f"{CONTENT} in {path}")
            parts = (IMAGE, LABEL) if content.channels else (LABEL,)
            arrays = [_open_array(path, places[part], content.record.shape) for part in parts]
            _open_array(path, places[FOREGROUND], content.foreground_shape)
        except DAMAGE as error:
            raise _damaged(path) from error
        except ArtifactError as error:
            raise ArtifactError(error.what, AGAIN) from error
        nbytes = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)
        return cls(path=path, content=content, places=places, nbytes=nbytes)

    def verify(self) -> None:
        """Reads the file and compares all parts with their checksums.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        if not is_whole(self.path):
            raise _damaged(self.path)

    @property
    def name(self) -> str:
        """Of the case."""
        return self.path.name.removesuffix(ENDING)

    @property
    def record(self) -> PreprocessRecord:
        """How it was made."""
        return self.content.record

    @property
    def shape(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self.content.record.shape

    @property
    def foreground(self) -> Foreground:
        """Where some of its foreground is; on disk, because that of all cases would fill the memory.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        try:
            places = _open_array(self.path, self.places[FOREGROUND], self.content.foreground_shape)
        except DAMAGE as error:
            raise _damaged(self.path) from error
        return replace(self._described, places=places)

    def read(self, box: Box) -> tuple[NDArray[np.float32], StoredLabels]:
        """Reads a part of the case.

        Args:
            box: Lies within the case; may be empty.

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
        return np.asarray(_open_array(self.path, self.places[part], self.shape)[(..., *box.slices)])

    def _read_label(self, box: Box) -> StoredLabels:
        return cast(StoredLabels, self._read(LABEL, box))

    def load(self) -> tuple[NDArray[np.float32], StoredLabels]:
        """Reads the whole image and label map; see `read`."""
        return self.read(Box(start=(0, 0, 0), stop=self.shape))

    def load_label(self) -> StoredLabels:
        """Reads the whole label map; errors as of `read`."""
        try:
            return self._read_label(Box(start=(0, 0, 0), stop=self.shape))
        except DAMAGE as error:
            raise _damaged(self.path) from error

    def load_foreground(self) -> Foreground:
        """The same as `foreground`, in memory."""
        try:
            return replace(self._described, places=np.asarray(self.foreground.places[:]))
        except DAMAGE as error:
            raise _damaged(self.path) from error

    @property
    def _described(self) -> Foreground:
        """Its foreground without the places."""
        return Foreground(counts=self.content.foreground, labelled=self.content.labelled, places=None)


def save_case(
    folder: Path,
    name: str,
    case: PreprocessedCase,
    *,
    patch_size: tuple[int, ...],
    origin: Provenance | None = None,
) -> None:
    """Writes a case whole or not at all, in the place of an older one.

    Args:
        folder: Of the configuration; made if it is missing.
        name: Of the case.
        case: With a label map.
        patch_size: Of the configuration, (z, y, x) or (y, x): arrays are cut into chunks of about this size.
        origin: What the case was made from; says of which structures voxels are listed.

    Raises:
        ArtifactError: The folder cannot be written, for example because the disk is full.
        ValueError: The case has no label map.
    """
    if case.label is None:
        raise ValueError(f"case {name!r} has no label map; only labelled cases are stored")
    label = case.label

    def make_parts() -> Iterator[tuple[str, bytes]]:
        structures, ignore = (origin.recipe.structures, origin.recipe.ignore) if origin else (None, None)
        foreground = sample_foreground(label, structures, ignore)
        content = CaseContent(
            origin=origin,
            record=case.record,
            channels=len(case.image),
            foreground=foreground.counts,
            labelled=foreground.labelled,
        )
        yield CONTENT, content.model_dump_json(indent=2).encode()
        if len(case.image):
            yield IMAGE, compress_voxels(case.image, patch_size)
        yield LABEL, compress_voxels(label, patch_size)
        yield FOREGROUND, compress(foreground.places, (PLACES_PER_CHUNK, 3), (PLACES_PER_CHUNK, 3))

    path = _path(folder, name)
    with atomic_file(path, durable=False) as writing:
        write_archive(writing, make_parts())
        path.unlink(missing_ok=True)  # it is of no use any more, and a system that replaces a file waits for the disk


def is_up_to_date(folder: Path, name: str, origin: Provenance) -> bool:
    """Whether a case is there, whole to the last bit, and of this origin."""
    try:
        return StoredCase.open(folder, name).content.origin == origin and is_whole(_path(folder, name))
    except ArtifactError:
        return False


def is_stored(folder: Path, name: str) -> bool:
    """Whether a case was written, whatever became of it since."""
    return _path(folder, name).is_file()


def open_stored(folder: Path, names: Iterable[str]) -> dict[str, StoredCase]:
    """Finds many cases by name.

    Raises:
        ProblemsError: Some are missing or damaged; each has its line.
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
    """Files of a folder that belong to other cases than these, or were left half-written."""
    kept = {_path(folder, name) for name in names}
    return [
        path
        for path in sorted(folder.iterdir())
        if path not in kept and (path.name.endswith(ENDING) or path.name.startswith(HALF_WRITTEN))
    ]


def _path(folder: Path, name: str) -> Path:
    return folder / (name + ENDING)


def _damaged(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is missing, damaged or cut off", AGAIN)


def _open_array(path: Path, place: PartLocation, shape: tuple[int, ...]) -> Any:
    """Opens an array inside a file whose last axes must be `shape`; raises one of `DAMAGE` if there is none."""
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", offset=place.start, dparams={"nthreads": 1})
        found = array.shape
    except AttributeError as error:
        raise ValueError("what stands there is no array") from error
    if found[-len(shape) :] != shape:
        raise ArtifactError(f"{path} holds an array of shape {found}, its record says {shape}", AGAIN)
    return array
