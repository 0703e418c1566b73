"""Files on disk: typed JSON files with a version, and writes that are completed or leave no trace."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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

from autoseg.errors import ArtifactError, UsageError, WriteError
from autoseg.runtime.json_text import check_keys, first_mistake, read_json_text
from autoseg.runtime.leftovers import name_unfinished, sweep_once
from autoseg.runtime.os_errors import advise_writing, reason_of

NUMBERS = re.compile(r"\[\n([^\[\]{}\"]+)\n *\]")  # a list of numbers, as json indents it

MOST_ATTEMPTS = 10
"""How often a folder is renamed that other runs replace at the same moment. Decision: each needs a millisecond."""

ELSEWHERE_REPLACED = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
"""Errors of renaming a folder where another run has just put its own, or has moved the old one aside."""

_unfinished: set[Path] = set()
"""Temporary files and folders that this process is writing; see `remove_unfinished`."""


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path to write to; on success the file is renamed to `path`, on failure it is removed.

    The temporary path is in the same folder, and keeps the ending of `path`, because image writers choose the format by
    it. Renaming is the last step, after which nothing needs to be removed, whenever Ctrl-C comes.

    Args:
        path: Final path of the file. Missing parent folders are made.
        durable: Whether to wait until the disk holds the file. If not, a power cut soon afterwards may leave it empty
            or cut off, so its reader must be able to tell.

    Raises:
        WriteError: The folder cannot be made or written, or the disk is full.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "notes.txt"
        ...     with atomic_file(path) as temporary:
        ...         _ = temporary.write_text("done")
        ...         path.exists()
        ...     path.read_text()
        False
        'done'
    """
    writing = name_unfinished(path)
    try:
        with _write_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent)
        _unfinished.add(writing)
        with _write_errors(path):
            yield writing
            if durable:
                with writing.open("r+b") as file:  # Windows flushes only what is open for writing
                    os.fsync(file.fileno())
            writing.replace(path)
    except Exception:
        if writing in _unfinished:
            with _write_errors(path.parent):
                writing.touch()  # if the folder cannot be written at all, the error names the folder, not the file
        raise
    finally:
        with suppress(OSError):
            writing.unlink(missing_ok=True)
        _unfinished.discard(writing)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Gives an empty folder to fill; on success it is renamed to `path`, on failure `path` stays as it was.

    A half-filled folder of a run that was killed is removed by the next run that writes there; see `leftovers`. Several
    runs may fill the same folder at once: the last one counts.

    Args:
        path: Final path of the folder.
        replace: Whether a folder that exists there is replaced.

    Raises:
        WriteError: The folder cannot be made or written, for example because the disk is full.
        UsageError: There is a folder that is not to be replaced, such as one that another run has made meanwhile.
    """
    folder, replaced = name_unfinished(path), name_unfinished(path, is_replaced=True)
    with _write_errors(path.parent):
        folder.mkdir(parents=True)
    sweep_once(path.parent)
    _unfinished.add(folder)
    with _write_errors(path):
        try:
            yield folder
            if replace:
                _replace_folder(folder, path, replaced)
            elif path.exists():
                raise UsageError(f"another run has made {path} meanwhile", "remove it, or choose another name")
            else:
                folder.rename(path)
        finally:
            for leftover in (folder, replaced):
                _remove(leftover)
            _unfinished.discard(folder)


def remove_unfinished() -> None:
    """Removes what this process has half-written, because it is about to end without unwinding its threads."""
    for path in list(_unfinished):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _replace_folder(folder: Path, path: Path, replaced: Path) -> None:
    """Renames `folder` to `path`; tries again if another run replaces `path` at the same moment."""
    for left in reversed(range(MOST_ATTEMPTS)):
        try:
            _replace_once(folder, path, replaced)
        except OSError as error:
            if not left or error.errno not in ELSEWHERE_REPLACED:
                raise
            _remove(replaced)
        else:
            return


def _replace_once(folder: Path, path: Path, replaced: Path) -> None:
    """Renames `folder` to `path`; a folder that exists at `path` is renamed to `replaced` first.

    If it fails in between, even by Ctrl-C, the old folder comes back. Once `folder` has got its name, nothing comes
    back: if `path` is missing then, another run has moved it aside and is about to put its own there.
    """
    if not path.exists():
        folder.replace(path)
        return
    try:
        path.replace(replaced)
        folder.replace(path)
    except BaseException:
        if folder.exists() and replaced.exists() and not path.exists():
            with suppress(OSError):  # another run has just put its own folder there
                replaced.replace(path)
        raise


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError in the folder of `path` into a WriteError about `path`, the only path that the user knows."""
    try:
        yield
    except WriteError as error:
        cause = error.__cause__ or error
        raise _unwritable(path, cause) from cause
    except OSError as error:
        if _names_other_files(error, path.parent):
            raise
        raise _unwritable(path, error) from error


