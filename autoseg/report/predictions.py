"""A folder that predict has written: the scans of all runs, their masks, and where their images are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.names import compose
from autoseg.datasets.scans import find_scans
from autoseg.dicom.detection import is_dicom_file
from autoseg.dicom.search import find_series
from autoseg.dicom.series import Series
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.formats import split_ending
from autoseg.inference.report import read_tables
from autoseg.inference.scan_records import ScanRecord, ScanRecords, states_of_scan

STRAIGHTENED = "straightened"
"""Name in the files of a record of slices whose tilt was resampled. Source: `scan_records.states_of_scan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedScan:
    """A scan that predict has come to.

    Attributes:
        name: Name of the scan.
        row: Its row in report.csv.
        mask: Its label map, or the folder of its masks; None if there is none.
        case: Its image files; None if it is not known where they are.
        is_changed: Whether the image files have changed since they were segmented.
    """

    name: str
    row: Mapping[str, str]
    mask: Path | None
    case: Case | None
    is_changed: bool = False


def open_predictions(folder: Path) -> DatasetInfo:
    """Returns the structures and channels of the model that wrote a folder.

    Raises:
        DatasetError: The folder is missing, or predict has not written it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder", "give the folder that predict wrote with -o")
    if not info_file(folder).is_file():
        what = f"{folder} was not written by 'autoseg predict', which leaves a dataset.json in it"
        raise DatasetError(what, "give the folder that predict wrote with -o")
    return DatasetInfo.load(info_file(folder))


def find_predictions(folder: Path, info: DatasetInfo, images: Path | None) -> list[PredictedScan]:
    """Finds the scans of all runs into a folder, ordered by name.

    Args:
        folder: The folder of the masks.
        info: See `open_predictions`.
        images: Folder of the scans; by default they are where predict found them.

    Raises:
        DatasetError: No run has recorded a scan there, or `images` holds none.
        AutosegError: Files of `images` cannot be read; see `find_scans`.
    """
    records, rows = ScanRecords(folder), read_tables(folder)
    recorded = {name: records.load(name) for name, _ in records.states()}
    rows |= {name: dict(record.row) for name, record in recorded.items() if record is not None}
    if not rows:
        raise DatasetError(f"{folder} holds no records of 'autoseg predict'", "predict into it first")
    masks = _list_masks(folder, info)
    cases = None if images is None else {case.name: case for case in find_scans(images, info)}
    list_series = cache(lambda source: find_series(source).series)
    scans = []
    for name in sorted(rows):
        record = recorded.get(name)
        case = cases.get(name) if cases is not None else _find_recorded(record, list_series)
        is_changed = record is not None and case is not None and _is_changed(record, case, is_moved=images is not None)
        mask = None if record is not None and not record.segmented else masks.get(compose(name))
        scans.append(PredictedScan(name=name, row=rows[name], mask=mask, case=case, is_changed=is_changed))
    return scans


def _list_masks(folder: Path, info: DatasetInfo) -> dict[str, Path]:
    """Returns the label maps of a folder, or the folders of masks, by the name of their scan."""
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if info.targets.as_masks:
        return {compose(path.name): path for path in paths if path.is_dir()}
    return {compose(split_ending(path)[0]): path for path in paths if path.is_file() and split_ending(path)[1]}


def _find_recorded(record: ScanRecord | None, list_series: Callable[[Path], Sequence[Series]]) -> Case | None:
    """Returns a scan whose image files are still where predict found them, else None.

    Args:
        record: What is known of the scan.
        list_series: Finds the series in a folder of DICOM files.
    """
    paths = [] if record is None else [Path(text) for text in record.images]
    if record is None or not paths or not all(path.is_file() for path in paths):
        return None
    case = Case(name=record.case, images=tuple(paths), time_point=record.time_point)
    if not is_dicom_file(paths[0]):
        return case
    try:
        found = {series.paths[0]: series for path in paths for series in list_series(path.parent)}
    except AutosegError:
        return None
    if any(path not in found for path in paths):
        return None
    straighten = any(name == STRAIGHTENED for name, *_ in record.files)
    return replace(case, series=tuple(replace(found[path], straighten=straighten) for path in paths))


def _is_changed(record: ScanRecord, case: Case, *, is_moved: bool) -> bool:
    """Returns whether image files have changed; a copy in another folder has another time, and counts by its size."""
    before, now = sorted(record.files), sorted(states_of_scan(case))
    return [state[:2] for state in before] != [state[:2] for state in now] if is_moved else before != now
