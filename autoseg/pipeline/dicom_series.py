"""Series of DICOM files, listed and checked before any of them is imported or segmented."""

import os
from pathlib import Path

from autoseg.datasets.passed_over import find_passed_over
from autoseg.dicom.examinations import Examination, group_examinations
from autoseg.dicom.search import find_series, unpacked
from autoseg.errors import DatasetError, ProblemsError
from autoseg.importing.dicom_check import DicomCheck, check_dicom_files
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter


def list_series(source: str | os.PathLike[str], *, reporter: Reporter = SILENT) -> list[Examination]:
    """Lists the series of DICOM files, and what prevents that one is read as a volume; no voxel is read.

    Args:
        source: A folder of one or many examinations, a zip file of it, a DICOMDIR, or a file.
        reporter: Is told which files cannot be read.

    Returns:
        The examinations; each has its `name` and its `series`. A series has its description, modality, geometry and
        frames, a `defect` if it cannot be read, and remarks.

    Raises:
        DatasetError: There are no series.
        ProblemsError: None of the files can be read, with a line for each.
        UsageError: pydicom is not installed.

    Example:
        The series of an examination, as numbers for ``series=`` of `predict`::

            [examination] = autoseg.list_series("examination")
            for number, series in enumerate(examination.series, start=1):
                print(number, series.description, series.geometry)
    """
    path = as_path(source, "source")
    if not path.exists():
        raise DatasetError(f"{path} does not exist", "give a folder of DICOM files")
    with unpacked(path) as folder:
        files = find_series(folder)
        if files.damaged and not files.series:
            raise ProblemsError([str(error) for error in files.damaged])
        if not files.series:
            raise _no_series(path)
        for error in files.damaged:
            reporter.say(str(error))
        return group_examinations(files.series, folder)


def _no_series(path: Path) -> DatasetError:
    """Returns the error of a folder without series, which says what is in it instead, such as zip files."""
    instead = [passed.describe() for passed in find_passed_over(path)]
    what = f"{path} holds no series of images in DICOM"
    if not instead:
        return DatasetError(what, "check the path")
    return DatasetError(f"{what}, but {', and '.join(instead)}", "give one of them, or a folder of DICOM files")


def check_dicom(
    source: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> DicomCheck:
    """Reads every series of DICOM files, and every mask that was drawn on one, and lists all problems.

    Nothing is imported. Problems are missing slices, tilted or irregular slices, damaged files, examinations without a
    scan, and masks that refer to a series that is not there, do not lie on it, or are drawn twice.

    Args:
        source: A folder of one or many examinations, a zip file of it, a DICOMDIR, or a file.
        labels: Folder of masks, if they lie elsewhere: segmentations (DICOM-SEG), structure sets (RTSTRUCT), or image
            files such as NIfTI.
        reporter: Shows progress, and is told what is odd but no reason to stop.

    Returns:
        The `examinations`, the `structures` that were drawn on each series, and the `problems`.

    Raises:
        DatasetError: There are no series.
        ProblemsError: None of the files can be read, with a line for each.
        UsageError: pydicom is not installed.

    Example:
        ::

            for problem in autoseg.check_dicom("studies").problems:
                print(problem)
    """
    path = as_path(source, "source")
    if not path.exists():
        raise DatasetError(f"{path} does not exist", "give a folder of DICOM files")
    with unpacked(path) as folder:
        return check_dicom_files(folder, None if labels is None else as_path(labels, "labels"), reporter)
