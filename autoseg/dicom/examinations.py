"""Examinations in a source: which series and masks belong to one case, and how the case is named."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path

from autoseg.dicom.series import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The series of one study.

    Attributes:
        name: Name of the case: that of its folder in the source, else of the source itself, with a number if several
            studies lie in one folder. No name of a patient is used, since results are named by it.
        series: All series, in the order of their numbers.
    """

    name: str
    series: list[Series] = field(default_factory=list)


def group_examinations(series: Sequence[Series], source: Path) -> list[Examination]:
    """Groups series by study, and names each by the part of its path that tells it from the others.

    Args:
        series: All series of a source.
        source: The folder or file in which they were found.
    """
    studies: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        key = (one.patient, one.study_uid) if one.study_uid else ("", str(one.paths[0].parent))
        studies.setdefault(key, []).append(one)
    groups = sorted(studies.values(), key=lambda group: group[0].paths[0])
    root = source if source.is_dir() else source.parent
    names = _name_folders([_relative_folder(group, root) for group in groups], source)
    return [Examination(name=name, series=group) for name, group in zip(names, groups, strict=True)]


def describe_channels(series: Sequence[Series]) -> list[str]:
    """Returns a line for each series that is resampled, or whose positions may not be comparable with the first's."""
    first, lines = series[0], []
    for other in series[1:]:
        difference = first.grid().difference(other.grid())
        if difference is not None:
            lines.append(f"{other.name} is resampled onto the grid of {first.name}: {difference}")
        if first.frame_of_reference != other.frame_of_reference:
            lines.append(f"{other.name} and {first.name} have different frames of reference: they may not match")
    return lines


def _relative_folder(series: Sequence[Series], root: Path) -> tuple[str, ...]:
    """Returns the parts of the path from the source to the folder that all series of a study share."""
    folders = {path.parent for one in series for path in one.paths}
    return Path(commonpath(folders)).relative_to(root).parts


def _name_folders(folders: Sequence[tuple[str, ...]], source: Path) -> list[str]:
    """Names studies by the first parts of their folders, as many as tell them apart.

    Example:
        >>> _name_folders([("p1", "ct"), ("p2", "ct")], Path("scans"))
        ['p1', 'p2']
        >>> _name_folders([("p1", "before"), ("p1", "after"), ("p2",)], Path("scans"))
        ['p1_before', 'p1_after', 'p2']
        >>> _name_folders([(), ()], Path("scans"))
        ['scans_1', 'scans_2']
    """
    if len(folders) == 1:
        return [_stem(source)]
    sharing = Counter(folder[:count] for folder in set(folders) for count in range(1, len(folder) + 1))
    names = ["_".join(folder[: _count_telling(folder, sharing)]) or _stem(source) for folder in folders]
    times, counted = Counter(names), Counter[str]()
    result = []
    for name in names:
        counted[name] += 1
        result.append(f"{name}_{counted[name]}" if times[name] > 1 else name)
    return result


def _count_telling(folder: tuple[str, ...], sharing: Mapping[tuple[str, ...], int]) -> int:
    """Returns how many first parts of a folder tell it from all others.

    Args:
        folder: The parts of the folder.
        sharing: First parts of folders, to the number of folders that begin so.
    """
    telling = (count for count in range(1, len(folder) + 1) if sharing[folder[:count]] == 1)
    return next(telling, len(folder))


def _stem(source: Path) -> str:
    resolved = source.resolve()
    name = resolved.name if resolved.is_dir() else resolved.stem
    return resolved.parent.name if name.upper() == "DICOMDIR" else name.lstrip(".") or "scan"
