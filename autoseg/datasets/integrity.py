"""Whether the voxels of a dataset are fit for training. Checks that need no voxels live in `dataset`.

`autoseg check` lists every problem of every case. The pipeline asks the same functions while it reads the cases for the
fingerprint, so that each file is read once.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import Case, Dataset, Problem
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.files import read_image, read_label_map
from autoseg.imaging.geometry import Volume
from autoseg.runtime.reporting import SILENT, Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

CASES_NEEDED = 2  # one to train on and one to hold out


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One case that was read, and what was found in it.

    Attributes:
        name: Of the case.
        image: Shape (c, z, y, x), float32; None if it cannot be read.
        label: Shape (z, y, x), int32; None if it cannot be read.
        problems: What keeps the case from being used. If there is none, image and label are there and fit together.
        labels_seen: Values of the label map, the background included; None if it cannot be read.
    """

    name: str
    image: Volume | None
    label: Volume | None
    problems: tuple[Problem, ...]
    labels_seen: frozenset[int] | None

    def without_voxels(self) -> "Inspection":
        """The findings alone, which are small enough to be kept for all cases."""
        return replace(self, image=None, label=None)


def check_dataset(dataset: Dataset, reporter: Reporter = SILENT) -> list[Problem]:
    """Reads every case and lists all problems; a bad case never hides another one."""

    def inspect(case: Case) -> Inspection:
        return inspect_case(case, dataset.info).without_voxels()

    inspections = results_or_raise(map_in_threads(inspect, dataset.cases, title="checking cases", reporter=reporter))
    return find_problems(dataset, inspections)


def find_problems(dataset: Dataset, inspections: Sequence[Inspection]) -> list[Problem]:
    """Lists all problems of a dataset: of missing files, then of voxels by case, then of the dataset as a whole.

    Args:
        dataset: The dataset.
        inspections: One per case of it; the voxels are not needed any more.
    """
    of_cases = [problem for inspection in inspections for problem in inspection.problems]
    return [*dataset.problems, *of_cases, *_common_problems(dataset.info, inspections)]


def inspect_case(case: Case, info: DatasetInfo) -> Inspection:
    """Reads one case and checks it; files that cannot be read are among the problems, never raised."""
    problems = []
    image = label = None
    try:
        image = read_image(case.images)
    except AutosegError as error:
        problems.append(_problem(case.name, error.what, error.fix))
    try:
        label = _read_label(case)
    except AutosegError as error:
        problems.append(_problem(case.name, error.what, error.fix))
    seen = _values(label.array) if label else None
    if image:
        problems += _image_problems(image, case.name, info)
    if image and label:
        problems += _grid_problems(image, label, case.name)
    problems += _label_problems(seen or (), case.name, info)
    problems += _annotation_problems(seen or (), case.name, info)
    return Inspection(name=case.name, image=image, label=label, problems=tuple(problems), labels_seen=seen)


def load_case(case: Case, info: DatasetInfo) -> tuple[Volume, Volume]:
    """Reads one case that must be sound.

    Returns:
        The image, (c, z, y, x), and its label map, (z, y, x), on one grid.

    Raises:
        DatasetError: The case has a problem; the text states the first.
    """
    inspection = inspect_case(case, info)
    if inspection.image is None or inspection.label is None or inspection.problems:
        first = inspection.problems[0]
        raise DatasetError(f"case {first.case!r}: {first.what}", first.fix)
    return inspection.image, inspection.label


def _common_problems(info: DatasetInfo, inspections: Sequence[Inspection]) -> list[Problem]:
    """What only the cases together show: too few of them, or labels that occur in none.

    Labels are judged only if every label map could be read, because an unread one may hold them.
    """
    problems = []
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


def _image_problems(image: Volume, name: str, info: DatasetInfo) -> list[Problem]:
    channels = image.array.shape[0]
    if channels != info.channels:
        what = f"its image holds {channels} channels, but dataset.json names {info.channels}"
        return [_problem(name, what, "correct channel_names or the image")]
    return [
        _problem(name, f"channel {number} ({title}) has the same value everywhere", "replace the image")
        for (number, title), channel in zip(info.channel_names.items(), image.array, strict=True)
        if channel.min() == channel.max()
    ]


def _grid_problems(image: Volume, label: Volume, name: str) -> list[Problem]:
    difference = image.geometry.difference(label.geometry)
    if difference is None:
        return []
    what = f"image and label map lie on different grids: {difference}"
    return [_problem(name, what, "resample the label map onto the image")]


def _label_problems(seen: Iterable[int], name: str, info: DatasetInfo) -> list[Problem]:
    known = info.targets.values
    unknown = sorted(set(seen) - known)
    if not unknown:
        return []
    values = list_names(unknown, count_rest=False)
    what = f"its label map holds {values}, but dataset.json names 0 to {max(known)}"
    return [_problem(name, what, "correct the label map or dataset.json")]


def _annotation_problems(seen: Collection[int], name: str, info: DatasetInfo) -> list[Problem]:
    """Structures that the label map holds though dataset.json says that nobody looked for them."""
    found = [one for one in info.unannotated_in(name) if not set(info.targets.structures[one]).isdisjoint(seen)]
    if not found:
        return []
    what = f"its label map holds {found[0]!r}, which 'annotated' in dataset.json leaves out"
    return [_problem(name, what, "add the label there")]


def _problem(name: str, what: str, fix: str) -> Problem:
    return Problem(case=name, what=what, fix=f"{fix}, or leave the case out with 'plan_and_preprocess --skip {name}'")


def _values(array: NDArray[np.integer]) -> frozenset[int]:
    """The values of a label map, slice by slice to bound the memory; voxels like the one before need no sorting."""
    found: set[int] = set()
    for plane in array:
        voxels = plane.ravel()
        begins_run = np.ones(len(voxels), dtype=bool)
        np.not_equal(voxels[1:], voxels[:-1], out=begins_run[1:])
        found.update(np.unique(voxels[begins_run]).tolist())
    return frozenset(found)


def _count_labels(info: DatasetInfo, inspections: Iterable[Inspection]) -> dict[str, int]:
    counts = Counter(value for inspection in inspections for value in inspection.labels_seen or ())
    return {name: sum(counts[number] for number in numbers) for name, numbers in info.targets.structures.items()}
