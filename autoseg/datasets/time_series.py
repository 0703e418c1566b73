"""Series over time, such as cine MR of the heart: each point in time is a case of its own."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from autoseg.datasets.dataset import Case
from autoseg.imaging.image_headers import count_points
from autoseg.runtime.reporting import list_names

FEWEST_DIGITS = 2


def split_series(case: Case, count: int) -> list[Case]:
    """Returns a case for each point in time of a series.

    Example:
        >>> from pathlib import Path
        >>> points = split_series(Case(name="heart_1", images=(Path("heart_1.nii.gz"),)), 30)
        >>> points[0].name, points[29].name, points[29].time_point
        ('heart_1_t00', 'heart_1_t29', 29)
    """
    digits = max(FEWEST_DIGITS, len(str(count - 1)))
    return [replace(case, name=f"{case.name}_t{point:0{digits}d}", time_point=point) for point in range(count)]


def split_scans(scans: Iterable[Case]) -> list[Case]:
    """Splits the scans of a model of one channel that hold several volumes, which must then be points in time."""
    points = []
    for scan in scans:
        count = count_points(scan.images[0]) if len(scan.images) == 1 else 1
        points += split_series(scan, count) if count > 1 else [scan]
    return points


def describe_series(scans: Iterable[Case]) -> str | None:
    """Returns a line about the scans that are points in time; None if there are none.

    Example:
        >>> from pathlib import Path
        >>> describe_series(split_series(Case(name="heart_1", images=(Path("heart_1.nii.gz"),)), 30))
        'heart_1.nii.gz: 30 points in time, each of which is segmented as a scan of its own'
    """
    counts = Counter(scan.images[0].name for scan in scans if scan.time_point is not None)
    if not counts:
        return None
    if len(counts) > 1:
        return f"{len(counts)} series over time, whose points are scans of their own: {list_names(counts)}"
    [(name, count)] = counts.items()
    return f"{name}: {count} points in time, each of which is segmented as a scan of its own"
