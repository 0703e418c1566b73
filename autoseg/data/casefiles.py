"""The files of a preprocessed case, and what each must hold; so that damage is found and named."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

from pydantic import BaseModel, ConfigDict, model_validator

from autoseg.artifact import Artifact
from autoseg.data.origin import Origin
from autoseg.errors import ArtifactError
from autoseg.preprocessing.case import PreprocessRecord

ENDINGS = ("_image.b2nd", "_label.b2nd", "_foreground.npz", ".json")
HALF_WRITTEN = ".writing_"  # Begins the name of a file that has not taken its place, see `atomic_file`

READ_BYTES = 2**20  # At once. Decision: little memory, and no slower than more

AGAIN = "run 'autoseg preprocess' again"


class FileContent(BaseModel):
    """What a file must hold: its size, and its CRC-32, which finds damage ten times as fast as a disk reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    crc32: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Reads a file once.

        Raises:
            ArtifactError: The file is missing, or cannot be read.
        """
        size = checksum = 0
        try:
            with path.open("rb") as file:
                while block := file.read(READ_BYTES):
                    size += len(block)
                    checksum = crc32(block, checksum)
        except OSError as error:
            raise damaged(path) from error
        return cls(size_bytes=size, crc32=checksum)


class CaseContent(Artifact):
    """CASE.json.

    Attributes:
        origin: What the case was made from; None if its maker did not say.
        image, label, foreground: What these files hold.
        record: How it was made, for the way back.
        own_crc32: Of all that, so that damage to this file is found as well.
    """

    format_version: int = 2  # 1 was the record alone

    origin: Origin | None
    image: FileContent
    label: FileContent
    foreground: FileContent
    record: PreprocessRecord
    own_crc32: int

    @classmethod
    def seal(cls, paths: "CasePaths", origin: Origin | None, record: PreprocessRecord) -> Self:
        """Describes files that were just written."""
        image, label, foreground = (FileContent.of(path) for path in (paths.image, paths.label, paths.foreground))
        content = cls.model_construct(
            origin=origin, image=image, label=label, foreground=foreground, record=record, own_crc32=0
        )
        return content.model_copy(update={"own_crc32": content._checksum()})

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.own_crc32 != self._checksum():
            raise ValueError("it does not hold what was written")
        return self

    def _checksum(self) -> int:
        return crc32(self.model_dump_json(exclude={"own_crc32"}).encode())


class CasePaths(NamedTuple):
    """The files of a case. Each kind has its own ending, so no two cases share a file, whatever their names."""

    image: Path
    label: Path
    foreground: Path
    content: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> "CasePaths":
        """The files of a case of this name."""
        return cls(*(folder / (name + ending) for ending in ENDINGS))

    def load(self) -> CaseContent:
        """Reads what the files must hold, and makes sure that they are there and as long as they must be.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        if not self.content.is_file():
            raise ArtifactError(f"{self.content} is missing", AGAIN)
        try:
            content = CaseContent.load(self.content)
        except ArtifactError as error:
            raise ArtifactError(error.what, AGAIN) from error
        for path, expected in self._pair(content):
            if not path.is_file():
                raise ArtifactError(f"{path} is missing", AGAIN)
            if path.stat().st_size != expected.size_bytes:
                raise damaged(path)
        return content

    def verify(self) -> None:
        """Reads all files and compares them with their checksums.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        for path, expected in self._pair(self.load()):
            if FileContent.of(path) != expected:
                raise damaged(path)

    def _pair(self, content: CaseContent) -> tuple[tuple[Path, FileContent], ...]:
        return (self.image, content.image), (self.label, content.label), (self.foreground, content.foreground)


def damaged(path: Path) -> ArtifactError:
    """The error about a file that does not hold what it must."""
    return ArtifactError(f"{path} is missing, damaged or cut off", AGAIN)


def files_of_others(folder: Path, names: Iterable[str]) -> list[Path]:
    """Files of a folder that belong to other cases than these, or were left half-written."""
    kept = {path for name in names for path in CasePaths.of(folder, name)}
    return [
        path
        for path in sorted(folder.iterdir())
        if path not in kept and (path.name.endswith(ENDINGS) or path.name.startswith(HALF_WRITTEN))
    ]
