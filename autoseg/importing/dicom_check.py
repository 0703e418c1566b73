"""Checks DICOM files before they are imported or segmented: each series, and each mask that was drawn on one.

Everything is read as the import and the prediction would read it, and what they would refuse is a problem. One bad file
never hides another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Problem
from autoseg.dicom.examinations import Examination, group_examinations
from autoseg.dicom.headers import Header
from autoseg.dicom.masks import MaskFile, describe_frames, describe_mask, place_masks, read_mask
from autoseg.dicom.pixels import read_series
from autoseg.dicom.search import DicomFiles, find_series
from autoseg.dicom.series import Series
from autoseg.errors import AutosegError, DatasetError, ImageError, ProblemsError, UsageError
from autoseg.importing import pairing
from autoseg.importing.dicom_image_masks import check_image_masks
from autoseg.importing.mask_matching import list_mask_files
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads

BYTES_PER_VOXEL = 8
"""Memory that reading a voxel takes at most: stored and real values of 32 bits."""

LEAVE_OUT = "leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomCheck:
    """What DICOM files hold, and what is wrong with them.

    Attributes:
        examinations: The examinations with their series.
        structures: UID of each series that has masks, to the names of the structures that were drawn on it; of masks
            in image files, to the names of the files.
        problems: All that prevents that a series or a mask is read: of files, of series, of masks.
    """

    examinations: tuple[Examination, ...]
    structures: Mapping[str, tuple[str, ...]]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """A series with the name of its examination, for progress and problems."""

    name: str
    series: Series


def check_dicom_files(source: Path, labels: Path | None, reporter: Reporter) -> DicomCheck:
    """Reads every series of a source, and every segmentation and structure set, and lists all problems.

    A series that is a localizer or a secondary capture is listed, and not read. A tilted gantry is a problem, whose fix
    names the option that straightens it.

    Args:
        source: A folder, a DICOMDIR, or a file.
        labels: Folder of further masks; None if all lie in the source. Image files count if there are none in DICOM.
        reporter: Shows progress, and is told what is odd but no reason to stop.

    Raises:
        DatasetError: There are no series.
        ProblemsError: There are none, because the files are damaged.
        UsageError: pydicom is not installed.
    """
    files = find_series(source)
    others = DicomFiles(series=()) if labels is None else _find_labels(labels)
    damaged = (*files.damaged, *others.damaged)
    if not files.series:
        if damaged:
            raise ProblemsError([str(error) for error in damaged])
        raise DatasetError(f"{source} holds no series of images in DICOM", "check the path")
    examinations = group_examinations(files.series, source)
    described, unreadable = _describe_masks((*files.masks, *others.masks))
    placed = place_masks(described, files.series)
    masks = [mask for mask, _ in placed]
    problems = [Problem(case="", what=error.what, fix=error.fix) for error in (*damaged, *unreadable)]
    problems += _check_series(examinations, reporter)
    problems += _check_masks(examinations, placed, reporter)
    for examination in examinations:
        for series, remark in ((one, remark) for one in examination.series for remark in one.remarks):
            reporter.say(f"{examination.name}: {series.name}: {remark}")
    for line in describe_frames(placed):
        reporter.say(line)
    structures = {mask.series_uid: tuple(_names_on(masks, mask.series_uid)) for mask in masks}
    place = source if labels is None else labels
    if not masks and place.is_dir() and (images := list_mask_files(place)):
        structures, further = check_image_masks(examinations, images, (source, place), reporter)
        problems += further
    without = [one.name for one in examinations if not any(series.uid in structures for series in one.series)]
    if structures:
        pairing.report_left_out("Examinations without a mask", without, reporter)
    return DicomCheck(examinations=tuple(examinations), structures=structures, problems=tuple(problems))


def _find_labels(labels: Path) -> DicomFiles:
    if not labels.exists():
        raise UsageError(f"{labels} does not exist", "give the folder of masks with --labels")
    return find_series(labels)


def _describe_masks(headers: Sequence[Header]) -> tuple[list[MaskFile], list[AutosegError]]:
    masks: list[MaskFile] = []
    errors: list[AutosegError] = []
    for header in headers:
        try:
            masks.append(describe_mask(header))
        except AutosegError as error:
            errors.append(error)
    return masks, errors


def _names_on(masks: Sequence[MaskFile], uid: str) -> Iterator[str]:
    yield from dict.fromkeys(name for mask in masks if mask.series_uid == uid for name in mask.names)


def _check_series(examinations: Sequence[Examination], reporter: Reporter) -> Iterator[Problem]:
    """Yields the problems of the series of each examination, and those of examinations without a scan."""
    items = [_Item(name=one.name, series=series) for one in examinations for series in one.series if not series.role]
    results = map_in_threads(_read, items, title="reading series", reporter=reporter, bytes_each=_memory_of)
    for item, result in zip(items, results, strict=True):
        defect = item.series.defect
        if defect is not None:
            yield Problem(case=item.name, what=f"{item.series.name}: {defect.what}", fix=defect.fix)
        elif isinstance(result, AutosegError):
            yield Problem(case=item.name, what=result.what, fix=result.fix)
    for examination in examinations:
        if all(series.role for series in examination.series):
            roles = ", ".join(sorted({series.role for series in examination.series}))
            yield Problem(case=examination.name, what=f"it holds no scan ({roles})", fix=LEAVE_OUT)


def _read(item: _Item) -> None:
    """Reads the voxels of a series, and drops them; raises the error that reading it gives."""
    if item.series.defect is None:
        read_series(item.series)


def _memory_of(item: _Item) -> int:
    rows, columns = item.series.frames[0].size
    return BYTES_PER_VOXEL * rows * columns * len(item.series.frames)


def _check_masks(
    examinations: Sequence[Examination], placed: Sequence[tuple[MaskFile, list[Series]]], reporter: Reporter
) -> Iterator[Problem]:
    """Yields the problems of masks: those that refer to nothing, that name nothing, and that do not fit."""
    names = {series.key: examination.name for examination in examinations for series in examination.series}
    owners: dict[tuple[str, str], Path] = {}
    with reporter.task("reading masks", len(placed)) as task:
        for mask, found in placed:
            case = names[found[0].key] if found else ""
            problem = _find_problem(mask, found) or _find_twice(mask, owners)
            if problem is not None:
                yield Problem(case=case, what=problem.what, fix=problem.fix)
            task.advance()


def _find_problem(mask: MaskFile, found: Sequence[Series]) -> AutosegError | None:
    if not mask.series_uid and not found:
        return DatasetError(f"{mask.path} does not say which series it was drawn on", LEAVE_OUT)
    if not found:
        what = f"{mask.path} was drawn on series {mask.series_uid}, which is not there"
        return DatasetError(what, "bring that series, or leave the mask out")
    if not mask.names:
        return DatasetError(f"{mask.path} holds no structure", LEAVE_OUT)
    readable = [series for series in found if series.geometry is not None]
    errors = [error for series in readable if (error := _find_misfit(mask, series))]
    return errors[0] if len(errors) == len(readable) and errors else None


def _find_misfit(mask: MaskFile, series: Series) -> AutosegError | None:
    """Returns why a mask cannot be read on a series; None if it can."""
    try:
        for _ in read_mask(mask, series.grid()):
            pass
    except ImageError as error:
        return error
    return None


def _find_twice(mask: MaskFile, owners: dict[tuple[str, str], Path]) -> AutosegError | None:
    """Returns that a structure of a series is drawn in two files; notes which file holds which."""
    for name in mask.names:
        other = owners.setdefault((mask.series_uid, name), mask.path)
        if other != mask.path:
            return DatasetError(f"{other} and {mask.path} both hold {name!r}", "leave one of them out")
    return None
