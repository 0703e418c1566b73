"""Requests with scans: received within limits, and kept in files whose names are the server's own.

Of the name of an upload only the ending counts, and that if it is one of an image format; whether a file is DICOM is
told by its first bytes. No other part of a name ever reaches a path.
"""

import asyncio
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope

from autoseg.dicom.detection import ZIP_ENDING, is_dicom_file
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import AutosegError, WriteError
from autoseg.imaging.formats import READABLE_ENDINGS, readable_name, split_ending
from autoseg.runtime.printable import printable
from autoseg.runtime.units import describe_memory
from autoseg.serving.limits import Limits, Refusal

FIELD = "scan"
"""Field of the form that holds a file, for each channel or for all."""

NAME = "scan"
"""Name of each scan in results."""

MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 16, 32, 1000
LONGEST_NAME = 100
DICOM_ENDING = ".dcm"
MULTIPART = "multipart/form-data"

ARRIVED = "autoseg.arrived"
"""Key of the scope of a request that says whether it has arrived to its end."""

DRAINED_BYTES, DRAINED_SECONDS = 64 * 2**20, 5.0
"""How much of a refused request is read before it is answered. Decision: a client that still sends when the connection
is closed loses the answer; more than that would be work for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A scan that was sent.

    Attributes:
        paths: Its files; several are the channels, in order.
        names: The name under which each was sent, for messages.
        choice: Which series of DICOM files are meant.
        size: Bytes of all files.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    choice: SeriesChoice
    size: int

    @property
    def source(self) -> Path:
        """The file, or the folder of several."""
        return self.paths[0] if len(self.paths) == 1 else self.paths[0].parent

    def name_files(self, text: str, *folders: Path) -> str:
        """Returns a message in which files have the names under which they were sent, and folders are left out.

        Args:
            text: The message.
            folders: Folders, beside that of the upload, whose files are meant.
        """
        shown = self.names[0] if len(self.names) == 1 else "the upload"
        named = {str(path): name for path, name in zip(self.paths, self.names, strict=True)}
        named |= {path.name: name for path, name in zip(self.paths, self.names, strict=True)}
        for folder in (*folders, self.paths[0].parent):
            named.setdefault(f"{folder}/", "")
            named.setdefault(str(folder), shown)
        longest_first = sorted(named, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda match: named[match[0]], text)

    @contextmanager
    def named(self, *folders: Path) -> Iterator[None]:
        """Names files in errors as `name_files` does.

        Raises:
            Refusal: In place of an error that the scan causes, or of one of the server's disk.
        """
        try:
            yield
        except WriteError as error:
            raise Refusal(507, f"the server cannot write its files: {self.name_files(str(error), *folders)}") from error
        except AutosegError as error:
            raise Refusal(422, self.name_files(str(error), *folders)) from error


async def receive_form(request: Request, limits: Limits) -> FormData:
    """Receives a form within limits; its files lie in temporary files without a name.

    Raises:
        Refusal: It is no form with files, too large, too slow, or was not sent to its end.
    """
    try:
        async with asyncio.timeout(limits.upload_seconds):
            counted = Request(request.scope, _count(request.receive, limits))
            return await counted.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    except TimeoutError as error:
        line = f"the scan did not arrive within {limits.upload_seconds:.0f} s, or stopped on its way; send it again"
        raise Refusal(408, line) from error
    except HTTPException as error:
        raise Refusal(400, f"the form cannot be read: {error.detail}; send each file as the field '{FIELD}'") from error
    except ClientDisconnect as error:
        raise Refusal(400, "the scan was not sent to its end; send it again") from error


def check_headers(request: Request, limits: Limits) -> None:
    """Refuses by its headers what is no form with files, or too large, before it arrives.

    Raises:
        Refusal: It is.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MULTIPART:
        raise Refusal(415, f"a scan is sent as a form ({MULTIPART}); send each file as the field '{FIELD}'")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limits.upload_bytes:
        raise _too_large(limits)


