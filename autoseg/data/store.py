"""Preprocessed cases on disk: compressed in chunks, so that a patch is read without reading its case.

A case has four files in the folder of its configuration; the last comes last, so a case that has it is complete.

    CASE_image.b2nd         image, (c, z, y, x), float32
    CASE_label.b2nd         label map, (z, y, x)
    CASE_foreground.npz     where its foreground is
    CASE.json               what it was made from and how, and the size and checksum of each file: a `CaseContent`

Nothing waits for the disk: a power cut may cost the cases of the last seconds, and the checksums tell which.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from autoseg.artifact import atomic_file
from autoseg.data.casefiles import AGAIN, CaseContent, CasePaths, damaged
from autoseg.data.foreground import DAMAGE, read_foreground, sample_foreground, write_foreground
from autoseg.data.origin import Origin
from autoseg.errors import ArtifactError, ProblemsError
from autoseg.geometry import Box, Shape
from autoseg.preprocessing.case import PreprocessedCase, PreprocessRecord

# Whatever its parameters say, blosc2 begins and ends threads for each chunk that it copies into a file, unless the
# environment forbids it: a case of 36 slices then takes 1.5 instead of 25 ms. It is asked anew at each call.
os.environ.setdefault("BLOSC_NTHREADS", "1")

# Decision: level 1 of Zstandard after shuffle makes the smallest files of what is written fast. LZ4 reads patches in
# 0.6 of the time, but takes a tenth more space for made-up CT and a quarter to a half more for real MR; LZ4HC, which
# the reference chose, takes six times as long to write. See tests/benchmarks/store.py.
CODEC = blosc2.Codec.ZSTD
LEVEL = 1
BLOCK_EDGE = {2: 128, 3: 32}  # Voxels, by dimension. Decision: 64 or 128 KiB fit into the cache, and waste little


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCase:
    """A case on disk. No file stays open, so any number of cases can be held, and sent to other processes.

    Attributes:
        folder: Of the configuration.
        name: Of the case.
        record: How it was made.
        origin: What it was made from; None if its maker did not say.
        nbytes: Memory that image and label map take when they are loaded.
    """

    folder: Path
    name: str
    record: PreprocessRecord
    origin: Origin | None
    nbytes: int

    @classmethod
    def open(cls, folder: Path, name: str) -> "StoredCase":
        """Finds a case that `save_case` wrote.

        Raises:
            ArtifactError: A file of the case is missing or damaged.
        """
        paths = CasePaths.of(folder, name)
        content = paths.load()
        shape = content.record.shape
        image, label = (_open_array(path, shape) for path in (paths.image, paths.label))
        nbytes = math.prod(image.shape) * image.dtype.itemsize + math.prod(label.shape) * label.dtype.itemsize
        return cls(folder=folder, name=name, record=content.record, origin=content.origin, nbytes=nbytes)

    def verify(self) -> None:
        """Reads all files of the case and compares them with their checksums.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        CasePaths.of(self.folder, self.name).verify()

    @property
    def shape(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self.record.shape

    @property
    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Label to some of its voxels, shape (n, 3), in random order; labels that do not occur are left out.

        Read from disk each time: kept for all cases, it would fill the memory.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        path = CasePaths.of(self.folder, self.name).foreground
        try:
            return read_foreground(path)
        except DAMAGE as error:
            raise damaged(path) from error

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads a part of the case.

        Args:
            box: Lies within the case; may be empty.

        Returns:
            Image (c, *box.shape), float32, and label map (*box.shape); both new and writable.

        Raises:
            ArtifactError: A file is missing or damaged.
            ValueError: The box sticks out of the case.
        """
        edges = zip(box.start, box.stop, self.shape, strict=True)
        if not all(0 <= start <= stop <= size for start, stop, size in edges):
            raise ValueError(f"{box} does not lie inside the shape {self.shape} of case {self.name!r}")
        paths = CasePaths.of(self.folder, self.name)
        return _read_array(paths.image, box, self.shape), _read_array(paths.label, box, self.shape)

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the whole image and label map; see `read`."""
        return self.read(Box(start=(0, 0, 0), stop=self.shape))


def save_case(
    folder: Path,
    name: str,
    case: PreprocessedCase,
    *,
    patch_size: tuple[int, ...],
    origin: Origin | None = None,
) -> None:
    """Writes a case whole or not at all, in the place of an older one.

    Args:
        folder: Of the configuration; made if it is missing.
        name: Of the case.
        case: With a label map.
        patch_size: Of the configuration, (z, y, x) or (y, x): files are cut into chunks of about this size.
        origin: What the case was made from.

    Raises:
        ArtifactError: The folder cannot be written, for example because the disk is full.
        ValueError: The case has no label map.
    """
    if case.label is None:
        raise ValueError(f"case {name!r} has no label map; only labelled cases are stored")
    paths = CasePaths.of(folder, name)
    with (  # all are written before any takes its place; the last to do so is the first here
        atomic_file(paths.content, durable=False) as content,
        atomic_file(paths.foreground, durable=False) as foreground,
        atomic_file(paths.label, durable=False) as label,
        atomic_file(paths.image, durable=False) as image,
    ):
        _write_array(image, case.image, patch_size)
        _write_array(label, case.label, patch_size)
        write_foreground(foreground, sample_foreground(case.label))
        written = CasePaths(image=image, label=label, foreground=foreground, content=content)
        made = CaseContent.seal(written, origin, case.record)
        content.write_text(made.to_json(), encoding="utf-8", newline="\n")
        for path in reversed(paths):  # what stands there is of no use any more, and a system that replaces it waits
            path.unlink(missing_ok=True)


def is_sound(folder: Path, name: str, origin: Origin) -> bool:
    """Whether a case is there, whole to the last bit, and of this origin."""
    paths = CasePaths.of(folder, name)
    try:
        if paths.load().origin != origin:
            return False
        paths.verify()
    except ArtifactError:
        return False
    return True


def is_stored(folder: Path, name: str) -> bool:
    """Whether a case was written to its end, whatever became of it since."""
    return CasePaths.of(folder, name).content.is_file()


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


def _write_array(path: Path, array: NDArray[Any], patch_size: tuple[int, ...]) -> None:
    """Compresses in memory and writes in one go, so that a full disk is an OSError."""
    leading = (1,) * (array.ndim - len(patch_size))
    chunks = tuple(map(min, (*leading, *patch_size), array.shape))
    several_bytes = array.dtype.itemsize > 1
    compressed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=chunks,
        blocks=tuple(min(size, BLOCK_EDGE[len(patch_size)]) for size in chunks),
        cparams={
            "codec": CODEC,
            "clevel": LEVEL,
            "nthreads": 1,  # cases are written, and patches read, by several threads already
            "filters": [blosc2.Filter.SHUFFLE if several_bytes else blosc2.Filter.NOFILTER],
            "filters_meta": [0],
        },
    )
    path.write_bytes(compressed.to_cframe())


def _open_array(path: Path, shape: Shape) -> Any:
    """Opens a file of `_write_array` whose last axes must be `shape`."""
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
        fits = array.shape[-3:] == shape
    except (RuntimeError, OSError, ValueError, AttributeError) as error:
        raise damaged(path) from error
    if not fits:
        raise ArtifactError(f"{path} has shape {array.shape[-3:]}, its record says {shape}", AGAIN)
    return array


def _read_array(path: Path, box: Box, shape: Shape) -> NDArray[Any]:
    array = _open_array(path, shape)
    try:
        part = array[(..., *box.slices)]
    except (RuntimeError, OSError, ValueError) as error:
        raise damaged(path) from error
    return np.asarray(part)
