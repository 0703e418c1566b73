"""The content of dataset.json: channels, labels, and which cases belong together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from autoseg.datasets.groups import parse_groups
from autoseg.datasets.hu_windows import ChannelNormalization, Window, assign_to_channel, find_window_problem
from autoseg.datasets.names import compose_all
from autoseg.datasets.region_order import check_region_order
from autoseg.dicom.codes import LabelCode
from autoseg.errors import DatasetError
from autoseg.imaging.targets import Numbers, Targets
from autoseg.runtime.artifact import atomic_file
from autoseg.runtime.json_text import check_keys, first_mistake, read_json_text

BACKGROUND, IGNORE = "background", "ignore"
"""Label names with a special meaning. "ignore", which has the highest number, marks voxels that nobody labelled."""

COLOURS = "rgb_to_0_1"
"""The name of a channel that is one of the colours of a picture, whose values are divided by 255."""

READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "Tiff3DIO")
"""Readers of nnU-Net v2.8.1. All but one keep the orientation of the files, as `imaging.files` does."""

REORIENTING, REORIENTED = "NibabelIOWithReorient", "SAR"
"""The reader that reorients each volume, and its target orientation: z to the head, y to the front, x to the right."""

FIRST_ENDING = ".nii.gz"
"""The only file ending of the format's first version, which does not state it."""


def info_file(folder: Path) -> Path:
    """Returns the path of the dataset.json of a folder."""
    return folder / "dataset.json"


def _numbered(value: object) -> object:
    """Accepts the older form of channel names, a plain list."""
    return {str(index): name for index, name in enumerate(value)} if isinstance(value, list) else value


def _text_or_empty(value: object) -> object:
    """Returns the name of the dataset if it is text, else an empty text."""
    return value if isinstance(value, str) else ""