def note_end(scope: Scope, receive: Receive) -> Receive:
    """Returns what receives a request and notes in its scope when it has arrived to its end; see `drain`."""

    async def receive_noting() -> Message:
        message = await receive()
        scope[ARRIVED] = not message.get("more_body", False)
        return message

    return receive_noting


async def drain(request: Request) -> None:
    """Reads the rest of a refused request for a moment, so that its sender gets the answer."""
    if request.scope.get(ARRIVED) or "expect" in request.headers:
        return  # with the latter, it waits for the answer before it sends anything
    read = 0
    try:
        async with asyncio.timeout(DRAINED_SECONDS):
            while read < DRAINED_BYTES:
                message = await request.receive()
                read += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _count(receive: Receive, limits: Limits) -> Receive:
    """Returns what receives a request and gives up one that is too large, or of which nothing comes any more."""
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        async with asyncio.timeout(limits.idle_seconds):
            message = await receive()
        received += len(message.get("body", b""))
        if received > limits.upload_bytes:
            raise _too_large(limits)
        return message

    return receive_counted


def _too_large(limits: Limits) -> Refusal:
    most = describe_memory(limits.upload_bytes)
    return Refusal(413, f"the upload is larger than the {most} that this server takes; send a smaller scan")


def keep_upload(form: FormData, folder: Path) -> Upload:
    """Writes the files of a form into a folder.

    Args:
        form: The form: a file for each channel, or one for all, as "scan"; which series are meant, as for `predict`.
        folder: An empty folder.

    Raises:
        Refusal: There is no file, one of a kind that is not read, or a field that does not exist.
    """
    files = [value for value in form.getlist(FIELD) if isinstance(value, UploadFile)]
    unknown = sorted(set(form) - {FIELD, "series", "channels", "resample_tilt"})
    if unknown or not files:
        what = f"there is no field {printable(unknown[0])[:40]!r}" if unknown else f"there is no file '{FIELD}'"
        raise Refusal(422, f"{what}; send each file as the field '{FIELD}'")
    names = tuple(_shorten(file.filename or "") for file in files)
    paths = []
    for number, (file, name) in enumerate(zip(files, names, strict=True)):
        path = folder / (NAME if len(files) == 1 else f"{NAME}_{number:04d}")
        with path.open("wb") as kept:
            shutil.copyfileobj(file.file, kept)
        paths.append(path.rename(path.with_name(path.name + _choose_ending(path, file.filename or "", name))))
    return Upload(
        paths=tuple(paths), names=names, choice=_read_choice(form), size=sum(file.size or 0 for file in files)
    )


def _read_choice(form: FormData) -> SeriesChoice:
    def texts(name: str) -> Sequence[str]:
        return [value for value in form.getlist(name) if isinstance(value, str) and value]

    tilt = texts("resample_tilt")
    if any(text not in ("true", "false") for text in tilt):
        raise Refusal(422, "resample_tilt is neither true nor false; send one of them")
    try:
        return SeriesChoice(
            series=next(iter(texts("series")), None), channels=tuple(texts("channels")), resample_tilt="true" in tilt
        )
    except AutosegError as error:
        raise Refusal(422, str(error)) from error


def _shorten(name: str) -> str:
    """Returns the name of an upload for messages: without folders and control codes, and not too long."""
    return printable(readable_name(PurePosixPath(name.replace("\\", "/")).name))[-LONGEST_NAME:] or "the upload"


def _choose_ending(path: Path, filename: str, shown: str) -> str:
    """Returns the ending of the file in which an upload is kept.

    Raises:
        Refusal: It is no file of a kind that is read.
    """
    if is_dicom_file(path):
        return DICOM_ENDING
    lower = filename.lower()
    if lower.endswith(ZIP_ENDING):
        return ZIP_ENDING
    ending = split_ending(Path(PurePosixPath(lower.replace("\\", "/")).name))[1]
    if not ending:
        kinds = f"{', '.join(READABLE_ENDINGS)}, DICOM, or a zip file of DICOM files"
        raise Refusal(415, f"{shown} is of a kind that is not read here; send one of {kinds}")
    return ending
