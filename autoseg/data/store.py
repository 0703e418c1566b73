"""Preprocessed cases on disk: compressed in chunks, so that a patch is read without reading its case.

A case has four files in the folder of its configuration; the record comes last, so a case that has it is complete.

    CASE_image.b2nd         image, (c, z, y, x), float32
    CASE_label.b2nd         label map, (z, y, x)
    CASE_foreground.npz     where its foreground is
    CASE.json               how it was made: a `PreprocessRecord`
"""

import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from autoseg.artifact import atomic_file
from autoseg.errors import ArtifactError, ProblemsError
from autoseg.geometry import Box, Shape
from autoseg.preprocessing.case import PreprocessedCase, PreprocessRecord

# Voxels per label whose places are kept. Source: the reference method.
FOREGROUND_VOXELS = 10_000
FOREGROUND_SHARE = 0.01
FOREGROUND_SEED = 1234

# Level 1 of Zstandard wrote a smooth volume with noise five times as fast as LZ4HC, the reference's choice, in a little
# less space, and reading a patch took about as long.
CODEC = blosc2.Codec.ZSTD
LEVEL = 1
BLOCK_EDGE = {2: 128, 3: 32}  # Voxels, by dimension. Decision: 64 or 128 KiB fit into the cache, and waste little

DAMAGED = "run 'autoseg preprocess' again"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCase:
    """A case on disk. No file stays open, so any number of cases can be held, and sent to other processes.

    Attributes:
        folder: Of the configuration.
        name: Of the case.
        record: How it was made.
        nbytes: Memory that image and label map take when they are loaded.
    """

    folder: Path
    name: str
    record: PreprocessRecord
    nbytes: int

    @classmethod
    def open(cls, folder: Path, name: str) -> "StoredCase":
        """Finds a case that `save_case` wrote.

        Raises:
            ArtifactError: A file of the case is missing or damaged.
        """
        paths = _Paths(folder, name)
        for path in (paths.record, paths.foreground):
            if not path.is_file():
                raise ArtifactError(f"{path} is missing", DAMAGED)
        try:
            record = PreprocessRecord.load(paths.record)
        except ArtifactError as error:
            raise ArtifactError(error.what, DAMAGED) from error
        image, label = (_open_array(path, record.shape) for path in (paths.image, paths.label))
        nbytes = math.prod(image.shape) * image.dtype.itemsize + math.prod(label.shape) * label.dtype.itemsize
        return cls(folder=folder, name=name, record=record, nbytes=nbytes)

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
        return _read_foreground(_Paths(self.folder, self.name).foreground)

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
        paths = _Paths(self.folder, self.name)
        return _read_array(paths.image, box, self.shape), _read_array(paths.label, box, self.shape)

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the whole image and label map; see `read`."""
        return self.read(Box(start=(0, 0, 0), stop=self.shape))


def save_case(folder: Path, name: str, case: PreprocessedCase, *, patch_size: tuple[int, ...]) -> None:
    """Writes a case.

    Args:
        folder: Of the configuration; made if it is missing.
        name: Of the case.
        case: With a label map.
        patch_size: Of the configuration, (z, y, x) or (y, x): files are cut into chunks of about this size.

    Raises:
        ArtifactError: The folder cannot be written, for example because the disk is full.
        ValueError: The case has no label map.
    """
    if case.label is None:
        raise ValueError(f"case {name!r} has no label map; only labelled cases are stored")
    paths = _Paths(folder, name)
    _write_array(paths.image, case.image, patch_size)
    _write_array(paths.label, case.label, patch_size)
    _write_foreground(paths.foreground, sample_foreground(case.label))
    case.record.save(paths.record)


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


def sample_foreground(label: NDArray[np.integer]) -> dict[int, NDArray[np.int32]]:
    """Draws voxels of each label above 0, evenly and each at most once.

    Source of the numbers: the reference method. All voxels of a label up to `FOREGROUND_VOXELS`, else that many or
    `FOREGROUND_SHARE` of them, whichever is more.

    Args:
        label: Shape (z, y, x).

    Returns:
        Label to places, shape (n, 3), in random order; labels that do not occur are left out.
    """
    random = np.random.default_rng(FOREGROUND_SEED)
    places = np.flatnonzero(label > 0)
    values = label.ravel()[places]
    places = places[np.argsort(values, kind="stable")]
    found, counts = np.unique(values, return_counts=True)
    ends = np.cumsum(counts)
    result = {}
    for value, start, end in zip(found, ends - counts, ends, strict=True):
        group = places[start:end]
        kept = min(len(group), max(FOREGROUND_VOXELS, math.ceil(FOREGROUND_SHARE * len(group))))
        drawn = random.choice(group, size=kept, replace=False)
        result[int(value)] = np.stack(np.unravel_index(drawn, label.shape), axis=1).astype(np.int32)
    return result


class _Paths:
    """The files of a case. Each kind has its own ending, so no two cases share a file, whatever their names."""

    def __init__(self, folder: Path, name: str) -> None:
        self.image = folder / f"{name}_image.b2nd"
        self.label = folder / f"{name}_label.b2nd"
        self.foreground = folder / f"{name}_foreground.npz"
        self.record = folder / f"{name}.json"


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
    with atomic_file(path) as writing:
        writing.write_bytes(compressed.to_cframe())


def _open_array(path: Path, shape: Shape) -> Any:
    """Opens a file of `_write_array` whose last axes must be `shape`."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", DAMAGED)
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
        fits = array.shape[-3:] == shape
    except (RuntimeError, OSError, ValueError, AttributeError) as error:
        raise _damaged(path) from error
    if not fits:
        raise ArtifactError(f"{path} has shape {array.shape[-3:]}, its record says {shape}", DAMAGED)
    return array


def _read_array(path: Path, box: Box, shape: Shape) -> NDArray[Any]:
    array = _open_array(path, shape)
    try:
        part = array[(..., *box.slices)]
    except (RuntimeError, OSError, ValueError) as error:
        raise _damaged(path) from error
    return np.asarray(part)


def _write_foreground(path: Path, foreground: dict[int, NDArray[np.int32]]) -> None:
    labels = np.fromiter(foreground, dtype=np.int32)
    counts = np.array([len(places) for places in foreground.values()], dtype=np.int64)
    places = np.concatenate([np.zeros((0, 3), dtype=np.int32), *foreground.values()])
    with atomic_file(path) as writing:
        np.savez(writing, labels=labels, counts=counts, places=places)


def _read_foreground(path: Path) -> dict[int, NDArray[np.int32]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            labels, counts, places = file["labels"], file["counts"], file["places"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path) from error
    ends = np.cumsum(counts)
    return {int(label): places[start:end] for label, start, end in zip(labels, ends - counts, ends, strict=True)}


def _damaged(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is missing, damaged or cut off", DAMAGED)
