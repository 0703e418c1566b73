"""What a dataset is: nnU-Net's raw format, read without opening a single image.

    raw/Dataset004_Hippocampus/
        dataset.json                 channel_names, labels, file_ending
        imagesTr/CASE_0000.nii.gz    one file per channel; "_0000" may be left out if there is one channel
        labelsTr/CASE.nii.gz

Checks that need voxels live in `integrity`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from autoseg.artifact import atomic_file, first_mistake, read_text
from autoseg.errors import DatasetError, ProblemsError

CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")
FOLDER_NAME = re.compile(r"^Dataset(\d{3})_([A-Za-z0-9][\w-]*)\Z")
NOT_SUPPORTED = {
    "regions_class_order": "overlapping regions",
    "dataset": "files listed in place",
}


LONGEST_PATTERN = 200
"""Characters of the regular expression that groups cases. Decision: whatever is longer was not meant as one."""


def compile_groups(pattern: str) -> re.Pattern[str]:
    """Reads the regular expression whose first bracket, or whole match, in a case's name is its group.

    Raises:
        ValueError: It is none, or longer than `LONGEST_PATTERN`.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern of {len(pattern)} characters is too long; {LONGEST_PATTERN} are allowed")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


def _numbered(value: object) -> object:
    """Accepts the field's older spelling of channel names, a plain list."""
    return {str(index): name for index, name in enumerate(value)} if isinstance(value, list) else value


class DatasetInfo(BaseModel):
    """The content of dataset.json: nnU-Net's format, of which unknown keys are left alone.

    Attributes:
        channel_names: Channel number ("0", "1", ...) to name. The name chooses the normalization: "CT", "noNorm",
            "zscore", "rescale_to_0_1", "rgb_to_0_1"; any other name means z-score, as for MR.
        labels: Name to number; "background" is 0 and the numbers are consecutive.
        file_ending: Ending of every image and label file, such as ".nii.gz".
        name: What people call the dataset.
        groups: Cases that belong together, such as the scans of one patient: case name to group, or a regular
            expression whose first bracket, or whole match, in a case's name is its group.
        sides: Pairs of words that tell left from right in label names, such as ["links", "rechts"]; left out, the
            usual ones; empty, labels have no sides.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    channel_names: Annotated[dict[str, str], BeforeValidator(_numbered)] = Field(min_length=1)
    labels: dict[str, int]
    file_ending: str = Field(pattern=r"^\.\w[\w.]*$")
    name: str = ""
    groups: dict[str, str] | str | None = None
    sides: tuple[tuple[str, str], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for key, meaning in NOT_SUPPORTED.items():
            if key in data:
                raise ValueError(f"{key!r} ({meaning}) is outside what this version trains on")
        if "channel_names" not in data and "modality" in data:  # the format's first version
            return {**data, "channel_names": data["modality"]}
        return data

    @field_validator("channel_names")
    @classmethod
    def _channels_are_numbered(cls, names: dict[str, str]) -> dict[str, str]:
        if sorted(names) != sorted(str(index) for index in range(len(names))):
            raise ValueError(f"the keys must be '0', '1', ... without gaps, not {sorted(names)}")
        return {str(index): names[str(index)] for index in range(len(names))}

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_exclusive(cls, labels: Any) -> Any:
        if isinstance(labels, dict):
            if "ignore" in labels:
                raise ValueError("an 'ignore' label is outside what this version trains on")
            regions = [name for name, value in labels.items() if isinstance(value, list)]
            if regions:
                raise ValueError(f"regions such as {regions[0]!r} are outside what this version trains on")
            if labels and all(str(key).isdigit() for key in labels):  # number -> name, as the Decathlon writes it
                return {str(name): int(number) for number, name in labels.items()}
        return labels

    @field_validator("labels")
    @classmethod
    def _labels_are_consecutive(cls, labels: dict[str, int]) -> dict[str, int]:
        if labels.get("background") != 0:
            raise ValueError("'background' must be there and be 0")
        if sorted(labels.values()) != list(range(len(labels))):
            raise ValueError(f"the numbers must be 0, 1, ... without gaps, not {sorted(labels.values())}")
        if len(labels) < 2:
            raise ValueError("there must be at least one label besides the background")
        return dict(sorted(labels.items(), key=lambda item: item[1]))

    @field_validator("groups", mode="before")
    @classmethod
    def _groups_are_understood(cls, groups: Any) -> Any:
        if isinstance(groups, str):
            compile_groups(groups)
        if isinstance(groups, str | None):
            return groups
        if not isinstance(groups, dict):
            raise ValueError("it must be a regular expression, or case names with their groups")  # noqa: TRY004
        for name, group in groups.items():
            if not isinstance(group, str | int) or isinstance(group, bool) or group == "":
                raise ValueError(f"the group of {name!r} must be a text or a number; leave out cases that stand alone")
        return {name: str(group) for name, group in groups.items()}  # numbers of patients are names, too

    @field_validator("sides")
    @classmethod
    def _sides_differ(cls, sides: tuple[tuple[str, str], ...] | None) -> tuple[tuple[str, str], ...] | None:
        left, right = ({pair[side].casefold() for pair in sides or ()} for side in (0, 1))
        for word in left | right:
            if not any(sign.isalnum() for sign in word):
                raise ValueError(f"{word!r} of sides is no word; give pairs such as ['links', 'rechts']")
        for word in left & right:
            raise ValueError(f"{word!r} of sides cannot mean both left and right")
        return sides

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return len(self.channel_names)

    @property
    def classes(self) -> int:
        """Number of classes, the background included."""
        return len(self.labels)

    @property
    def foreground(self) -> dict[str, int]:
        """Name to number of every label but the background, by number."""
        return {name: number for name, number in self.labels.items() if number != 0}

    @classmethod
    def load(cls, path: Path) -> "DatasetInfo":
        """Reads dataset.json; raises as `parse` does, and ArtifactError if the file is missing."""
        return cls.parse(read_text(path), source=str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> "DatasetInfo":
        """Reads the text of a dataset.json; `source` says where it came from, for errors.

        Raises:
            DatasetError: The text is not JSON, or a field is missing or wrong.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DatasetError(f"{source}: {first_mistake(error)}", "mend that field") from error

    def save(self, path: Path, notes: Mapping[str, object] | None = None) -> None:
        """Writes dataset.json, atomically, with further keys such as numTraining, which nnU-Net asks for."""
        content = {key: value for key, value in self.model_dump(mode="json").items() if value not in ("", None)}
        content.update(notes or {})
        with atomic_file(path) as writing:
            writing.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan: a file per channel, in the order of the channels, and its label map if there is one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


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
