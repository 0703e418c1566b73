"""Series over time with a label map for each point in time: every labelled point becomes a case."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.datasets.dataset import Case
from autoseg.datasets.time_series import split_series
from autoseg.errors import DatasetError
from autoseg.imaging.image_files import read_stored
from autoseg.imaging.image_headers import count_volumes
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCases:
    """Cases, in which a series is a case for each point in time.

    Attributes:
        cases: The cases.
        groups: Name of each point in time to that of its series, which must not be on both sides of a fold.
    """

    cases: tuple[Case, ...]
    groups: dict[str, str]


def split_cases(cases: Sequence[Case], reporter: Reporter) -> SplitCases:
    """Splits the series among cases: those whose label file holds several volumes.

    An image of several volumes with a label map of one volume has several channels, and stays as it is. Decision:
    points in time without any label, beside others of the series with labels, were not annotated, and are left out;
    people annotate the heart at the end of diastole and of systole only.

    Args:
        cases: Cases with a file each for image and label map; others stay as they are.
        reporter: Shows progress, and is told of series and of what is left out.

    Raises:
        DatasetError: A label file holds another number of volumes than its image.
        ImageError: A file cannot be read.
    """
    counts = {case.name: count_volumes(case.label) for case in cases if case.label and case.label.is_file()}
    series = [case for case in cases if counts.get(case.name, 1) > 1 and count_volumes(case.images[0]) > 1]
    if not series:
        return SplitCases(cases=tuple(cases), groups={})

    def find(case: Case) -> list[int]:
        return _find_labelled(case, counts[case.name])

    labelled = results_or_raise(map_in_threads(find, series, title="reading series", reporter=reporter))
    points_of = dict(zip((case.name for case in series), labelled, strict=True))
    kept: list[Case] = []
    groups: dict[str, str] = {}
    for case in cases:
        points = split_series(case, counts[case.name]) if case.name in points_of else [case]
        chosen = [point for point in points if point.time_point is None or point.time_point in points_of[case.name]]
        kept += chosen
        groups |= {point.name: case.name for point in chosen if point.time_point is not None}
    total, left = sum(counts[name] for name in points_of), sum(map(len, labelled))
    reporter.say(
        f"{len(series)} series over time become {left} cases, one for each point in time; those of a series stay in "
        f"one fold: {list_names(points_of)}"
    )
    if left < total:
        reporter.say(f"Left out: {total - left} points in time without any label")
    return SplitCases(cases=tuple(kept), groups=groups)


def _find_labelled(case: Case, count: int) -> list[int]:
    """Returns the points in time that are labelled; all, if none is."""
    images = [count_volumes(image) for image in case.images]
    if images != [count]:
        volumes = ", ".join(map(str, images))
        what = f"{case.label} holds {count} volumes, the image of {case.name!r} holds {volumes}"
        raise DatasetError(what, "bring as many label maps as points in time, or one label map for all channels")
    array = read_stored(Path(str(case.label))).array
    labelled = [point for point, volume in enumerate(array) if np.any(volume)]
    return labelled or list(range(count))