def _is_region(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 1


def _as_numbers(value: int | Numbers) -> Numbers:
    return (value,) if isinstance(value, int) else value


class DatasetInfo(BaseModel):
    """The content of dataset.json in nnU-Net's format; unknown keys are ignored.

    Attributes:
        channel_names: Channel number ("0", "1", ...) to name. The name chooses the normalization: "CT", "noNorm",
            "zscore", "rescale_to_0_1", "rgb_to_0_1"; any other name means z-score, as for MR.
        normalization: Number of a channel named "CT" to `window_hu`: a window of Hounsfield units such as [-200, 300],
            which becomes -1 to 1, or a list of windows, each of which becomes a channel of the network. The number may
            be left out if there is one channel. Other CT is clipped to what the labelled voxels hold.
        labels: Name to number; "background" is 0 and the numbers are consecutive. Or name to several numbers: a region,
            such as "whole tumor", which may overlap others. The highest number may be called "ignore".
        regions_class_order: If there are regions, the number that each of them writes into a segmentation, in the order
            of `labels`. A later region overwrites those before it, so the largest region comes first.
        missing_channels: Whether cases, and later scans, may lack channels: there is no file of such a number.
        masks: Whether labels of several numbers are structures that are segmented as a mask each; then a number stands
            for a combination of structures.
        annotated: For each case in which not all labels were annotated: the annotated labels. Voxels of the other
            labels are unknown there, so background may belong to one of them.
        file_ending: Ending of every image and label file, such as ".nii.gz".
        name: Name of the dataset for people.
        machine_labelled: Names of the cases that were labelled by a model, and not by people; no fold holds them out.
        groups: Cases that belong together, such as the scans of one patient: case name to group, or a regular
            expression whose first bracket, or whole match, in a case's name is its group.
        overwrite_image_reader_writer: Reader of nnU-Net that is used regardless of the file ending;
            "NibabelIOWithReorient" reorients every volume first.
        sides: Pairs of words that distinguish left and right in label names, such as ["links", "rechts"]; by default
            "left" and "right" in many languages; if it is empty, labels have no sides.
        codes: Codes of labels for DICOM objects, for those whose names are not known, or mean something else: name of
            a label to `value` and `meaning`, and where needed `scheme` ("SCT"), `category` ("anatomy", "abnormality" or
            "tissue"), `side` ("left" or "right"), and `region` with `value` and `meaning`.

    Example:
        >>> text = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}'
        >>> info = DatasetInfo.parse(text, source="dataset.json")
        >>> info.channels, info.targets.structures
        (1, {'liver': (1,)})
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    channel_names: Annotated[dict[str, str], BeforeValidator(_numbered)] = Field(min_length=1)
    normalization: dict[str, ChannelNormalization] | None = None
    labels: Mapping[str, int | Numbers]
    regions_class_order: Numbers | None = None
    missing_channels: bool = False
    masks: bool = False
    annotated: dict[str, tuple[str, ...]] | None = None
    machine_labelled: tuple[str, ...] | None = None
    file_ending: str = Field(pattern=r"^\.\w[\w.]*$")
    name: Annotated[str, BeforeValidator(_text_or_empty)] = ""
    overwrite_image_reader_writer: str | None = None
    groups: dict[str, str] | str | None = None
    sides: tuple[tuple[str, str], ...] | None = None
    codes: dict[str, LabelCode] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_as_nnunet_does(cls, data: Any) -> Any:
        """Accepts the keys of the format's first version, and removes what nnU-Net v2.8.1 ignores.

        Without a label of several numbers, 'regions_class_order' has no effect in nnU-Net.
        """
        if not isinstance(data, dict):
            return data
        data = {key: compose_all(value) if key in cls.model_fields else value for key, value in data.items()}
        if "channel_names" not in data and "modality" in data:
            data["channel_names"] = data["modality"]
            data.setdefault("file_ending", FIRST_ENDING)
        if "normalization" in data:
            data["normalization"] = assign_to_channel(data["normalization"], data.get("channel_names"))
        labels = data.get("labels")
        if isinstance(labels, Mapping) and not any(_is_region(value) for value in labels.values()):
            data.pop("regions_class_order", None)
        return data

    @field_validator("overwrite_image_reader_writer")
    @classmethod
    def _reader_is_known(cls, name: str | None) -> str | None:
        if name in (None, "None"):
            return None
        if name not in READERS:
            raise ValueError(
                f"{name!r} is no reader of nnU-Net's own ({', '.join(READERS)}), and what it does to the files is not "
                "known here; leave the field out if the files are ordinary ones"
            )
        return name

    @field_validator("channel_names")
    @classmethod
    def _channels_are_numbered(cls, names: dict[str, str]) -> dict[str, str]:
        if sorted(names) != sorted(str(index) for index in range(len(names))):
            raise ValueError(f"the keys must be '0', '1', ... without gaps, not {sorted(names)}")
        return {str(index): names[str(index)] for index in range(len(names))}

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_have_names(cls, labels: Any) -> Any:
        if isinstance(labels, dict) and labels and all(str(key).isdigit() for key in labels):
            named = {str(name): int(number) for number, name in labels.items() if int(number) != 0}
            return {BACKGROUND: 0} | named if any(int(number) == 0 for number in labels) else named
        return labels

    @field_validator("labels")
    @classmethod
    def _labels_are_consecutive(cls, labels: dict[str, int | Numbers]) -> dict[str, int | Numbers]:
        if labels.get(BACKGROUND) not in (0, (0,)):
            raise ValueError("'background' must be there and be 0")
        numbers = {number for value in labels.values() for number in _as_numbers(value)}
        if sorted(numbers) != list(range(len(numbers))):
            raise ValueError(f"the numbers must be 0, 1, ... without gaps, not {sorted(numbers)}")
        if not set(labels) - {BACKGROUND, IGNORE}:
            raise ValueError("there must be at least one label besides the background")
        if IGNORE in labels and _as_numbers(labels[IGNORE]) != (max(numbers),):
            raise ValueError(f"'ignore' must be the highest number, {max(numbers)}")
        plain = {
            name: _as_numbers(value)[0] if len(_as_numbers(value)) == 1 else value for name, value in labels.items()
        }
        if any(isinstance(value, tuple) for value in plain.values()):
            return plain
        return dict(sorted(plain.items(), key=lambda item: item[1]))

    @model_validator(mode="after")
    def _windows_are_of_ct(self) -> "DatasetInfo":
        if problem := find_window_problem(self.normalization or {}, self.channel_names):
            raise ValueError(f"'normalization': {problem}")
        return self

    @model_validator(mode="after")
    def _regions_can_be_written(self) -> "DatasetInfo":
        several = [name for name, value in self.labels.items() if isinstance(value, tuple)]
        if self.masks and self.regions_class_order is not None:
            raise ValueError("'regions_class_order' writes one label map, 'masks' a mask each; keep one of them")
        if self.regions_class_order is None and not self.masks:
            if several:
                raise ValueError(
                    f"regions such as {several[0]!r} need 'regions_class_order', the number that each writes"
                )
            numbers = [value for value in self.labels.values() if isinstance(value, int)]
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"the numbers must differ, not {sorted(numbers)}")
            return self
        if self.regions_class_order is None:
            return self
        structures = self.targets.structures
        if len(self.regions_class_order) != len(structures):
            what = f"'regions_class_order' must have {len(structures)} numbers, one for each of {', '.join(structures)}"
            raise ValueError(what)
        check_region_order(structures, self.regions_class_order)
        return self

    @model_validator(mode="after")
    def _annotated_and_coded_labels_are_known(self) -> "DatasetInfo":
        names = self.targets.structures
        for name in [name for name in self.codes or {} if name not in names]:
            raise ValueError(f"'codes' names {name!r}, which is no label")
        for case, annotated in (self.annotated or {}).items():
            unknown = [name for name in annotated if name not in names]
            if unknown:
                raise ValueError(f"'annotated' names {unknown[0]!r} for case {case!r}, which is no label")
            if not annotated:
                raise ValueError(f"'annotated' names no label for case {case!r}; leave the case out of the dataset")
        return self

    def unannotated_in(self, case: str) -> tuple[str, ...]:
        """Returns the structures that were not annotated in a case."""
        annotated = (self.annotated or {}).get(case)
        return () if annotated is None else tuple(name for name in self.targets.names if name not in annotated)

    @field_validator("groups", mode="before")
    @classmethod
    def _groups_are_understood(cls, groups: Any) -> Any:
        return parse_groups(groups)

    @field_validator("sides")
    @classmethod
    def _sides_differ(cls, sides: tuple[tuple[str, str], ...] | None) -> tuple[tuple[str, str], ...] | None:
        left, right = ({pair[side].casefold() for pair in sides or ()} for side in (0, 1))
        for word in left | right:
            if not any(character.isalnum() for character in word):
                raise ValueError(f"{word!r} of sides is no word; give pairs such as ['links', 'rechts']")
        for word in left & right:
            raise ValueError(f"{word!r} of sides cannot mean both left and right")
        return sides

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return len(self.channel_names)

    @property
    def image_channels(self) -> int:
        """Number of channels that a network gets: one for each channel, or for each of its windows."""
        return sum(max(1, len(self.windows_of(number))) for number in self.channel_names)

    def windows_of(self, channel: str) -> tuple[Window, ...]:
        """Returns the windows of a channel, given its number; empty if dataset.json asks for none."""
        stated = (self.normalization or {}).get(channel)
        return () if stated is None else stated.window_hu

    @property
    def orientation(self) -> str | None:
        """Orientation that every volume is brought into first, such as "SAR"; None keeps that of the files."""
        return REORIENTED if self.overwrite_image_reader_writer == REORIENTING else None

    @property
    def targets(self) -> Targets:
        """The structures that a network learns."""
        ignore = self.labels.get(IGNORE)
        numbers = {name: value for name, value in self.labels.items() if name not in (BACKGROUND, IGNORE)}
        return Targets(
            structures={name: _as_numbers(value) for name, value in numbers.items()},
            exclusive=self.regions_class_order is None and not self.masks,
            ignore=ignore if isinstance(ignore, int) else None,
            region_class_order=self.regions_class_order or (),
        )

    @classmethod
    def load(cls, path: Path) -> "DatasetInfo":
        """Reads dataset.json; it raises the errors of `parse`, and ArtifactError if the file is missing."""
        return cls.parse(read_json_text(path), source=str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> "DatasetInfo":
        """Parses the text of a dataset.json; `source` names its origin in errors.

        Raises:
            DatasetError: The text is not JSON, or a field is missing or wrong.
            ArtifactError: An object has a key twice.
        """
        check_keys(text, source)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DatasetError(f"{source}: {first_mistake(error)}", "mend that field") from error

    def save(self, path: Path, notes: Mapping[str, object] | None = None) -> None:
        """Writes dataset.json atomically, with further keys such as numTraining, which nnU-Net requires."""
        content = {key: value for key, value in self.model_dump(mode="json").items() if value not in ("", None, False)}
        content |= notes or {}
        with atomic_file(path) as writing:
            writing.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
