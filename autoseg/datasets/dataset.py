"""A raw dataset in nnU-Net's format: dataset.json and the files of each case, listed without opening an image.

    raw/Dataset004_Hippocampus/
        dataset.json                 channel_names, labels, file_ending
        imagesTr/CASE_0000.nii.gz    one file per channel; "_0000" may be left out if there is one channel
        labelsTr/CASE.nii.gz

Alternatively, dataset.json lists the files of each case, wherever they are (see `file_list`). A raw dataset is only
read, never changed. `integrity` has the checks that need voxels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.datasets.channel_files import find_missing_channels, group_channels, list_stems
from autoseg.datasets.file_list import FileList
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.names import FORMULA_FIX, ON_FOLDING, describe_lookalikes, describe_reserved, is_formula
from autoseg.datasets.passed_over import describe_passed_over
from autoseg.dicom.detection import holds_dicom
from autoseg.dicom.series import Series
from autoseg.errors import DatasetError, ProblemsError
from autoseg.imaging.formats import COLOUR_ENDINGS, readable_name, split_ending
from autoseg.imaging.pictures.spacing_file import find_spacing_file
from autoseg.runtime.reporting import list_names

TRAINING_IMAGES, TRAINING_LABELS, TEST_IMAGES = "imagesTr", "labelsTr", "imagesTs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The files of one scan.

    Attributes:
        name: Name of the case.
        images: File of each channel, in the order of the channels; or one file that holds all channels.
        label: File of the label map, or folder of the masks of a foreign dataset; None if there is none.
        time_point: Which volume of each file is the scan, from 0, if they are series over time; None if they are not.
        series: Series of each channel, if the scan is in DICOM; `images` has the first file of each then.
        missing_channels: Numbers of the channels that the scan lacks; `images` has the files of the others then.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    time_point: int | None = None
    series: tuple[Series, ...] = ()
    missing_channels: tuple[int, ...] = ()

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
        remarks = (*_compare_count(files, len(listed)), *_find_alike(info, listed))
        if files.cases is None:
            remarks = (*remarks, *_find_left_out(folder, info))
        return cls(folder=folder, info=info, cases=cases, problems=problems, remarks=remarks)

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


def _list_folders(folder: Path, info: DatasetInfo) -> list[tuple[Case, Problem | None]]:
    """Returns the cases of imagesTr and labelsTr, and the problem with the files of each, if there is one."""
    labels = list_stems(folder / TRAINING_LABELS, info.file_ending)
    images = group_channels(folder / TRAINING_IMAGES, info, case_names=labels)
    if not images and not labels:
        raise DatasetError(
            f"{folder / TRAINING_IMAGES} holds no file that ends in {info.file_ending}",
            "copy images and labels there, or correct file_ending in dataset.json",
        )
    names = sorted(images.keys() | labels.keys())
    cases = (Case(name=name, images=images.get(name, ()), label=labels.get(name)) for name in names)
    return [(case, _file_problem(case, info)) for case in allow_missing(cases, info)]


def _list_files(files: FileList, folder: Path, info: DatasetInfo) -> list[tuple[Case, Problem | None]]:
    """Returns the cases that dataset.json lists, and the problem with the files of each, if there is one."""
    paths = files.locate(folder)
    cases = (Case(name=readable_name(name), images=images, label=label) for name, (images, label) in paths.items())
    return [(case, _listed_problem(case, info)) for case in allow_missing(cases, info)]


def allow_missing(cases: Iterable[Case], info: DatasetInfo) -> Iterator[Case]:
    """Yields the cases; if they may lack channels, with the numbers of those that are missing."""
    for case in cases:
        missing = find_missing_channels(case.name, case.images, info.channels) if info.missing_channels else ()
        yield replace(case, missing_channels=missing) if missing else case


def _compare_count(files: FileList, present: int) -> tuple[str, ...]:
    """Returns a remark if dataset.json states another number of cases than are present.

    Decision: this is a remark, not an error. nnU-Net v2.8.1 stops if it is asked to verify the dataset; but users leave
    out cases and forget the number, and each incomplete case is reported with a line of its own.
    """
    if files.count in (None, present):
        return ()
    return (f"dataset.json states {files.count} training cases (numTraining), and {present} are there",)


def _find_left_out(folder: Path, info: DatasetInfo) -> Iterator[str]:
    """Yields remarks on files of imagesTr and labelsTr that are no images for this program, or have another ending."""
    for name in (TRAINING_IMAGES, TRAINING_LABELS):
        yield from describe_passed_over(folder / name)
        paths = (folder / name).iterdir() if (folder / name).is_dir() else iter(())
        endings = ((path.name, split_ending(path)[1].lower()) for path in paths if not path.name.startswith("."))
        others = sorted(file for file, ending in endings if ending not in ("", info.file_ending.lower()))
        if others:
            number = f"{len(others)} image{'s' * (len(others) > 1)}"
            yield f"{name} holds {number} without the ending {info.file_ending}, left out: {list_names(others, most=3)}"


def _find_alike(info: DatasetInfo, listed: list[tuple[Case, Problem | None]]) -> Iterator[str]:
    """Yields remarks on names that differ in capitals only, are reserved on Windows, or are formulas."""
    yield from describe_lookalikes("cases", [case.name for case, _ in listed], ON_FOLDING)
    yield from describe_reserved("cases", [case.name for case, _ in listed])
    yield from describe_lookalikes("labels", info.labels, "if they are one structure, give it one name and one number")
    names = [*(case.name for case, _ in listed), *info.labels]
    yield from (f"the name {name!r} is a formula: {FORMULA_FIX}" for name in names if is_formula(name))


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
    if not is_colour_picture and not case.missing_channels and not _channels_complete(case, info):
        present = ", ".join(path.name for path in case.images)
        channels = f"each of its {info.channels} channels" if info.channels > 1 else "its channel"
        bring = f"bring {case.name}_0000 to _{info.channels - 1:04d}" if info.channels > 1 else "keep one of them"
        if info.channels > 1 and len(case.images) == 1:
            bring += ", or let 'autoseg import' split a file that holds all channels,"
        if find_missing_channels(case.name, case.images, info.channels):
            bring += ', or write "missing_channels": true into dataset.json if scans may lack some,'
        return Problem(
            case=case.name,
            what=f"imagesTr does not hold one file for {channels} (there: {present})",
            fix=f"{bring} {leave_out}",
        )
    return None


def _listed_problem(case: Case, info: DatasetInfo) -> Problem | None:
    """Returns what is wrong with the files of a case that dataset.json lists."""
    leave_out = f"or leave the case out with 'plan_and_preprocess --skip {case.name}'"
    files = [path for path in (*case.images, case.label) if path]
    others = (path for path in files if not split_ending(path)[1])
    if dicom := next((path for path in others if holds_dicom(path)), None):
        kind = "a folder of DICOM files" if dicom.is_dir() else "a DICOM file"
        fix = f"convert the series and masks with 'autoseg import FOLDER -d NUMBER' {leave_out}"
        return Problem(case=case.name, what=f"{dicom} is {kind}, and datasets list image files", fix=fix)
    missing = [path for path in files if not path.is_file()]
    if missing:
        return Problem(
            case=case.name,
            what=f"{missing[0]} does not exist",
            fix=f'bring it, correct "dataset" in dataset.json {leave_out}',
        )
    if len(case.images) not in (1, info.channels) and not case.missing_channels:
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
