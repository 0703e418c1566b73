"""The content of dataset.json: channels, labels, and which cases belong together."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from autoseg.artifact import atomic_file, first_mistake, read_text
from autoseg.errors import DatasetError
from autoseg.targets import Targets

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
    def targets(self) -> Targets:
        """What a network learns."""
        return Targets(structures={name: (number,) for name, number in self.foreground.items()})

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
