"""The predictions of a teacher on the grid of its student: probabilities in one byte each, compressed.

A prediction is one file, CASE.zip, in the folder of its fold. Its parts are not compressed again:

    soft.json             what was predicted, by which model: a `SoftContent`
    probabilities.b2nd    probability of each structure, 0 to 255 for 0 to 1, (structures, z, y, x), as blosc2

The probability of the background is the rest. Most voxels are certain, and take next to no space.

>>> import tempfile
>>> maps = [np.array([[[0.0, 0.2, 1.0]]], np.float32)]
>>> with tempfile.TemporaryDirectory() as name:
...     content = SoftContent(teacher="d1ge57", case="e7", shape=(1, 1, 3), structures=1)
...     save_soft_prediction(Path(name), "liver_1", content, maps, patch_size=(1, 1, 3))
...     stored = SoftPrediction.open(Path(name), "liver_1")
...     stored.read(Box(start=(0, 0, 1), stop=(1, 1, 3))).tolist(), stored.content.teacher
([[[[0.20000000298023224, 1.0]]]], 'd1ge57')
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ArtifactError
from autoseg.imaging.geometry import Box, Shape
from autoseg.preprocessing.archive import (
    DAMAGE,
    PartLocation,
    compress_voxels,
    is_whole,
    open_array,
    read_part,
    write_archive,
)
from autoseg.runtime.artifact import Artifact, atomic_file

CONTENT, PROBABILITIES, ENDING = "soft.json", "probabilities.b2nd", ".zip"
CERTAIN = 255
"""What a probability of 1 is stored as. Decision: the rounding error of 0.002 is far below what a teacher knows."""
AGAIN = "run 'autoseg distil' again"


class SoftContent(Artifact):
    """Content of soft.json.

    Attributes:
        teacher: Digest of the model that predicted.
        case: Digest of the prepared case that was predicted.
        shape: Number of voxels (z, y, x).
        structures: Number of structures.
    """

    teacher: str
    case: str
    shape: Shape
    structures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftPrediction:
    """A prediction on disk, or in memory after `load`.

    Attributes:
        path: Path of its file.
        content: Its soft.json.
        part: Where the probabilities are in the file.
        values: The probabilities in memory, uint8; None if they are read from the file.
    """

    path: Path
    content: SoftContent
    part: PartLocation
    values: NDArray[np.uint8] | None = None

    @classmethod
    def open(cls, folder: Path, name: str) -> "SoftPrediction":
        """Opens a prediction that `save_soft_prediction` wrote.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        path = folder / (name + ENDING)
        try:
            text, parts = read_part(path, CONTENT)
            content = SoftContent.parse(text.decode(), source=f"{CONTENT} in {path}")
            open_array(path, parts[PROBABILITIES], (content.structures, *content.shape))
        except DAMAGE as error:
            raise ArtifactError(f"{path} is missing, damaged or cut off", AGAIN) from error
        except ArtifactError as error:
            raise ArtifactError(error.what, AGAIN) from error
        return cls(path=path, content=content, part=parts[PROBABILITIES])

    @property
    def structures(self) -> int:
        """Number of structures."""
        return self.content.structures

    @property
    def nbytes(self) -> int:
        """Memory that the probabilities take when they are loaded."""
        return self.content.structures * prod(self.content.shape)

    def load(self) -> "SoftPrediction":
        """Returns the prediction with its probabilities in memory; it raises the errors of `read`."""
        return replace(self, values=self.load_values())

    def load_values(self) -> NDArray[np.uint8]:
        """Reads all probabilities as stored, (structures, z, y, x), 0 to 255; it raises the errors of `read`."""
        return self._read(Box(start=(0, 0, 0), stop=self.content.shape))

    def read(self, box: Box) -> NDArray[np.float32]:
        """Reads the probabilities (structures, *box.shape), 0 to 1, inside a box that lies within the case.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        return self._read(box).astype(np.float32) / np.float32(CERTAIN)

    def _read(self, box: Box) -> NDArray[np.uint8]:
        if self.values is not None:
            return self.values[(slice(None), *box.slices)]
        try:
            array = open_array(self.path, self.part, (self.content.structures, *self.content.shape))
            return np.asarray(array[(slice(None), *box.slices)])
        except DAMAGE as error:
            raise ArtifactError(f"{self.path} is missing, damaged or cut off", AGAIN) from error


def save_soft_prediction(
    folder: Path,
    name: str,
    content: SoftContent,
    maps: Iterable[NDArray[np.float32]],
    *,
    patch_size: tuple[int, ...],
) -> None:
    """Writes a prediction whole or not at all; an older file of the case is replaced.

    Args:
        folder: Folder of the fold; it is made if it is missing.
        name: Name of the case.
        content: What was predicted.
        maps: Map (z, y, x) of each structure, 0 to 1; each may be made when it is asked for.
        patch_size: Patch size of the student, (z, y, x) or (y, x): arrays are cut into chunks of about this size.

    Raises:
        WriteError: The folder cannot be written, for example because the disk is full.
    """
    values = np.zeros((content.structures, *content.shape), dtype=np.uint8)
    for stored, map_of_structure in zip(values, maps, strict=True):
        np.rint(map_of_structure.clip(0, 1) * CERTAIN, out=stored, casting="unsafe")
    with atomic_file(folder / (name + ENDING), durable=False) as writing:
        compressed = compress_voxels(values, patch_size)
        write_archive(writing, [(CONTENT, content.model_dump_json(indent=2).encode()), (PROBABILITIES, compressed)])


def is_predicted(folder: Path, name: str, content: SoftContent) -> bool:
    """Returns whether a prediction of this content is stored, whole to the last bit."""
    try:
        return SoftPrediction.open(folder, name).content == content and is_whole(folder / (name + ENDING))
    except ArtifactError:
        return False
