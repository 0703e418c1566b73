"""Matches mask files, such as NIfTI, with series of DICOM files by their names; no file is opened.

masks/anna.nii.gz                 the mask of the examination in the folder "anna"; also anna_mask, anna_seg, ...
masks/anna_portal.nii.gz          the mask of its series in the folder "anna/portal"
masks/anna/portal.nii.gz          the same
masks/1.2.840.113619.2.nii.gz     the mask of the series of this UID
masks/anna/liver.nii.gz, ...      a folder with a mask per structure, or with the only mask
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.names import compose
from autoseg.dicom.detection import list_files
from autoseg.dicom.examinations import Examination
from autoseg.dicom.series import Series
from autoseg.errors import DatasetError
from autoseg.imaging.formats import VOLUME_ENDINGS, readable_name
from autoseg.importing import pairing
from autoseg.importing.source_folders import MASK_FOLDERS
from autoseg.runtime.reporting import list_names

Meant = tuple[int, tuple[Series, ...]]
"""The index of an examination, and those of its series that a name stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMask:
    """A mask that has the name of an examination, or of one of its series.

    Attributes:
        label: The file, or the folder of a mask per structure.
        series: The series that the name stands for: all of the examination, or one, with all its volumes.
    """

    label: Path
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedMasks:
    """Masks by the name of their examination.

    Attributes:
        by_examination: For each examination, in order, its masks.
        unmatched: Files that have the name of none.
    """

    by_examination: tuple[tuple[NamedMask, ...], ...]
    unmatched: tuple[Path, ...]


def list_mask_files(folder: Path) -> list[Path]:
    """Lists the files of volumes in a folder and its subfolders; pictures, which may be previews, are left out."""
    return [path for path in list_files(folder) if pairing.ending_of(path) in VOLUME_ENDINGS]


def match_masks(files: Sequence[Path], folder: Path, examinations: Sequence[Examination], source: Path) -> MatchedMasks:
    """Matches masks with examinations.

    Capital letters do not count. A file that has the name of no examination or series belongs to its folder, if that
    has one; a folder of several is one of a mask per structure, and if there is such a folder, all are.

    Args:
        files: The files of masks.
        folder: The folder in which they were found.
        examinations: The examinations.
        source: The folder in which these were found.
    """
    names, unmatched = _collect_names(examinations, source), []
    matched: list[list[NamedMask]] = [[] for _ in examinations]
    folders: dict[Path, list[Path]] = {}
    for path in files:
        parts = path.relative_to(folder).parent.parts
        if meant := _find_first(names, _keys_of_file(path, parts)):
            matched[meant[0]].append(NamedMask(label=path, series=meant[1]))
        else:
            folders.setdefault(path.parent, []).append(path)
    is_structured = False
    grouped: list[tuple[Path, list[Path], Meant]] = []
    for parent, masks in sorted(folders.items()):
        meant = _find_first(names, _keys_of_folder(parent.relative_to(folder).parts))
        if meant is None:
            unmatched += masks
        else:
            grouped.append((parent, masks, meant))
            is_structured = is_structured or len(masks) > 1
    for parent, masks, (index, series) in grouped:
        matched[index].append(NamedMask(label=parent if is_structured else masks[0], series=series))
    return MatchedMasks(by_examination=tuple(map(tuple, matched)), unmatched=tuple(unmatched))


def nothing_matches(matches: MatchedMasks, folder: Path, examinations: Sequence[Examination]) -> DatasetError:
    """Returns the error that no mask has the name of an examination."""
    cases = list_names(repr(examination.name) for examination in examinations)
    masks = list_names(str(path.relative_to(folder)) for path in matches.unmatched)
    what = f"{folder}: no mask has the name of an examination or of a series (masks: {masks}; examinations: {cases})"
    return DatasetError(what, f"name them as {examinations[0].name}.nii.gz, or by the UID of their series")


def _collect_names(examinations: Sequence[Examination], source: Path) -> dict[str, Meant]:
    """Returns what each name stands for, and "" for the only examination; names of two examinations are left out."""
    meanings: dict[str, list[Meant]] = {}
    for index, examination in enumerate(examinations):
        everything = (index, tuple(examination.series))
        for name in {examination.name, readable_name(examination.name)}:
            meanings.setdefault(_key(name), []).append(everything)
        for patient in {series.patient for series in examination.series} - {"", examination.name}:
            meanings.setdefault(_key(patient), []).append(everything)
        for name, series in _name_series(examination, source):
            meanings.setdefault(_key(name), []).append((index, series))
    names = {name: meant[0] for name, meant in meanings.items() if len({index for index, _ in meant}) == 1}
    return names | ({"": (0, tuple(examinations[0].series))} if len(examinations) == 1 else {})


def _name_series(examination: Examination, source: Path) -> Iterator[tuple[str, tuple[Series, ...]]]:
    """Yields the UID and the folder of each series of an examination, with the series that have them."""
    root = source if source.is_dir() else source.parent
    by_name: dict[str, list[Series]] = {}
    for series in examination.series:
        parts = series.paths[0].parent.relative_to(root).parts
        for name in {series.uid, "_".join(parts)} - {""}:
            by_name.setdefault(name, []).append(series)
    yield from ((name, tuple(same)) for name, same in by_name.items())


def _keys_of_file(path: Path, parts: Sequence[str]) -> Iterator[str]:
    stem = pairing.stem_of(path)
    for name in dict.fromkeys((stem, pairing.MASK_SUFFIX.sub("", stem))):
        yield _key("_".join((*parts, name)))
        yield _key(name)


def _keys_of_folder(parts: Sequence[str]) -> Iterator[str]:
    """Yields what a folder of masks may be named by; "", which has no parts, stands for the only examination."""
    while parts and parts[-1].lower() in MASK_FOLDERS:
        parts = parts[:-1]
    yield _key("_".join(parts))
    if parts:
        yield _key(parts[-1])


def _find_first(names: dict[str, Meant], keys: Iterator[str]) -> Meant | None:
    return next((names[key] for key in keys if key in names), None)


def _key(name: str) -> str:
    return compose(name).casefold()
