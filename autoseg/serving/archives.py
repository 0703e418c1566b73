"""Zip files of strangers: how many files they hold, and how many bytes these have, before anything is unpacked.

The table at the end of a zip file, the central directory, is read as a whole by Python's zipfile, so its size is looked
up first, by the rules of that module. Source: APPNOTE.TXT of PKWARE, sections 4.3.12, 4.3.15 and 4.3.16.
"""

import struct
import zipfile
from pathlib import Path

from autoseg.dicom.detection import holds_dicom
from autoseg.errors import ImageError
from autoseg.runtime.units import describe_memory
from autoseg.serving.limits import Limits

END, END_BYTES, LOCATOR, LOCATOR_BYTES = b"PK\x05\x06", 22, b"PK\x06\x07", 20
LONGEST_COMMENT = 2**16 - 1
ENTRY_BYTES = 512
"""Bytes of the table for a file, at most, on average. Decision: 46, its path, and some fields of times."""


def check_archive(path: Path, limits: Limits) -> None:
    """Checks a zip file before it is unpacked.

    Raises:
        ImageError: It is no whole zip file, holds too many files or bytes, or no DICOM files.
    """
    _check_table(path, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise _broken(path) from error
    if len(members) > limits.members:
        raise _too_many(path, limits)
    size, most = sum(member.file_size for member in members), limits.unpacked_ratio * limits.upload_bytes
    if size > most:
        what = f"{path} unpacks to {describe_memory(size)}, and this server unpacks {describe_memory(most)} at most"
        raise ImageError(what, "send fewer series at once")
    if not holds_dicom(path):
        raise ImageError(f"{path} holds no DICOM files", "send other images as they are, without a zip file")


def _check_table(path: Path, limits: Limits) -> None:
    """Checks the size of the table of a zip file, without reading it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - END_BYTES - LONGEST_COMMENT - LOCATOR_BYTES))
        tail = file.read()
    last = tail[-END_BYTES:]
    without_comment = last.startswith(END) and last.endswith(b"\0\0")
    start = len(tail) - END_BYTES if without_comment else tail.rfind(END)
    if start < 0 or len(tail) - start < END_BYTES:
        raise _broken(path)
    has_large_table = tail[max(0, start - LOCATOR_BYTES) : start].startswith(LOCATOR)  # of ZIP64, whose sizes it states
    [table_bytes] = struct.unpack_from("<I", tail, start + 12)
    if has_large_table or table_bytes > limits.members * ENTRY_BYTES:
        raise _too_many(path, limits)


def _broken(path: Path) -> ImageError:
    return ImageError(f"{path} is no zip file, or is damaged or cut off", "send it again")


def _too_many(path: Path, limits: Limits) -> ImageError:
    return ImageError(
        f"{path} holds more files than the {limits.members} that this server unpacks", "send less at once"
    )
