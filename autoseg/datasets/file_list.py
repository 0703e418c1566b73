"""The keys of dataset.json about files: the number of cases, and the paths of files that are not in imagesTr.

    "numTraining": 260
    "dataset": {"case_1": {"images": ["/data/a.nii.gz", "../b.nii.gz"], "label": "$HOME/masks/a.nii.gz"}, ...}

Source: nnU-Net v2.8.1's raw format. A path is relative to the folder of dataset.json unless it is absolute, and names
of environment variables in it are replaced by their values. If there is a list, imagesTr and labelsTr are ignored.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from autoseg.errors import DatasetError
from autoseg.imaging.formats import find_listed
from autoseg.runtime.json_text import first_mistake, read_json_text

LONGEST_NAME = 200


def _as_case_name(name: str) -> str:
    """Checks that files can be named after the case."""
    if not name.isprintable() or set(name) & set("/\\") or name.startswith(".") or not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"{name[:LONGEST_NAME]!r} cannot be the name of a case, because files are named by it")
    return name


CaseName = Annotated[str, AfterValidator(_as_case_name)]
ListedPath = Annotated[str, Field(min_length=1)]


class ListedCase(BaseModel):
    """The files of one case, as dataset.json lists them.

    Attributes:
        images: Path of each channel, in the order of the channels; or of one file that holds all channels.
        label: Path of the label map.
    """

    model_config = ConfigDict(frozen=True)

    images: Annotated[tuple[ListedPath, ...], Field(min_length=1)]
    label: ListedPath


class FileList(BaseModel):
    """The keys of dataset.json about files; `DatasetInfo` has all other keys.

    They are separate because channels and labels are stored with each model, and the paths of patients' files are not.

    Attributes:
        count: Number of training cases, if it is stated.
        cases: The files of each case, if they are listed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: Annotated[int | None, Field(alias="numTraining")] = None
    cases: Annotated[Mapping[CaseName, ListedCase] | None, Field(alias="dataset", min_length=1)] = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads dataset.json.

        Raises:
            DatasetError: A name or a path is missing or invalid, or the file is not JSON.
            ArtifactError: The file is missing.
        """
        try:
            return cls.model_validate_json(read_json_text(path))
        except ValidationError as error:
            raise DatasetError(f"{path}: {first_mistake(error)}", "mend that field") from error

    def locate(self, folder: Path) -> dict[str, tuple[tuple[Path, ...], Path]]:
        """Returns the paths of the images and of the label map of each case, by case name.

        Args:
            folder: Folder of dataset.json.
        """
        listings: dict[Path, dict[str, str]] = {}
        return {
            name: (
                tuple(_locate(image, folder, listings) for image in case.images),
                _locate(case.label, folder, listings),
            )
            for name, case in sorted((self.cases or {}).items())
        }


def _locate(path: str, folder: Path, listings: dict[Path, dict[str, str]]) -> Path:
    """Returns the path of a listed file; like the system, it resolves ".." from the target of a linked folder."""
    return find_listed(folder, os.path.expandvars(path), listings)
