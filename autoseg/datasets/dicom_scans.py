"""Scans in DICOM: the series of each examination that are meant, as cases."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.dicom.examinations import Examination, describe_channels, group_examinations
from autoseg.dicom.search import find_series
from autoseg.dicom.selection import NoSeriesError, SeriesChoice, choose_series
from autoseg.dicom.series import Defect
from autoseg.errors import DatasetError, ProblemsError, UsageError
from autoseg.imaging.formats import readable_name

MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT"}
"""Names of channels in dataset.json that are those of modalities, in small letters."""


def find_dicom_scans(source: Path, info: DatasetInfo, choice: SeriesChoice) -> list[Case]:
    """Finds the scans of DICOM files that a model with these channels can segment, one for each examination.

    Args:
        source: A DICOM file, a DICOMDIR, or a folder that holds DICOM files in any subfolder.
        info: States the channels; a model of CT, say, takes series of CT if there are any.
        choice: Which series are meant.

    Returns:
        The scans, ordered by name; `Case.series` has one series per channel. Examinations that hold none that is meant
        do not stop others, as those that cannot be read do not: their series has a defect that says so.

    Raises:
        DatasetError: There is no series at all.
        UsageError: pydicom is not installed, or a series is chosen in a way that does not fit.
        SeriesChoiceError: It is not clear which series of an examination is meant, or none of the only one is.
        ProblemsError: The same for several examinations, with a line for each.
    """
    check_number_of_channels(choice, info)
    modality = MODALITIES.get(info.channel_names["0"].lower(), "")
    examinations = find_examinations(source)
    if len(examinations) > 1 and any(text.isdigit() for text in choice.texts):
        what = f"{source} holds {len(examinations)} examinations, and numbers of series are those of one of them"
        raise UsageError(what, "choose the series by a pattern of their descriptions")
    cases: list[Case] = []
    unclear: list[UsageError] = []
    without: list[tuple[Examination, NoSeriesError]] = []
    for examination in examinations:
        try:
            cases.append(make_case(examination, choice, modality))
        except NoSeriesError as error:
            without.append((examination, error))
        except UsageError as error:
            unclear.append(error)
    errors = [*unclear, *(error for _, error in without)] if unclear or not cases else []
    if len(errors) > 1:
        raise ProblemsError([str(error) for error in errors])
    if errors:
        raise errors[0]
    cases += [_make_case_without(examination, error) for examination, error in without]
    return sorted(cases, key=lambda case: case.name)


def find_examinations(source: Path) -> list[Examination]:
    """Finds the examinations of a source.

    Raises:
        DatasetError: There is no series at all.
        ImageError: The only file cannot be read.
        UsageError: pydicom is not installed.
    """
    files = find_series(source)
    if not files.series:
        if files.damaged:
            raise ProblemsError([str(error) for error in files.damaged])
        raise DatasetError(f"{source} holds DICOM files, but no series of images", "check the path")
    return group_examinations(files.series, source)


def make_case(examination: Examination, choice: SeriesChoice, modality: str) -> Case:
    """Returns the case of an examination; errors as of `choose_series`."""
    chosen = choose_series(examination.series, choice, examination.name, modality)
    images = tuple(series.paths[0] for series in chosen)
    return Case(name=readable_name(examination.name), images=images, series=chosen)


def _make_case_without(examination: Examination, error: NoSeriesError) -> Case:
    """Returns the case of an examination without a series that is meant; reading it raises the error."""
    series = replace(examination.series[0], defect=Defect(what=error.what, fix=error.fix), geometry=None, remarks=())
    return Case(name=readable_name(examination.name), images=(series.paths[0],), series=(series,))


def check_number_of_channels(choice: SeriesChoice, info: DatasetInfo) -> None:
    """Checks that as many series are chosen as the model has channels.

    Raises:
        UsageError: They are more or fewer.
    """
    chosen = len(choice.texts) or 1
    if chosen != info.channels:
        names = ", ".join(info.channel_names.values())
        what = f"the model has {info.channels} channels ({names}), and {chosen} series per case would be taken"
        fix = "take one series" if info.channels == 1 else "choose a series for each with --channels, in this order"
        raise UsageError(what, fix)


def describe_dicom_scans(cases: Sequence[Case]) -> Iterator[str]:
    """Yields a line for each series of cases that is odd, resampled, or whose values have no common scale."""
    for case in cases:
        for series in case.series:
            yield from (f"case {case.name!r}: {series.name}: {remark}" for remark in series.remarks)
        if len(case.series) > 1 and all(series.geometry is not None for series in case.series):
            yield from (f"case {case.name!r}: {line}" for line in describe_channels(case.series))
    if any(series.modality == "PT" for case in cases for series in case.series):
        yield "PET is read in the unit of its files; standardized uptake values (SUV) are not calculated"
