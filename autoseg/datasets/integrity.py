"""Checks whether the voxels of a dataset are fit for training; `dataset` has the checks that need no voxels.

`autoseg check` lists every problem of every case. Taking the fingerprint calls the same functions while it reads the
cases, so that each file is read once.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import Case, Dataset, Problem
from autoseg.datasets.info import COLOURS, DatasetInfo
from autoseg.datasets.oddities import CaseExtent, describe_oddities
from autoseg.datasets.scan_images import read_scan
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_files import check_mask_names
from autoseg.runtime.reporting import SILENT, Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

CASES_NEEDED = 2  # one for training and one for validation

BRIGHTEST = 255
"""The largest value that a colour may have."""

LARGEST_INTENSITY = 1e30
"""Decision: programs mark missing voxels by the largest 32-bit number, 3.4e38, whose differences are no numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One case that was read, and its problems.

    Attributes:
        name: Name of the case.
        image: Image, shape (c, z, y, x), float32; None if it cannot be read.
        label: Label map, shape (z, y, x), int32; None if it cannot be read.
        problems: Problems that prevent the use of the case. If there is none, image and label map are present and fit
            together.
        labels_seen: Values of the label map, including the background; None if it cannot be read.
        extent: Size and spacing of the image, and its smallest and largest values; None if it cannot be read.
    """

    name: str
    image: Volume | None
    label: Volume | None
    problems: tuple[Problem, ...]
    labels_seen: frozenset[int] | None
    extent: CaseExtent | None = None

    def without_voxels(self) -> "Inspection":
        """Returns the inspection without image and label map, which is small enough to be kept for all cases."""
        return replace(self, image=None, label=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCheck:
    """What reading a whole dataset has shown.

    Attributes:
        problems: All problems: of missing files, then of each case, then of the dataset as a whole.
        remarks: Lines about what is odd and no reason to stop.
    """

    problems: tuple[Problem, ...]
    remarks: tuple[str, ...]


def check_dataset(dataset: Dataset, reporter: Reporter = SILENT) -> DatasetCheck:
    """Reads every case and lists all problems; one bad case never hides another."""

    def inspect(case: Case) -> Inspection:
        return inspect_case(case, dataset.info).without_voxels()

    inspections = results_or_raise(map_in_threads(inspect, dataset.cases, title="checking cases", reporter=reporter))
    return DatasetCheck(
        problems=tuple(find_problems(dataset, inspections)),
        remarks=(*find_oddities(dataset, inspections), *dataset.remarks),
    )


def find_oddities(dataset: Dataset, inspections: Sequence[Inspection]) -> list[str]:
    """Returns lines about what is odd about the cases that can be used, and no reason to stop; see `oddities`."""
    extents = [found.extent for found in inspections if found.extent is not None and not found.problems]
    return list(describe_oddities(extents, dataset.info))


def find_problems(dataset: Dataset, inspections: Sequence[Inspection]) -> list[Problem]:
    """Lists all problems of a dataset: missing files, then the voxels of each case, then the dataset as a whole.

    Args:
        dataset: The dataset.
        inspections: One for each of its cases; the voxels are not needed.
    """
    case_problems = [problem for inspection in inspections for problem in inspection.problems]
    return [*dataset.problems, *case_problems, *_common_problems(dataset.info, inspections)]


def inspect_case(case: Case, info: DatasetInfo) -> Inspection:
    """Reads and checks one case; unreadable files are listed as problems and raise no error."""
    problems = []
    image = label = None
    try:
        image = read_scan(case)
    except AutosegError as error:
        problems.append(_problem(case.name, error.what, error.fix))
    try:
        label = _read_label(case)
    except AutosegError as error:
        problems.append(_problem(case.name, error.what, error.fix))
    values = _find_values(label.array) if label else None
    extent = _measure(case.name, image) if image else None
    if extent:
        problems += _channel_problems(extent, info)
        problems += _value_problems(extent, info, is_labelled=values != frozenset({0}))
    if image and label:
        problems += _grid_problems(image, label, case.name)
    problems += _label_problems(values or (), case.name, info)
    problems += _annotation_problems(values or (), case.name, info)
    return Inspection(
        name=case.name, image=image, label=label, problems=tuple(problems), labels_seen=values, extent=extent
    )


def load_case(case: Case, info: DatasetInfo) -> tuple[Volume, Volume]:
    """Reads one case that must be sound.

    Returns:
        The image, shape (c, z, y, x), and its label map, shape (z, y, x), on the same grid.

    Raises:
        DatasetError: The case has a problem; the text states the first.
    """
    inspection = inspect_case(case, info)
    if inspection.image is None or inspection.label is None or inspection.problems:
        first = inspection.problems[0]
        raise DatasetError(f"case {first.case!r}: {first.what}", first.fix)
    return inspection.image, inspection.label


def _common_problems(info: DatasetInfo, inspections: Sequence[Inspection]) -> list[Problem]:
    """Lists the problems of the dataset as a whole: too few cases, or labels that occur in no case.

    Labels are checked only if every label map could be read, because an unreadable one may hold them.
    """
    problems = []
    try:
        check_mask_names(info.targets)
    except AutosegError as error:
        problems.append(Problem(case="", what=error.what, fix=error.fix))
    if len(inspections) < CASES_NEEDED:
        what = f"the dataset has {len(inspections)} complete case{'' if len(inspections) == 1 else 's'}"
        problems.append(Problem(case="", what=what, fix=f"bring at least {CASES_NEEDED}"))
    if not inspections or any(inspection.labels_seen is None for inspection in inspections):
        return problems
    missing = [name for name, cases in _count_labels(info, inspections).items() if cases == 0]
    if len(missing) == len(info.targets.structures):
        problems.append(Problem(case="", what="all label maps are empty", fix="check that they are the label maps"))
    elif missing:
        what = f"no label map holds {', '.join(map(repr, missing))}"
        fix = "add such cases, or take the label out of dataset.json and renumber the others"
        problems.append(Problem(case="", what=what, fix=fix))
    return problems


def _read_label(case: Case) -> Volume:
    if case.label is None:
        raise DatasetError("it has no label map", "add it")
    return read_label_map(case.label)


def _measure(name: str, image: Volume) -> CaseExtent:
    return CaseExtent(
        name=name,
        shape=image.geometry.shape,
        spacing_mm=image.geometry.spacing_mm,
        intensities=tuple((float(channel.min()), float(channel.max())) for channel in image.array),
    )


def _channel_problems(extent: CaseExtent, info: DatasetInfo) -> list[Problem]:
    channels = len(extent.intensities)
    if channels == info.channels:
        return []
    what = f"its image holds {channels} channels, but dataset.json names {info.channels}"
    series = "" if info.channels > 1 else "let 'autoseg import' make a case of each, if they are points in time, or "
    return [_problem(extent.name, what, f"{series}correct channel_names or the image")]


def _value_problems(extent: CaseExtent, info: DatasetInfo, *, is_labelled: bool) -> list[Problem]:
    """Lists values from which nothing can be learned, or that a channel's normalization refuses.

    Decision: a channel that holds nothing is said by `oddities`, since a patient may lack it and a frame may be black;
    a whole image that holds nothing, and has labels all the same, is a mistake.
    """
    if is_labelled and all(lowest == highest for lowest, highest in extent.intensities):
        channels = zip(extent.intensities, info.channel_names.items(), strict=False)
        constants = [f"{value:g} in channel {number} ({title})" for (value, _), (number, title) in channels]
        what = f"its image has the same value everywhere, {', '.join(constants)}, and its label map holds structures"
        return [_problem(extent.name, what, "replace the image")]
    problems = []
    for (number, title), (lowest, highest) in zip(info.channel_names.items(), extent.intensities, strict=False):
        values = f"channel {number} ({title}) holds values from {lowest:g} to {highest:g}"
        if title.casefold() == COLOURS and not (lowest >= 0 and highest <= BRIGHTEST):
            fix = "give colours of 8 bit, or name the channel otherwise in dataset.json to have it z-scored"
            problems.append(_problem(extent.name, f"{values}, outside the 0 to {BRIGHTEST} of colours", fix))
        if max(abs(lowest), abs(highest)) > LARGEST_INTENSITY:
            fix = "replace what marks missing voxels by a usual value, such as 0"
            problems.append(_problem(extent.name, f"{values}, which nothing measures", fix))
    return problems


def _grid_problems(image: Volume, label: Volume, name: str) -> list[Problem]:
    difference = describe_difference(image.geometry, label.geometry)
    if difference is None:
        return []
    what = f"image and label map lie on different grids: {difference}"
    if image.geometry.shape != label.geometry.shape:
        return [_problem(name, what, "resample the label map onto the image")]
    fix = "if it was drawn on this image, import with --geometry image, since only headers differ; else resample it"
    return [_problem(name, what, fix)]


def _label_problems(values: Iterable[int], name: str, info: DatasetInfo) -> list[Problem]:
    named = info.targets.values
    unknown = sorted(set(values) - named)
    if not unknown:
        return []
    listed = list_names(unknown, count_rest=False)
    what = f"its label map holds {listed}, but dataset.json names 0 to {max(named)}"
    return [_problem(name, what, "correct the label map or dataset.json")]


def _annotation_problems(values: Collection[int], name: str, info: DatasetInfo) -> list[Problem]:
    """Lists structures that the label map holds although dataset.json says that they were not annotated."""
    structures = info.targets.structures
    present = [label for label in info.unannotated_in(name) if not set(structures[label]).isdisjoint(values)]
    if not present:
        return []
    what = f"its label map holds {present[0]!r}, which 'annotated' in dataset.json leaves out"
    return [_problem(name, what, "add the label there")]


def _problem(name: str, what: str, fix: str) -> Problem:
    return Problem(case=name, what=what, fix=f"{fix}, or leave the case out with 'plan_and_preprocess --skip {name}'")


def _find_values(array: NDArray[np.integer]) -> frozenset[int]:
    """Returns the values of a label map.

    It is read slice by slice to limit the memory; voxels that equal their predecessor are left out before sorting.
    """
    values: set[int] = set()
    for plane in array:
        voxels = plane.ravel()
        begins_run = np.ones(len(voxels), dtype=bool)
        np.not_equal(voxels[1:], voxels[:-1], out=begins_run[1:])
        values.update(np.unique(voxels[begins_run]).tolist())
    return frozenset(values)


def _count_labels(info: DatasetInfo, inspections: Iterable[Inspection]) -> dict[str, int]:
    """Returns, for each structure, in how many label maps its numbers occur."""
    counts = Counter(value for inspection in inspections for value in inspection.labels_seen or ())
    return {name: sum(counts[number] for number in numbers) for name, numbers in info.targets.structures.items()}
