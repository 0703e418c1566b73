"""Everything that is saved: typed JSON files with a version, and writes that happen whole or not at all."""

import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from autoseg.errors import ArtifactError, WriteError

NUMBERS = re.compile(r"\[\n([^\[\]{}\"]+)\n *\]")  # a list without lists, objects or texts in it, as json indents it

ABANDONED_SECONDS = 24 * 3600
"""A half-filled folder to which nothing was added for this long belongs to no running process. Decision: one day."""


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Gives a path to write to; on success the file takes the place of `path`, on failure nothing is left.

    The path keeps the ending of `path`, because image writers choose the format by it, and lies in the same folder. So
    taking the place is the last step, after which there is nothing to clear away, whenever Ctrl-C comes.

    Args:
        path: Final place of the file. Missing parent folders are made.
        durable: Wait until the disk holds the file. If not, a power cut soon after may leave it empty or cut off, so
            its reader must be able to tell.

    Raises:
        WriteError: The folder cannot be made or written, or the disk is full.
    """
    writing = path.with_name(f".writing_{token_hex(4)}_{path.name}")
    try:
        with _write_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _write_errors(path):
            yield writing
            if durable:
                with writing.open("r+b") as file:  # Windows flushes only what is open for writing
                    os.fsync(file.fileno())
            writing.replace(path)
    except Exception:
        with _write_errors(path.parent):
            writing.touch()  # may the folder be written at all? If not, the folder is to blame, not the file
        raise
    finally:
        if writing.parent.is_dir():
            writing.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; on success it takes the place of `path`, on failure `path` is as before.

    What a run that was killed left half-filled is removed by the next one that succeeds, if it is a day old.

    Args:
        path: Final place of the folder. A folder that stands there is replaced.

    Raises:
        WriteError: The folder cannot be made or written, for example because the disk is full.
    """
    folder = path.with_name(f".writing_{path.name}_{token_hex(4)}")
    replaced = folder.with_name(folder.name + "_replaced")
    with _write_errors(path.parent):
        folder.mkdir(parents=True)
    with _write_errors(path):
        try:
            yield folder
            _take_place(folder, path, replaced)
        finally:
            for left in (folder, replaced):
                _remove(left)
    for left in path.parent.glob(f".writing_{path.name}_*"):
        if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            _remove(left)


def _take_place(folder: Path, path: Path, replaced: Path) -> None:
    """Puts a folder in the place of another, which is kept as `replaced`."""
    if not path.exists():
        folder.replace(path)
        return
    try:
        path.replace(replaced)
        folder.replace(path)
    finally:
        if not path.exists():  # not even Ctrl-C between the two loses what stood there
            replaced.replace(path)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turns every OSError about the folder of `path` into one about `path`, the only name that means something."""
    try:
        yield
    except WriteError as error:
        cause = error.__cause__ or error
        raise _unwritable(path, cause) from cause
    except OSError as error:
        if _is_elsewhere(error, path.parent):
            raise
        raise _unwritable(path, error) from error


def _remove(folder: Path) -> None:
    """Removes a folder, also if Ctrl-C comes in between."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


def _is_elsewhere(error: OSError, folder: Path) -> bool:
    """Whether the error names only files elsewhere, such as one to be read; not the folder, and none above it."""
    named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return bool(named) and not any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in named)


def _unwritable(path: Path, error: BaseException) -> WriteError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return WriteError(f"cannot write {path}: {reason}", "free some space or choose a folder that you may write to")


def _read_null(value: object) -> object:
    return math.nan if value is None else value


def _one_nan(value: float) -> float:
    return math.nan if math.isnan(value) else value  # the same object everywhere, so that equal artefacts compare equal


def _write_null(value: float) -> float | None:
    return None if math.isnan(value) else value


Score = Annotated[
    float, BeforeValidator(_read_null), AfterValidator(_one_nan), PlainSerializer(_write_null, when_used="json")
]
"""A number that may be undefined: NaN in memory, null in the file, because JSON has no NaN."""


class Artifact(BaseModel):
    """Base of every value that crosses the disk: frozen, strict about unknown keys, versioned, plain JSON.

    A subclass raises the default of `format_version` when the meaning of its fields changes; older files are then
    refused with a clear line instead of being misread.

    Attributes:
        format_version: Version of the file's format; a file of another version is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        current = type(self).model_fields["format_version"].default
        if self.format_version != current:
            raise ValueError(f"format_version is {self.format_version}, this program reads {current}")
        return self

    def save(self, path: Path) -> None:
        """Writes the value as indented JSON, lists of numbers on one line, atomically."""
        with atomic_file(path) as writing:
            writing.write_text(self.to_json(), encoding="utf-8", newline="\n")

    def to_json(self) -> str:
        """The text that `save` writes."""
        text = json.dumps(self.model_dump(mode="json"), indent=2)
        return NUMBERS.sub(_on_one_line, text) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a value that `save` wrote, or that a user edited since.

        Raises:
            ArtifactError: The file is missing, not JSON, of another version, or a field has an impossible value; the
                text names the file and the field.
        """
        return cls.parse(read_text(path), source=str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Reads a value from JSON text; `source` says where it came from, for errors."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ArtifactError(f"{source}: {first_mistake(error)}", "mend that field or make the file anew") from error


def state_of_files(paths: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """What shows that files are others than before: of each its name, its bytes, and when it changed, in nanoseconds.

    A file that is missing is left out.
    """
    states = []
    for path in paths:
        with suppress(OSError):
            state = path.stat()
            states.append((path.name, state.st_size, state.st_mtime_ns))
    return tuple(states)


def read_text(path: Path) -> str:
    """Reads a UTF-8 text file.

    Raises:
        ArtifactError: The file is missing or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise ArtifactError(f"cannot read {path}: {reason}", "run the step that makes it") from error


def first_mistake(error: ValidationError) -> str:
    """Says the first of pydantic's complaints in one line: the field, and what is wrong with it.

    A key that someone made up may hold signs that terminals obey; they are shown as question marks.
    """
    mistake = error.errors()[0]
    field = ".".join(str(part) for part in mistake["loc"])
    what = " ".join(mistake["msg"].removeprefix("Value error, ").split())
    text = f"{field}: {what}" if field else what
    return "".join(sign if sign.isprintable() else "?" for sign in text)
