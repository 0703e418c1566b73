"""Datasets of series of DICOM files whose masks are image files, such as NIfTI or NRRD.

Masks are matched with examinations by their names, and with one of their series by where their voxels lie: other
programs store the rows of a slice from back to front, so that each mask is laid on the voxels of its series.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoseg.datasets.dataset import Case, Problem
from autoseg.datasets.dicom_scans import describe_dicom_scans, make_case
from autoseg.dicom.channels import resample
from autoseg.dicom.examinations import Examination
from autoseg.dicom.pixels import grid_of_voxels
from autoseg.dicom.selection import ONLY_SERIES, SeriesChoice, SeriesChoiceError
from autoseg.dicom.series import Series
from autoseg.errors import AutosegError, DatasetError, ProblemsError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.placing import lay_on_grid
from autoseg.imaging.volume_files.segment_file import read_segments
from autoseg.importing import pairing
from autoseg.importing.dicom_files import report_pairs
from autoseg.importing.label_values import is_identity, renumber
from autoseg.importing.mask_files import list_masks, read_parts
from autoseg.importing.mask_matching import MatchedMasks, NamedMask, match_masks, nothing_matches
from autoseg.importing.structures import Structures, combine_masks
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads


def pair_image_masks(
    examinations: Sequence[Examination],
    files: Sequence[Path],
    places: tuple[Path, Path],
    choice: SeriesChoice,
    reporter: Reporter,
) -> tuple[Case, ...]:
    """Finds the cases that have masks, ordered by name; the label of each is a file, or a folder of them.

    If nothing is chosen, the series of a case is the one on whose voxels its mask lies.

    Args:
        examinations: The examinations.
        files: The files of masks.
        places: Folder of the series, and folder of the masks.
        choice: Which series are meant.
        reporter: Shows progress, and is told what belongs together and what is left out.

    Raises:
        DatasetError: No mask has the name of an examination.
        AutosegError: A mask lies on no series, or it is not clear which is meant; see `choose_series`.
    """
    source, folder = places
    matches = match_masks(files, folder, examinations, source)
    cases = _pair(examinations, matches, choice, reporter)
    if not cases:
        raise nothing_matches(matches, folder, examinations)
    report_pairs([(case, case.label) for case in cases if case.label is not None], folder, reporter)
    without = [one.name for one, masks in zip(examinations, matches.by_examination, strict=True) if not masks]
    pairing.report_left_out("Examinations without a mask", without, reporter)
    unmatched = (str(path.relative_to(folder)) for path in matches.unmatched)
    pairing.report_left_out("Masks of no examination", unmatched, reporter)
    for line in describe_dicom_scans(cases):
        reporter.say(line)
    return cases


def check_image_masks(
    examinations: Sequence[Examination], files: Sequence[Path], places: tuple[Path, Path], reporter: Reporter
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Lists what is wrong with masks in image files: those that have the name of nothing, and those that do not fit.

    Args:
        examinations: The examinations.
        files: The files of masks.
        places: Folder of the series, and folder of the masks.
        reporter: Shows progress, and is told where the series of a mask must be chosen.

    Returns:
        UID of each series on which a mask lies, to the names of its files; and the problems.
    """
    source, folder = places
    matches = match_masks(files, folder, examinations, source)
    fix = "name it after the folder of its examination, or by the UID of its series"
    problems = [
        Problem(case="", what=f"{path} has the name of no examination and no series", fix=fix)
        for path in matches.unmatched
    ]
    drawn: dict[str, tuple[str, ...]] = {}
    pairs = [(one, masks) for one, masks in zip(examinations, matches.by_examination, strict=True) if masks]

    def pair(item: tuple[Examination, tuple[NamedMask, ...]]) -> Case:
        return _pair_one(*item, ONLY_SERIES)

    results = map_in_threads(pair, pairs, title="reading masks", reporter=reporter)
    for (examination, masks), result in zip(pairs, results, strict=True):
        if isinstance(result, SeriesChoiceError):
            reporter.say(f"the mask of {examination.name} lies on several series, so that one must be chosen: {result}")
        elif isinstance(result, AutosegError):
            problems.append(Problem(case=examination.name, what=result.what, fix=result.fix))
        else:
            drawn[result.series[0].uid] = tuple(mask.label.name for mask in masks)
    return drawn, problems


def read_on_series(case: Case, structures: Structures | None, numbers: dict[int, int]) -> Volume:
    """Reads the label map of a case on the grid of the first of its series.

    Args:
        case: The case; its label is a file, or a folder of a mask per structure.
        structures: The structures of all cases, if each has a mask; else None.
        numbers: Value in the masks to number of the label, if each is a label map.

    Raises:
        AutosegError: The mask cannot be read, or lies on none of the series.
    """
    label = Path(str(case.label))
    if structures is not None:
        return place_on_series(combine_masks(label, structures), case)
    volume = read_label_map(label)
    if not is_identity(numbers):
        volume = replace(volume, array=renumber(volume.array, numbers))
    return place_on_series(volume, case)


