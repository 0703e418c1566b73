"""What an import says and writes of cases in DICOM: their masks, their channels, and how they were acquired."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from autoseg.datasets.dataset import Case
from autoseg.datasets.names import compose
from autoseg.dicom.channels import read_channels
from autoseg.dicom.series import Series
from autoseg.dicom.tags import keep_tags
from autoseg.errors import ArtifactError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import write_image
from autoseg.runtime.artifact import atomic_file
from autoseg.runtime.reporting import Reporter

TAGS_FILE = "dicom_tags.json"
"""File beside dataset.json that says for each case and channel how it was acquired; see `dicom.tags`."""

ENDING = ".nii.gz"

MOST_PAIRS = 50
"""Pairs of a case and its mask that are listed. Decision: a screen of them shows whether the names were understood."""


def name_channels(series: Sequence[Sequence[Series]]) -> dict[str, str]:
    """Names the channels: CT, which decides how they are normalized, PET, else by the description that all share.

    Args:
        series: The series of each case.
    """
    names = {}
    for channel in range(len(series[0])):
        modalities = {case[channel].modality for case in series}
        descriptions = {case[channel].description for case in series} - {""}
        if len(modalities) == 1 and modalities <= {"CT", "PT"}:
            names[str(channel)] = "PET" if modalities == {"PT"} else "CT"
        elif len(descriptions) == 1 and descriptions.isdisjoint({"CT", *names.values()}):
            names[str(channel)] = descriptions.pop()
        else:
            names[str(channel)] = f"MR_{channel}" if modalities == {"MR"} else f"channel_{channel}"
    return names


def report_pairs(pairs: Sequence[tuple[Case, Path]], folder: Path, reporter: Reporter) -> None:
    """Says which mask belongs to which series, in a line for each case."""
    for case, label in pairs[:MOST_PAIRS]:
        place = label.relative_to(folder) if label.is_relative_to(folder) else label
        series = ", ".join(series.name for series in case.series)
        reporter.say(f"case {case.name!r}: {series} with mask {place}")
    if len(pairs) > MOST_PAIRS:
        reporter.say(f"and {len(pairs) - MOST_PAIRS} more cases with masks")


def write_channels(case: Case, folder: Path) -> None:
    """Writes the series of a case as CASE_0000.nii.gz, CASE_0001.nii.gz, ...; in 16 bit where that loses nothing.

    Raises:
        ImageError: A series cannot be read.
        ArtifactError: The folder cannot be written.
    """
    volume = read_channels(case.series)
    for channel, array in enumerate(volume.array):
        path = folder / f"{case.name}_{channel:04d}{ENDING}"
        write_image(path, Volume(array=array[np.newaxis], geometry=volume.geometry), compact=True)


def save_tags(cases: Sequence[Case], folder: Path, reporter: Reporter) -> None:
    """Writes for each case and channel how it was acquired, and nothing that names a patient.

    Raises:
        ImageError: A file cannot be read any more.
        ArtifactError: The folder cannot be written.
    """
    tags = {case.name: [keep_tags(series) for series in case.series] for case in cases}
    with atomic_file(folder / TAGS_FILE) as writing:
        writing.write_text(json.dumps(tags, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    reporter.say(f"{TAGS_FILE} keeps how each series was acquired; names, dates and numbers of patients are left out")


def load_tags(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Reads what `save_tags` wrote.

    Args:
        folder: Folder of the dataset.

    Returns:
        For each case and channel the tags that were kept, by keyword; empty if the dataset did not come as DICOM.

    Raises:
        ArtifactError: The file is damaged.
    """
    path = folder / TAGS_FILE
    if not path.is_file():
        return {}
    try:
        content = TypeAdapter(dict[str, list[dict[str, str]]]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{path} is damaged", "remove it; it says only how the scans were acquired") from error
    return {compose(name): channels for name, channels in content.items()}
