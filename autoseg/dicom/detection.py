"""Recognises DICOM files by their first bytes; pydicom is not imported."""

import importlib.util
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import UsageError

PREAMBLE_BYTES = 128
MAGIC = b"DICM"
OLD_STARTS = (b"\x08\x00\x00\x00", b"\x08\x00\x01\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00")
"""First bytes of a file without a preamble: a tag of group 0008, in little-endian order."""

DICOMDIR = "DICOMDIR"
ZIP_ENDING = ".zip"

INSTALL = "pip install 'autoseg[dicom]'"


def is_dicom_file(path: Path) -> bool:
    r"""Returns whether a file begins as a DICOM file does, whatever its name is.

    A file begins with 128 bytes and "DICM". Old ones have no such preamble and begin with an element of group 0008.
    Source: PS3.10 of the standard, section 7.1; the latter is what such files of the ACR-NEMA time share.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "IM0001"
        ...     _ = path.write_bytes(b"\0" * 128 + b"DICM")
        ...     is_dicom_file(path)
        True
    """
    try:
        with path.open("rb") as file:
            start = file.read(PREAMBLE_BYTES + len(MAGIC))
    except OSError:
        return False
    return start[PREAMBLE_BYTES:] == MAGIC or (len(start) > PREAMBLE_BYTES and start.startswith(OLD_STARTS))


def list_files(folder: Path) -> Iterator[Path]:
    """Yields all files in a folder and its subfolders, ordered by path, without hidden ones; links are not followed."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))


def holds_dicom(source: Path) -> bool:
    """Returns whether a path is a DICOM file or DICOMDIR, a zip file, or a folder, that holds one in any subfolder."""
    if source.is_dir():
        return any(is_dicom_file(path) for path in list_files(source) if path.is_file())
    if not source.is_file():
        return False
    return is_dicom_file(source) or (source.suffix.lower() == ZIP_ENDING and _zip_holds_dicom(source))


def check_installed(source: Path) -> None:
    """Checks that pydicom is installed, and its decoders.

    Raises:
        UsageError: It is not.
    """
    if importlib.util.find_spec("pydicom") is None:
        raise UsageError(f"{source} holds DICOM files, which need pydicom", INSTALL)


def _zip_holds_dicom(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_begins_as_dicom(archive, name) for name in archive.namelist() if not name.endswith("/"))
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError):
        return False


def _begins_as_dicom(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as file:
        start = file.read(PREAMBLE_BYTES + len(MAGIC))
    return start[PREAMBLE_BYTES:] == MAGIC or (len(start) > PREAMBLE_BYTES and start.startswith(OLD_STARTS))
