"""Datasets in DICOM: series, and segmentations or structure sets that were drawn on them, paired by their UIDs.

    source/patient_1/...      series and masks, in any folders and under any names
    masks/...                 masks may also lie elsewhere

Structures that overlap are segmented as masks of their own, as those of folders of masks are; see `structures`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import Case
from autoseg.datasets.dicom_scans import describe_dicom_scans, make_case
from autoseg.datasets.info import DatasetInfo
from autoseg.dicom.channels import resample
from autoseg.dicom.examinations import Examination
from autoseg.dicom.masks import MaskFile, describe_frames, describe_mask, place_masks, read_mask
from autoseg.dicom.pixels import grid_of_voxels
from autoseg.dicom.search import DicomFiles, find_series
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import AutosegError, DatasetError, ProblemsError
from autoseg.imaging.affine_geometry import is_sheared
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_combinations import combine
from autoseg.imaging.straight_grid import straighten
from autoseg.importing import pairing
from autoseg.importing.dicom_files import name_channels, report_pairs
from autoseg.importing.structures import PartCombination, Structures, number_structures
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

SeriesKey = tuple[str, str, Path]
"""What tells a volume from others; see `Series.key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedCase:
    """A case with its masks.

    Attributes:
        case: The case; `Case.label` is the first file of its masks.
        channel: Channel whose series the masks were drawn on.
        masks: Their files.
    """

    case: Case
    channel: int
    masks: tuple[MaskFile, ...]

    @property
    def name(self) -> str:
        """Name of the case, for progress and errors."""
        return self.case.name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all structures that are annotated in the case."""
        return tuple(name for mask in self.masks for name in mask.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomDataset:
    """Cases in DICOM with masks.

    Attributes:
        annotated: The cases, by name.
        structures: Names of all structures, and the number of each combination of them.
    """

    annotated: dict[str, AnnotatedCase] = field(default_factory=dict)
    structures: Structures

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases, ordered by name."""
        return tuple(annotated.case for _, annotated in sorted(self.annotated.items()))

    def describe(self) -> DatasetInfo:
        """Returns the content of dataset.json."""
        return DatasetInfo(
            channel_names=name_channels([case.series for case in self.cases]),
            labels=self.structures.labels(),
            file_ending=".nii.gz",
            masks=self.structures.overlap,
            annotated=self.unannotated() or None,
        )

    def read_label(self, name: str) -> Volume:
        """Reads the label map of a case, on the grid of its first channel.

        Raises:
            AutosegError: A mask is damaged, or does not lie on its series.
        """
        annotated = self.annotated[name]
        codes, combinations = _combine(annotated, self.structures.names)
        numbers = np.array([self.structures.number_of(combination) for combination in combinations], dtype=np.int32)
        drawn_on, first = annotated.case.series[annotated.channel], annotated.case.series[0]
        label = Volume(array=numbers[codes], geometry=drawn_on.grid())
        if is_sheared(label.geometry):
            straight = straighten(Volume(array=label.array[np.newaxis], geometry=label.geometry), "labels")
            label = Volume(array=straight.array[0], geometry=straight.geometry)
        grid = grid_of_voxels(first)
        if label.geometry.difference(grid) is not None:
            label = resample(label, grid, nearest=True, name=f"the mask of case {name!r}")
        return label

    def unannotated(self) -> dict[str, tuple[str, ...]]:
        """Returns, for each case that lacks structures of other cases, those that were annotated in it."""
        names = self.structures.names
        present = {name: set(annotated.names) for name, annotated in sorted(self.annotated.items())}
        lists = {name: tuple(one for one in names if one in annotated) for name, annotated in present.items()}
        return {name: annotated for name, annotated in lists.items() if len(annotated) < len(names)}


def find_dicom_dataset(
    source: Path,
    examinations: Sequence[Examination],
    masks: Sequence[MaskFile],
    choice: SeriesChoice,
    reporter: Reporter,
) -> DicomDataset:
    """Finds the cases of a source in DICOM that have masks.

    If nothing is chosen, the series of a case is the one that its masks were drawn on.

    Args:
        source: The source, for errors.
        examinations: Its examinations.
        masks: All segmentations and structure sets; see `find_masks`.
        choice: Which series are meant.
        reporter: Shows progress, and is told what is left out.

    Raises:
        DatasetError: There are no masks, or none belongs to a series.
        AutosegError: A file is damaged, or it is not clear which series of a case is meant.
    """
    annotated = _annotate(examinations, masks, choice, source, reporter)
    for line in describe_dicom_scans([one.case for one in annotated]):
        reporter.say(line)
    names = sorted({name for one in annotated for name in one.names})

    def find(one: AnnotatedCase) -> set[PartCombination]:
        return set(_combine(one, names)[1])

    combinations = results_or_raise(map_in_threads(find, annotated, title="reading masks", reporter=reporter))
    structures = number_structures(names, combinations, source)
    reporter.say(structures.describe())
    return DicomDataset(annotated={one.name: one for one in annotated}, structures=structures)


def find_masks(files: DicomFiles, labels: Path | None) -> list[MaskFile]:
    """Reads what all segmentations and structure sets were drawn on.

    Args:
        files: The files of the source.
        labels: Folder of further masks.

    Raises:
        ProblemsError: There are some, and none can be read.
    """
    headers = files.masks if labels is None else (*files.masks, *find_series(labels).masks)
    masks, errors = [], [*files.damaged] if labels is None else []
    for header in headers:
        try:
            masks.append(describe_mask(header))
        except AutosegError as error:
            errors.append(error)  # type: ignore[arg-type]
    if errors and not masks:
        raise ProblemsError([str(error) for error in errors])
    return masks


def _annotate(
    examinations: Sequence[Examination],
    masks: Sequence[MaskFile],
    choice: SeriesChoice,
    source: Path,
    reporter: Reporter,
) -> list[AnnotatedCase]:
    """Chooses the series of each examination, and gives it the masks that were drawn on them."""
    by_series = _group_masks(examinations, masks, reporter)
    cases, errors, without = [], [], []
    for examination in examinations:
        try:
            case = _annotate_one(examination, by_series, choice)
        except AutosegError as error:
            errors.append(error)
            continue
        if case is None:
            without.append(examination.name)
        else:
            cases.append(case)
    if errors:
        raise errors[0] if len(errors) == 1 else ProblemsError([str(error) for error in errors])
    if not cases:
        what = f"{source}: none of {len(masks)} segmentations and structure sets was drawn on one of its series"
        raise DatasetError(
            what, "bring DICOM-SEG or RTSTRUCT of these series, or image files of their names, with --labels"
        )
    used = {mask.path for case in cases for mask in case.masks}
    cases.sort(key=lambda annotated: annotated.name)
    report_pairs([(one.case, mask.path) for one in cases for mask in one.masks], source, reporter)
    pairing.report_left_out("Examinations without a mask", without, reporter)
    pairing.report_left_out("Masks of no chosen series", (str(m.path) for m in masks if m.path not in used), reporter)
    return cases


def _group_masks(
    examinations: Sequence[Examination], masks: Sequence[MaskFile], reporter: Reporter
) -> dict[SeriesKey, list[MaskFile]]:
    """Returns the masks that were drawn on each volume."""
    placed = place_masks(masks, [series for examination in examinations for series in examination.series])
    for line in describe_frames(placed):
        reporter.say(line)
    by_series: dict[SeriesKey, list[MaskFile]] = {}
    for mask, found in placed:
        for series in found:
            by_series.setdefault(series.key, []).append(mask)
    return by_series


def _annotate_one(
    examination: Examination, by_series: dict[SeriesKey, list[MaskFile]], choice: SeriesChoice
) -> AnnotatedCase | None:
    drawn_on = [series for series in examination.series if series.key in by_series]
    if not drawn_on:
        return None
    candidates = examination if choice.texts else Examination(name=examination.name, series=drawn_on)
    case = make_case(candidates, choice, "")
    channel = next((index for index, series in enumerate(case.series) if series.key in by_series), None)
    if channel is None:
        return None
    masks = tuple(by_series[case.series[channel].key])
    _check_names(examination.name, masks)
    for series in case.series:
        series.grid()  # what cannot be read is said before the work
    labelled = Case(name=case.name, images=case.images, label=masks[0].path, series=case.series)
    return AnnotatedCase(case=labelled, channel=channel, masks=masks)


def _check_names(case: str, masks: Sequence[MaskFile]) -> None:
    """Checks that no two files have a structure of the same name, as where two readers drew it."""
    owners: dict[str, Path] = {}
    for mask in masks:
        for name in mask.names:
            if name in owners:
                what = f"case {case!r}: {owners[name]} and {mask.path} both hold {name!r}"
                raise DatasetError(what, "leave one of them out")
            owners[name] = mask.path


def _combine(annotated: AnnotatedCase, names: Sequence[str]) -> tuple[NDArray[np.int32], list[PartCombination]]:
    """Returns a code for each voxel of the series that was drawn on, and the combination that each code stands for."""
    geometry = annotated.case.series[annotated.channel].grid()
    index_of = {name: index for index, name in enumerate(names)}

    def read() -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for mask in annotated.masks:
            yield from ((index_of[name], array) for name, array in read_mask(mask, geometry) if name in index_of)

    codes, combinations = combine(read(), geometry.shape)
    return codes, [tuple((names[index], 1) for index in sorted(set(combination))) for combination in combinations]
