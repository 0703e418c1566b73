"""Finds DICOM files in folders, zip files and DICOMDIRs, and the series that they hold."""

import os
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from autoseg.dicom.detection import DICOMDIR, ZIP_ENDING, check_installed, holds_dicom, is_dicom_file, list_files
from autoseg.dicom.grouping import group_series
from autoseg.dicom.headers import SEGMENTATION, STRUCTURES, Header, read_header
from autoseg.dicom.safe_reading import damage_named, damaged, read_dataset
from autoseg.dicom.series import Defect, Series
from autoseg.errors import ImageError

MOST_UNPACKED = 200
"""Times the size of a zip file that it may unpack to, beside a gigabyte. Decision: scans are packed to a third."""

GIGABYTE = 2**30
MOST_RECORDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFiles:
    """The DICOM files of a source.

    Attributes:
        series: The volumes, ordered by Series Number; files that hold none are left out.
        masks: Headers of segmentations and of structure sets.
        damaged: Errors of files that cannot be read. The series in the folder of such a file have a defect, since a
            slice of theirs may be missing.
    """

    series: tuple[Series, ...]
    masks: tuple[Header, ...] = ()
    damaged: tuple[ImageError, ...] = ()


def find_series(source: Path) -> DicomFiles:
    """Finds all series of a folder with its subfolders, of a DICOMDIR, or the series of one file.

    Args:
        source: A folder, a DICOMDIR, or a file; for a zip file see `unpacked`.

    Raises:
        UsageError: pydicom is not installed.
        ImageError: A DICOMDIR is damaged, or a file that it lists is missing.
    """
    headers: list[Header] = []
    errors: dict[Path, ImageError] = {}
    for path in list_dicom_files(source):
        try:
            if path == source:
                _check_kind(path)
            headers.append(read_header(path))
        except ImageError as error:
            errors[path] = error
    broken_folders = {path.parent: error for path, error in errors.items()}
    series = [_mark(volume, broken_folders) for volume in group_series(headers)]
    masks = tuple(header for header in headers if header.kind in (SEGMENTATION, STRUCTURES))
    return DicomFiles(series=tuple(series), masks=masks, damaged=tuple(errors.values()))


def list_dicom_files(source: Path) -> list[Path]:
    """Lists the DICOM files of a folder with its subfolders, of a DICOMDIR, or one file alone, without DICOMDIRs.

    Raises:
        UsageError: pydicom is not installed.
        ImageError: A DICOMDIR is damaged, or a file that it lists is missing.
    """
    if source.is_dir():
        paths = [path for path in list_files(source) if path.is_file() and is_dicom_file(path)]
        return [path for path in paths if path.name.upper() != DICOMDIR]
    check_installed(source)
    if source.name.upper() == DICOMDIR:
        return _list_directory(source)
    return [source]


def _check_kind(path: Path) -> None:
    """Checks that a file that was named, and not found by its content, is a DICOM file.

    Raises:
        ImageError: It is not.
    """
    if is_dicom_file(path):
        return
    if zipfile.is_zipfile(path):
        fix = "unpack it, with the archives inside of it, and give the folder"
        raise ImageError(f"{path} holds no DICOM file", fix)
    raise ImageError(f"{path} is no DICOM file", "give DICOM files")


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """Gives a folder with the DICOM files of a zip file, as long as it is needed; any other path is given as it is.

    A damaged zip file is one of the others.

    Raises:
        ImageError: The zip file is damaged, encrypted, or unpacks to far more than its size or than the disk holds.
    """
    if source.is_dir() or source.suffix.lower() != ZIP_ENDING or not holds_dicom(source):
        yield source
        return
    with TemporaryDirectory() as folder:
        target = Path(folder) / source.stem
        with damage_named(source), zipfile.ZipFile(source) as archive:
            _unpack(archive, source, target)
        yield target


def _unpack(archive: zipfile.ZipFile, source: Path, target: Path) -> None:
    """Unpacks a zip file; names that lead out of the folder are kept inside."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    size, packed = sum(member.file_size for member in members), source.stat().st_size
    if size > MOST_UNPACKED * packed + GIGABYTE:
        raise ImageError(f"{source} unpacks from {packed} to {size} bytes", "do not trust it, or unpack it yourself")
    target.mkdir()
    if size > shutil.disk_usage(target).free:
        raise ImageError(f"{source} unpacks to {size} bytes, more than is free in {target}", "set TMPDIR, or unpack it")
    for member in members:
        parts = [
            part for part in PurePosixPath(member.filename.replace("\\", "/")).parts if part not in ("/", "..", "")
        ]
        path = _free_name(target.joinpath(*parts))
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as packed_file, path.open("wb") as file:
            shutil.copyfileobj(packed_file, file)
        changed = time.mktime((*member.date_time, 0, 0, -1))  # so that a file that is unpacked twice is the same
        os.utime(path, (changed, changed))


def _free_name(path: Path) -> Path:
    """Returns a path that is free: two names may become one where a zip file holds "a" and "/a", or "a" twice."""
    candidates = (path.with_name(f"{path.name}_{number}") for number in count(2))
    return path if not path.exists() else next(candidate for candidate in candidates if not candidate.exists())


def _list_directory(path: Path) -> list[Path]:
    """Returns the files that a DICOMDIR lists. Source: PS3.3, annex F; names are upper case on media, see PS3.10."""
    dataset, _ = read_dataset(path)
    with damage_named(path):
        records = dataset.get("DirectoryRecordSequence") or ()
        if len(records) > MOST_RECORDS:
            raise damaged(path, "it lists far too many files")
        names = [record.get("ReferencedFileID") for record in records if record.get("ReferencedFileID")]
    files = [_find_listed(path.parent, [name] if isinstance(name, str) else list(name)) for name in names]
    missing = [
        str(Path(*map(str, name if not isinstance(name, str) else [name])))
        for name, file in zip(names, files, strict=True)
        if file is None
    ]
    if missing:
        raise ImageError(
            f"{path} lists {missing[0]}, which is not there, and {len(missing) - 1} more"
            if len(missing) > 1
            else f"{path} lists {missing[0]}, which is not there",
            "copy the whole medium, or give the folder instead",
        )
    return [file for file in files if file is not None]


def _find_listed(folder: Path, parts: Sequence[str]) -> Path | None:
    """Returns a listed file, whose name may be written in small letters on disk; None if there is none inside."""
    current = folder
    for part in map(str, parts):
        if part in ("..", ".", "") or "/" in part or "\\" in part:
            return None
        for name in (part, part.lower()):
            if (current / name).exists():
                current = current / name
                break
        else:
            return None
    return current if current.is_file() else None


def _mark(series: Series, broken_folders: dict[Path, ImageError]) -> Series:
    """Gives a defect to a series that may lack a slice, because a file in its folder cannot be read."""
    error = next((broken_folders[path.parent] for path in series.paths if path.parent in broken_folders), None)
    if error is None or series.defect is not None:
        return series
    what = f"a slice of it may be missing, since {error.what}"
    return replace(series, defect=Defect(what=what, fix=error.fix), geometry=None)
