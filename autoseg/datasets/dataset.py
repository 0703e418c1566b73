"""What a dataset is: nnU-Net's raw format, read without opening a single image.

    raw/Dataset004_Hippocampus/
        dataset.json                 channel_names, labels, file_ending
        imagesTr/CASE_0000.nii.gz    one file per channel; "_0000" may be left out if there is one channel
        labelsTr/CASE.nii.gz

Or dataset.json lists the files of each case, wherever they are (see `file_list`). Nothing is ever written there.

Checks that need voxels live in `integrity`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.datasets.file_list import FileList
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import DatasetError, ProblemsError
from autoseg.imaging.formats import COLOUR_ENDINGS
from autoseg.imaging.tiff import find_spacing_file

TRAINING_IMAGES, TRAINING_LABELS, TEST_IMAGES = "imagesTr", "labelsTr", "imagesTs"
CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan: a file per channel, in the order of the channels, and its label map if there is one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that its voxels and their places follow from: the images, the label map, spacing files of TIFF."""
        files = self.images if self.label is None else (*self.images, self.label)
        return (*files, *(beside for beside in map(find_spacing_file, files) if beside is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that keeps a dataset from being used: whose it is, what it is, and what to do."""

    case: str
    what: str
    fix: str

    def __str__(self) -> str:
        """One line for the user."""
        return f"case {self.case!r}: {self.what}; {self.fix}" if self.case else f"{self.what}; {self.fix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A raw dataset on disk.

    Attributes:
        folder: Its folder, named "Dataset004_Hippocampus".
        info: The content of dataset.json.
        cases: The training cases that have all their files, by name.
        problems: What is wrong with the files of the other cases.
        remarks: What is odd about the files, and no reason to stop.
    """

    folder: Path
    info: DatasetInfo
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Reads dataset.json and lists the training cases.

        Raises:
            DatasetError: dataset.json is missing or wrong, or there are no training cases at all.
        """
        if not info_file(folder).is_file():
            raise DatasetError(
                f"{folder} has no dataset.json",
                "write one that states channel_names, labels and file_ending, or bring the data with 'autoseg import'",
            )
        info, files = DatasetInfo.load(info_file(folder)), FileList.load(info_file(folder))
        found = _list_folders(folder, info) if files.cases is None else _list_places(files, folder, info)
        cases = tuple(case for case, problem in found if problem is None)
        problems = tuple(problem for _, problem in found if problem is not None)
        return cls(folder=folder, info=info, cases=cases, problems=problems, remarks=_compare_count(files, len(found)))

    @property
    def name(self) -> str:
        """The folder's name, such as "Dataset004_Hippocampus"."""
        return self.folder.name

    def only(self, names: Iterable[str]) -> "Dataset":
        """The dataset with the cases of these names alone.

        Raises:
            ProblemsError: Some of them are missing or incomplete; each has its line.
        """
        names = set(names)
        whats = {problem.case: problem.what for problem in self.problems}
        missing = sorted(names - {case.name for case in self.cases})
        if missing:
            lines = [
                f"case {name!r} of {self.name}: {whats.get(name, 'it is not there any more')}; mend it, or plan again"
                for name in missing
            ]
            raise ProblemsError(lines)
        return replace(self, cases=tuple(case for case in self.cases if case.name in names), problems=())

    def without(self, names: Iterable[str]) -> "Dataset":
        """The dataset without some cases.

        Raises:
            DatasetError: A name is not a case of this dataset.
        """
        names = set(names)
        known = {case.name for case in self.cases} | {problem.case for problem in self.problems}
        unknown = sorted(names - known)
        if unknown:
            raise DatasetError(f"{self.name} has no case {unknown[0]!r}", "check the name given to --skip")
        return replace(
            self,
            cases=tuple(case for case in self.cases if case.name not in names),
            problems=tuple(problem for problem in self.problems if problem.case not in names),
        )


def group_channels(folder: Path, info: DatasetInfo, known: Iterable[str] = ()) -> dict[str, tuple[Path, ...]]:
    """Finds the images of a folder and groups them by case.

    "liver_0001.nii.gz" is channel 1 of "liver" in a dataset of two channels. In a dataset of one channel it is the case
    "liver_0001", unless it ends in "_0000" and `known` does not list it in full. In a dataset of colour pictures,
    "frame_0000.png" to "frame_0099.png" are a hundred cases: numbers that do not count the channels count the cases.

    Args:
        folder: Holds one file per case and channel.
        info: Says the number of channels and the file ending.
        known: Names of cases known from elsewhere, such as from the label files.

    Returns:
        Case name to its files by channel number, gaps left out; two files of one channel, such as "liver.nii.gz" and
        "liver_0000.nii.gz", are both there. Empty if the folder is missing or holds no image.
    """
    stems = _names(folder, info.file_ending)
    known = set(known) | _numbered_pictures(stems, info)
    groups: dict[str, list[tuple[int, Path]]] = {}
    for stem in stems:
        match = CHANNEL_SUFFIX.search(stem)
        channel = int(match[1]) if match else 0
        suffixed = match is not None and stem not in known and (info.channels > 1 or channel == 0)
        name = stem[: match.start()] if match and suffixed else stem
        groups.setdefault(name, []).append((channel if suffixed else 0, folder / (stem + info.file_ending)))
    return {name: tuple(path for _, path in sorted(files)) for name, files in sorted(groups.items())}


def _list_folders(folder: Path, info: DatasetInfo) -> list[tuple[Case, Problem | None]]:
    """The cases of imagesTr and labelsTr, and what is wrong with the files of each."""
    label_names = _names(folder / TRAINING_LABELS, info.file_ending)
    labels = {name: folder / TRAINING_LABELS / (name + info.file_ending) for name in label_names}
    images = group_channels(folder / TRAINING_IMAGES, info, known=label_names)
    if not images and not labels:
        raise DatasetError(
            f"{folder / TRAINING_IMAGES} holds no file that ends in {info.file_ending}",
            "copy images and labels there, or correct file_ending in dataset.json",
        )
    names = sorted(images.keys() | labels.keys())
    cases = [Case(name=name, images=images.get(name, ()), label=labels.get(name)) for name in names]
    return [(case, _file_problem(case, info)) for case in cases]


def _list_places(files: FileList, folder: Path, info: DatasetInfo) -> list[tuple[Case, Problem | None]]:
    """The cases that dataset.json lists, and what is wrong with the files of each."""
    places = files.locate(folder)
    cases = [Case(name=name, images=images, label=label) for name, (images, label) in places.items()]
    return [(case, _place_problem(case, info)) for case in cases]


def _compare_count(files: FileList, found: int) -> tuple[str, ...]:
    """Whether all cases are there that dataset.json speaks of.

    Decision: a remark. nnU-Net v2.8.1 stops, if it is asked to look at all; but people leave out cases and forget the
    number, and what is wrong with the cases that are there has its own line.
    """
    if files.count in (None, found):
        return ()
    return (f"dataset.json states {files.count} training cases (numTraining), and {found} are there",)


def _numbered_pictures(stems: Iterable[str], info: DatasetInfo) -> set[str]:
    """Stems whose number is part of the name, because each picture holds all colours."""
    if info.channels == 1 or info.file_ending.lower() not in COLOUR_ENDINGS:
        return set()
    numbers: dict[str, dict[int, str]] = {}
    for stem in stems:
        if match := CHANNEL_SUFFIX.search(stem):
            numbers.setdefault(stem[: match.start()], {})[int(match[1])] = stem
    channel_files = (set(range(info.channels)), {0})
    groups = (files for files in numbers.values() if files.keys() not in channel_files)
    return {stem for files in groups for stem in files.values()}


def _names(folder: Path, ending: str) -> list[str]:
    if not folder.is_dir():
        return []
    visible = (path.name for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(name[: -len(ending)] for name in visible if name.endswith(ending))


def _file_problem(case: Case, info: DatasetInfo) -> Problem | None:
    leave_out = f"or leave the case out with 'plan_and_preprocess --skip {case.name}'"
    if not case.images:
        return Problem(case=case.name, what="its image is missing in imagesTr", fix=f"add it {leave_out}")
    if case.label is None:
        return Problem(
            case=case.name,
            what=f"its label labelsTr/{case.name}{info.file_ending} is missing",
            fix=f"add it {leave_out}",
        )
    one_file_of_colours = len(case.images) == 1 and info.file_ending.lower() in COLOUR_ENDINGS
    if not one_file_of_colours and not _channels_complete(case, info):
        present = ", ".join(path.name for path in case.images)
        channels = f"each of its {info.channels} channels" if info.channels > 1 else "its channel"
        bring = f"bring {case.name}_0000 to _{info.channels - 1:04d}" if info.channels > 1 else "keep one of them"
        return Problem(
            case=case.name,
            what=f"imagesTr does not hold one file for {channels} (there: {present})",
            fix=f"{bring} {leave_out}",
        )
    return None


def _place_problem(case: Case, info: DatasetInfo) -> Problem | None:
    leave_out = f"or leave the case out with 'plan_and_preprocess --skip {case.name}'"
    missing = [path for path in (*case.images, case.label) if path and not path.is_file()]
    if missing:
        return Problem(
            case=case.name,
            what=f"{missing[0]} does not exist",
            fix=f'bring it, correct "dataset" in dataset.json {leave_out}',
        )
    if len(case.images) not in (1, info.channels):
        what = f'"dataset" in dataset.json lists {len(case.images)} images for {info.channels} channels'
        return Problem(case=case.name, what=what, fix=f"list one for each, or one that holds them all, {leave_out}")
    return None


def _channels_complete(case: Case, info: DatasetInfo) -> bool:
    if len(case.images) != info.channels:
        return False
    stems = (path.name[: -len(info.file_ending)] for path in case.images)
    return info.channels == 1 or all(stem.endswith(f"_{channel:04d}") for channel, stem in enumerate(stems))


"""Files that hold one plane."""
"""Files that may hold all channels at once, as colours."""
