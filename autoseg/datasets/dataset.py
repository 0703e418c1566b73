"""A raw dataset in nnU-Net's format: dataset.json and the files of each case, listed without opening an image.

    raw/Dataset004_Hippocampus/
        dataset.json                 channel_names, labels, file_ending
        imagesTr/CASE_0000.nii.gz    one file per channel; "_0000" may be left out if there is one channel
        labelsTr/CASE.nii.gz

Alternatively, dataset.json lists the files of each case, wherever they are (see `file_list`). A raw dataset is only
read, never changed. `integrity` has the checks that need voxels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.datasets.file_list import FileList
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import DatasetError, ProblemsError
from autoseg.imaging.formats import COLOUR_ENDINGS, readable_name
from autoseg.imaging.tiff import find_spacing_file

TRAINING_IMAGES, TRAINING_LABELS, TEST_IMAGES = "imagesTr", "labelsTr", "imagesTs"
CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The files of one scan.

    Attributes:
        name: Name of the case.
        images: File of each channel, in the order of the channels; or one file that holds all channels.
        label: File of the label map, or folder of the masks of a foreign dataset; None if there is none.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that determine the voxels and their positions: images, label map, and spacing files of TIFF."""
        files = self.images if self.label is None else (*self.images, self.label)
        return (*files, *(spacing for spacing in map(find_spacing_file, files) if spacing is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that prevents the use of a dataset.

    Attributes:
        case: Name of the case; empty if the problem concerns the dataset as a whole.
        what: What is wrong.
        fix: What to do about it, as an imperative.

    Example:
        >>> str(Problem(case="liver_01", what="its image is missing", fix="add it"))
        "case 'liver_01': its image is missing; add it"
    """

    case: str
    what: str
    fix: str

    def __str__(self) -> str:
        """Returns the problem as one line for the user."""
        return f"case {self.case!r}: {self.what}; {self.fix}" if self.case else f"{self.what}; {self.fix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A raw dataset on disk.

    Attributes:
        folder: Folder of the dataset, such as raw/Dataset004_Hippocampus.
        info: Content of dataset.json.
        cases: Training cases that have all their files, ordered by name.
        problems: Problems with the files of the other cases.
        remarks: Lines about oddities that are no reason to stop.

    Example:
        >>> import autoseg
        >>> autoseg.make_demo_dataset("raw/Dataset001_Demo", cases=2).folder.name
        'Dataset001_Demo'
        >>> dataset = Dataset.open(Path("raw/Dataset001_Demo"))
        >>> [case.name for case in dataset.without(["demo_001"]).cases]
        ['demo_002']
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
        listed = _list_folders(folder, info) if files.cases is None else _list_files(files, folder, info)
        cases = tuple(case for case, problem in listed if problem is None)
        problems = tuple(problem for _, problem in listed if problem is not None)
        return cls(folder=folder, info=info, cases=cases, problems=problems, remarks=_compare_count(files, len(listed)))

    @property
    def name(self) -> str:
        """Name of the folder, such as "Dataset004_Hippocampus"."""
        return self.folder.name

    def only(self, names: Iterable[str]) -> "Dataset":
        """Returns the dataset with only the cases of these names.

        Raises:
            ProblemsError: Some of them are missing or incomplete, with a line for each.
        """
        names = set(map(readable_name, names))
        reasons = {problem.case: problem.what for problem in self.problems}
        missing = sorted(names - {case.name for case in self.cases})
        if missing:
            lines = [
                f"case {name!r} of {self.name}: {reasons.get(name, 'it is not there any more')}; mend it, or plan again"
                for name in missing
            ]
            raise ProblemsError(lines)
        return replace(self, cases=tuple(case for case in self.cases if case.name in names), problems=())

    def without(self, names: Iterable[str]) -> "Dataset":
        """Returns the dataset without the cases of these names.

        Raises:
            DatasetError: A name is not a case of this dataset.
        """
        names = set(map(readable_name, names))
        present = {case.name for case in self.cases} | {problem.case for problem in self.problems}
        unknown = sorted(names - present)
        if unknown:
            raise DatasetError(f"{self.name} has no case {unknown[0]!r}", "check the name given to --skip")
        return replace(
            self,
            cases=tuple(case for case in self.cases if case.name not in names),
            problems=tuple(problem for problem in self.problems if problem.case not in names),
        )


def group_channels(folder: Path, info: DatasetInfo, case_names: Iterable[str] = ()) -> dict[str, tuple[Path, ...]]:
    """Lists the images of a folder and groups them by case.

    "liver_0001.nii.gz" is channel 1 of "liver" in a dataset of two channels. In a dataset of one channel it is the case
    "liver_0001"; a stem that ends in "_0000" is a case name only if `case_names` lists it. In a dataset of colour
    pictures, "frame_0000.png" to "frame_0099.png" are a hundred cases: if the numbers are not those of the channels,
    they belong to the names.

    Args:
        folder: Folder with one file per case and channel.
        info: States the number of channels and the file ending.
        case_names: Names of cases that are certain, such as those of the label files.

    Returns:
        Case name to its files, ordered by channel number; missing channels are left out, and two files of one channel,
        such as "liver.nii.gz" and "liver_0000.nii.gz", are both listed. Empty if the folder is missing or holds no
        image.
    """
    stems = _list_stems(folder, info.file_ending)
    whole_names = set(case_names) | _numbered_pictures(stems, info)
    groups: dict[str, list[tuple[int, Path]]] = {}
    for stem in stems:
        match = CHANNEL_SUFFIX.search(stem)
        channel = int(match[1]) if match else 0
        suffixed = match is not None and stem not in whole_names and (info.channels > 1 or channel == 0)
        name = stem[: match.start()] if match and suffixed else stem
        groups.setdefault(name, []).append((channel if suffixed else 0, stems[stem]))
    return {name: tuple(path for _, path in sorted(files)) for name, files in sorted(groups.items())}


def _list_folders(folder: Path, info: DatasetInfo) -> list[tuple[Case, Problem | None]]:
    """Returns the cases of imagesTr and labelsTr, and the problem with the files of each, if there is one."""
    labels = _list_stems(folder / TRAINING_LABELS, info.file_ending)
    images = group_channels(folder / TRAINING_IMAGES, info, case_names=labels)
    if not images and not labels:
        raise DatasetError(
            f"{folder / TRAINING_IMAGES} holds no file that ends in {info.file_ending}",
            "copy images and labels there, or correct file_ending in dataset.json",
        )
    names = sorted(images.keys() | labels.keys())
    cases = [Case(name=name, images=images.get(name, ()), label=labels.get(name)) for name in names]
    return [(case, _file_problem(case, info)) for case in cases]


def _list_files(files: FileList, folder: Path, info: DatasetInfo) -> list[tuple[Case, Problem | None]]:
    """Returns the cases that dataset.json lists, and the problem with the files of each, if there is one."""
    paths = files.locate(folder)
    cases = [Case(name=readable_name(name), images=images, label=label) for name, (images, label) in paths.items()]
    return [(case, _listed_problem(case, info)) for case in cases]


def _compare_count(files: FileList, present: int) -> tuple[str, ...]:
    """Returns a remark if dataset.json states another number of cases than are present.

    Decision: this is a remark, not an error. nnU-Net v2.8.1 stops if it is asked to verify the dataset; but users leave
    out cases and forget the number, and each incomplete case is reported with a line of its own.
    """
    if files.count in (None, present):
        return ()
    return (f"dataset.json states {files.count} training cases (numTraining), and {present} are there",)


def _numbered_pictures(stems: Iterable[str], info: DatasetInfo) -> set[str]:
    """Returns the stems whose number is part of the case name, because each picture holds all colours."""
    if info.channels == 1 or info.file_ending.lower() not in COLOUR_ENDINGS:
        return set()
    numbers: dict[str, dict[int, str]] = {}
    for stem in stems:
        if match := CHANNEL_SUFFIX.search(stem):
            numbers.setdefault(stem[: match.start()], {})[int(match[1])] = stem
    channel_files = (set(range(info.channels)), {0})
    groups = (files for files in numbers.values() if files.keys() not in channel_files)
    return {stem for files in groups for stem in files.values()}


def _list_stems(folder: Path, ending: str) -> dict[str, Path]:
    """Returns the visible files with this ending by name without it, in the order of the names.

    Names are `readable_name`s. Of two that are spelt differently but read the same, one stays as it is spelt.
    """
    if not folder.is_dir():
        return {}
    visible = (path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith("."))
    spelt = sorted((path.name[: -len(ending)], path) for path in visible)
    stems = {stem: path for stem, path in spelt if stem == readable_name(stem)}
    for stem, path in spelt:
        if stem not in stems:
            stems[stem if readable_name(stem) in stems else readable_name(stem)] = path
    return dict(sorted(stems.items()))


def _file_problem(case: Case, info: DatasetInfo) -> Problem | None:
    """Returns what is wrong with the files of a case of imagesTr and labelsTr."""
    leave_out = f"or leave the case out with 'plan_and_preprocess --skip {case.name}'"
    if not case.images:
        return Problem(case=case.name, what="its image is missing in imagesTr", fix=f"add it {leave_out}")
    if case.label is None:
        return Problem(
            case=case.name,
            what=f"its label labelsTr/{case.name}{info.file_ending} is missing",
            fix=f"add it {leave_out}",
        )
    is_colour_picture = len(case.images) == 1 and info.file_ending.lower() in COLOUR_ENDINGS
    if not is_colour_picture and not _channels_complete(case, info):
        present = ", ".join(path.name for path in case.images)
        channels = f"each of its {info.channels} channels" if info.channels > 1 else "its channel"
        bring = f"bring {case.name}_0000 to _{info.channels - 1:04d}" if info.channels > 1 else "keep one of them"
        return Problem(
            case=case.name,
            what=f"imagesTr does not hold one file for {channels} (there: {present})",
            fix=f"{bring} {leave_out}",
        )
    return None


def _listed_problem(case: Case, info: DatasetInfo) -> Problem | None:
    """Returns what is wrong with the files of a case that dataset.json lists."""
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
    """Returns whether there is one file for each channel, numbered as the channels are."""
    if len(case.images) != info.channels:
        return False
    stems = (path.name[: -len(info.file_ending)] for path in case.images)
    return info.channels == 1 or all(stem.endswith(f"_{channel:04d}") for channel, stem in enumerate(stems))


"""Files that hold one plane."""
"""Files that may hold all channels at once, as colours."""
