"""What a dataset is: nnU-Net's raw format, read without opening a single image.

    raw/Dataset004_Hippocampus/
        dataset.json                 channel_names, labels, file_ending
        imagesTr/CASE_0000.nii.gz    one file per channel; "_0000" may be left out if there is one channel
        labelsTr/CASE.nii.gz

Checks that need voxels live in `integrity`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.errors import DatasetError, ProblemsError
from autoseg.info import DatasetInfo

CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")
FOLDER_NAME = re.compile(r"^Dataset(\d{3})_([A-Za-z0-9][\w-]*)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan: a file per channel, in the order of the channels, and its label map if there is one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the label map last."""
        return self.images if self.label is None else (*self.images, self.label)


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
    """

    folder: Path
    info: DatasetInfo
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Reads dataset.json and lists the training cases.

        Raises:
            DatasetError: dataset.json is missing or wrong, or there are no training cases at all.
        """
        if not (folder / "dataset.json").is_file():
            raise DatasetError(
                f"{folder} has no dataset.json",
                "write one that states channel_names, labels and file_ending, or bring the data with 'autoseg import'",
            )
        info = DatasetInfo.load(folder / "dataset.json")
        label_names = _names(folder / "labelsTr", info.file_ending)
        labels = {name: folder / "labelsTr" / (name + info.file_ending) for name in label_names}
        images = group_channels(folder / "imagesTr", info, known=label_names)
        if not images and not labels:
            raise DatasetError(
                f"{folder / 'imagesTr'} holds no file that ends in {info.file_ending}",
                "copy images and labels there, or correct file_ending in dataset.json",
            )
        cases, problems = [], []
        for name in sorted(images.keys() | labels.keys()):
            case = Case(name=name, images=images.get(name, ()), label=labels.get(name))
            problem = _file_problem(case, info)
            if problem is None:
                cases.append(case)
            else:
                problems.append(problem)
        return cls(folder=folder, info=info, cases=tuple(cases), problems=tuple(problems))

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


def _numbered_pictures(stems: Iterable[str], info: DatasetInfo) -> set[str]:
    """Stems whose number is part of the name, because each picture holds all colours."""
    if info.channels == 1 or info.file_ending.lower() not in PLANE_ENDINGS:
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
    one_file_of_colours = len(case.images) == 1 and info.file_ending.lower() in PLANE_ENDINGS
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


def _channels_complete(case: Case, info: DatasetInfo) -> bool:
    if len(case.images) != info.channels:
        return False
    stems = (path.name[: -len(info.file_ending)] for path in case.images)
    return info.channels == 1 or all(stem.endswith(f"_{channel:04d}") for channel, stem in enumerate(stems))


# Files that hold one plane; a colour file holds all its channels at once.
PLANE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")
