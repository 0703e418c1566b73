"""Files that nnU-Net v2 wrote for a dataset: its fingerprint and its splits."""

from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.names import Name
from autoseg.errors import ArtifactError
from autoseg.runtime.json_text import first_mistake, read_json_text

SPLITS_FILE = "splits_final.json"
"""Name of nnU-Net's file of folds. Source: nnU-Net v2.8.1: it lies beside the
preprocessed cases, copied there from the raw dataset."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Spacing = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=1)]
CaseName = Annotated[Name, Field(min_length=1)]
Content = TypeVar("Content")


class _Intensities(BaseModel):
    """One channel, in nnU-Net's words; other keys are ignored, here and below."""

    mean: Finite
    median: Finite
    std: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    min: Finite
    max: Finite
    percentile_00_5: Finite
    percentile_99_5: Finite


class _DatasetFingerprint(BaseModel):
    """The content of dataset_fingerprint.json. Source: nnU-Net v2.8.1, fingerprint extractor."""

    spacings: Annotated[list[tuple[Spacing, Spacing, Spacing]], Field(min_length=1)]
    shapes_after_crop: list[tuple[Size, Size, Size]]
    foreground_intensity_properties_per_channel: Annotated[dict[str, _Intensities], Field(min_length=1)]
    median_relative_size_after_cropping: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _lists_fit_together(self) -> Self:
        if len(self.shapes_after_crop) != len(self.spacings):
            raise ValueError(
                f"shapes_after_crop holds {len(self.shapes_after_crop)} cases, spacings holds {len(self.spacings)}"
            )
        channels = self.foreground_intensity_properties_per_channel
        if channels.keys() != {str(number) for number in range(len(channels))}:
            raise ValueError(
                "the keys of foreground_intensity_properties_per_channel must be '0', '1', ... without gaps, "
                f"not {sorted(channels)}"
            )
        return self


class _Fold(BaseModel):
    """One entry of splits_final.json."""

    train: list[CaseName]
    val: list[CaseName]


FINGERPRINT = TypeAdapter(_DatasetFingerprint)
SPLITS: TypeAdapter[list[_Fold]] = TypeAdapter(Annotated[list[_Fold], Field(min_length=1)])


def read_fingerprint(path: Path) -> Fingerprint:
    """Reads nnU-Net's dataset_fingerprint.json.

    It contains neither the names of the cases nor their shapes before cropping, orientations and labels: these keep the
    defaults of `CaseFacts`. The order of the cases is that of the file, and so is the through-plane spacing of
    pictures, which nnU-Net sets to 999 times the in-plane spacing.

    Raises:
        ArtifactError: The file is missing or not JSON, or a field is missing or invalid; the text names it.
    """
    content = _read(path, FINGERPRINT, "dataset_fingerprint.json")
    channels = content.foreground_intensity_properties_per_channel
    cases = zip(content.shapes_after_crop, content.spacings, strict=True)
    return Fingerprint(
        cases=tuple(CaseFacts(shape_after_crop=shape, spacing_mm=spacing) for shape, spacing in cases),
        channels=tuple(_channel_facts(channels[str(number)]) for number in range(len(channels))),
        median_relative_size_after_crop=content.median_relative_size_after_cropping,
    )


def read_splits(path: Path) -> list[tuple[list[str], list[str]]]:
    """Reads nnU-Net's splits_final.json.

    Returns:
        For each fold, the names of the cases to train on and of those that are held out, in the order of the file.

    Raises:
        ArtifactError: The file is missing or not JSON, or an entry is missing or no list of names; the text names it.
    """
    return [(fold.train, fold.val) for fold in _read(path, SPLITS, "splits_final.json")]


def _read(path: Path, kind: TypeAdapter[Content], name: str) -> Content:
    fix = f"bring a {name} as nnU-Net v2 writes it"
    try:
        text = read_json_text(path)
    except ArtifactError as error:
        raise ArtifactError(error.what, fix) from error
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {first_mistake(error)}", fix) from error


def _channel_facts(channel: _Intensities) -> ChannelFacts:
    return ChannelFacts(
        mean=channel.mean,
        median=channel.median,
        std=channel.std,
        minimum=channel.min,
        maximum=channel.max,
        percentile_00_5=channel.percentile_00_5,
        percentile_99_5=channel.percentile_99_5,
    )