def _remove(folder: Path) -> None:
    """Removes a folder, also if Ctrl-C comes meanwhile."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


def _names_other_files(error: OSError, folder: Path) -> bool:
    """Returns whether an error names other files only, such as one to be read: none inside the folder or above it."""
    paths = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return bool(paths) and not any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in paths)


def _unwritable(path: Path, error: BaseException) -> WriteError:
    return WriteError(f"cannot write {path}: {reason_of(error)}", advise_writing(error))


def _read_null(value: object) -> object:
    return math.nan if value is None else value


def _one_nan(value: float) -> float:
    return math.nan if math.isnan(value) else value  # one object for all, so that equal artefacts compare equal


def _write_null(value: float) -> float | None:
    return None if math.isnan(value) else value


Score = Annotated[
    float, BeforeValidator(_read_null), AfterValidator(_one_nan), PlainSerializer(_write_null, when_used="json")
]
"""A number that may be undefined: NaN in memory and null in the file, because JSON has no NaN."""


class Artifact(BaseModel):
    """Base class of the values that are saved as JSON files: immutable, with a version, and without unknown keys.

    A subclass increases the default of `format_version` when the meaning of its fields changes. Older files are then
    refused with a clear message instead of being misread.

    Attributes:
        format_version: Version of the file's format; a file of another version is refused.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> class Spacing(Artifact):
        ...     spacing_mm: tuple[float, float, float]
        >>> with TemporaryDirectory() as folder:
        ...     Spacing(spacing_mm=(3.0, 0.8, 0.8)).save(Path(folder) / "spacing.json")
        ...     Spacing.load(Path(folder) / "spacing.json")
        Spacing(format_version=1, spacing_mm=(3.0, 0.8, 0.8))
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
        """Writes the value as indented JSON, with each list of numbers on one line, completely or not at all."""
        with atomic_file(path) as writing:
            writing.write_text(self.to_json(), encoding="utf-8", newline="\n")

    def to_json(self) -> str:
        """Returns the JSON text that `save` writes."""
        text = json.dumps(self.model_dump(mode="json"), indent=2)
        return NUMBERS.sub(_on_one_line, text) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file that `save` wrote, and that a user may have edited since.

        Raises:
            ArtifactError: The file is missing, is not JSON, has another version, or a field has an impossible value;
                the message names the file and the field.
        """
        return cls.parse(read_json_text(path), source=str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Reads a value from JSON text.

        Args:
            text: The JSON text.
            source: Name of the text's origin, for error messages.

        Raises:
            ArtifactError: The text is not JSON, has a key twice or another version, or a field has an impossible value.
        """
        check_keys(text, source)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ArtifactError(f"{source}: {first_mistake(error)}", "mend that field or make the file anew") from error


def state_of_files(paths: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """Returns what shows whether files have changed: name, size in bytes and time of change in nanoseconds of each.

    Missing files are left out.
    """
    states = []
    for path in paths:
        with suppress(OSError):
            state = path.stat()
            states.append((path.name, state.st_size, state.st_mtime_ns))
    return tuple(states)