def place_on_series(label: Volume, case: Case) -> Volume:
    """Returns a label map on the grid of the first series of a case.

    It must lie on the voxels of one of its series, in whatever order and direction of the axes; it may be cut to a part
    of them. From another series than the first, each voxel gets the label of the nearest one.

    Args:
        label: Shape (z, y, x).
        case: The case, with its series.

    Raises:
        DatasetError: It lies on none of them.
    """
    for series in case.series:
        placed = _lay_on(label, grid_of_voxels(series))
        if placed is not None:
            first = grid_of_voxels(case.series[0])
            if placed.geometry.difference(first) is None:
                return placed
            return resample(placed, first, nearest=True, name=f"the mask of case {case.name!r}")
    raise _lies_nowhere(case.name, str(case.label), label.geometry, case.series)


def is_structured(label: Path) -> bool:
    """Returns whether a label is a mask per structure: a folder, or a segmentation of 3D Slicer."""
    return label.is_dir() or bool(read_segments(label))


def _pair(
    examinations: Sequence[Examination], matches: MatchedMasks, choice: SeriesChoice, reporter: Reporter
) -> tuple[Case, ...]:
    """Returns the cases that have masks, ordered by name."""
    pairs = [(one, masks) for one, masks in zip(examinations, matches.by_examination, strict=True) if masks]

    def pair(item: tuple[Examination, tuple[NamedMask, ...]]) -> Case:
        return _pair_one(*item, choice)

    results = map_in_threads(pair, pairs, title="placing masks", reporter=reporter)
    errors = [result for result in results if isinstance(result, AutosegError)]
    if errors:
        raise errors[0] if len(errors) == 1 else ProblemsError([str(error) for error in errors])
    cases = [result for result in results if isinstance(result, Case)]
    return tuple(sorted(cases, key=lambda case: case.name))


def _pair_one(examination: Examination, masks: Sequence[NamedMask], choice: SeriesChoice) -> Case:
    """Returns the case of an examination; without a choice, its series is the one that its mask lies on."""
    chosen = make_case(examination, choice, "") if choice.texts else None
    if chosen is not None:
        meant = [mask for mask in masks if _are_one(mask.series, chosen.series)]
        masks = meant or masks
    if len(masks) > 1:
        what = f"case {examination.name!r}: {masks[0].label} and {masks[1].label} are both masks of it"
        raise DatasetError(what, "choose one of their series with --series, or remove one")
    label = masks[0].label
    drawn = _read_drawn(label)
    if chosen is None:
        fitting = [series for series in masks[0].series if _fits(drawn, series)]
        fitting = [series for series in fitting if _is_whole(drawn, series)] or fitting
        if not fitting:
            raise _lies_nowhere(examination.name, str(label), drawn.geometry, masks[0].series)
        chosen = make_case(Examination(name=examination.name, series=fitting), choice, "")
    case = replace(chosen, label=label)
    place_on_series(drawn, case)
    return case


def _are_one(series: Sequence[Series], chosen: Sequence[Series]) -> bool:
    return bool({one.uid for one in series} & {one.uid for one in chosen})


def _fits(drawn: Volume, series: Series) -> bool:
    return not series.role and series.geometry is not None and _lay_on(drawn, grid_of_voxels(series)) is not None


def _read_drawn(label: Path) -> Volume:
    """Reads a mask as a label map that has 1 where anything is drawn, of a folder that of all its masks."""
    if not is_structured(label):
        volume = read_label_map(label)
        return Volume(array=(volume.array != 0).astype(np.uint8), geometry=volume.geometry)
    parts = read_parts(list_masks(label), label)
    first = next(parts)
    drawn = (first.voxels.array != 0).astype(np.uint8)
    for part in parts:
        drawn |= (part.voxels.array != 0).astype(np.uint8)
    return Volume(array=drawn, geometry=first.voxels.geometry)


def _is_whole(drawn: Volume, series: Series) -> bool:
    """Returns whether a mask that fits has as many voxels as the series, rather than those of a part of it."""
    return sorted(drawn.geometry.shape) == sorted(grid_of_voxels(series).shape)


def _lay_on(label: Volume, grid: Geometry) -> Volume | None:
    """Returns a label map on a grid whose voxels are its own; None if they are others, or if labels lie outside."""
    if grid.orientation is None or label.geometry.orientation is None:
        return lay_on_grid(label, grid)
    placed = lay_on_grid(label.reoriented(grid.orientation), grid)
    if placed is None or np.count_nonzero(placed.array) < np.count_nonzero(label.array):
        return None
    return placed


def _lies_nowhere(name: str, label: str, geometry: Geometry, series: Sequence[Series]) -> DatasetError:
    scans = [one for one in series if not one.role and one.geometry is not None]
    if not scans:
        what = f"case {name!r}: it has no series that can be read, so that {label} lies on none"
        return DatasetError(what, "list what is wrong with 'autoseg check', or remove the case")
    grid = grid_of_voxels(scans[0])
    turned = geometry if grid.orientation is None else geometry.reoriented(grid.orientation)
    difference = grid.difference(turned) or "labels lie outside of it"
    others = f", nor on {len(scans) - 1} others" if len(scans) > 1 else ""
    what = f"case {name!r}: {label} does not lie on the voxels of {scans[0].name} ({difference}){others}"
    return DatasetError(what, "resample it onto the series that it was drawn on, or remove it")
