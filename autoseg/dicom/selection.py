"""Which of several series is meant: by its number in a table, a pattern of its description, or its UID."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from autoseg.dicom.series import Series
from autoseg.errors import UsageError

COLUMNS = ("", "modality", "description", "voxels", "spacing in mm", "remark")
"""Headings of the table of series."""

MOST_LISTED = 8
"""Series that an error in one line names. Decision: the table on the screen has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesChoice:
    """What the user says about which series of a case are meant.

    Attributes:
        series: Number in the table of the case, from 1; or a pattern of the description, such as "t2*", in which
            letters may be small or capital; or a Series Instance UID. None if there is only one scan.
        channels: The same for each channel of a model of several.
        resample_tilt: Whether the slices of a tilted gantry are resampled to a straight grid.
    """

    series: str | None = None
    channels: tuple[str, ...] = ()
    resample_tilt: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that choose a series, one per channel; empty if there is nothing to choose."""
        return self.channels or (() if self.series is None else (self.series,))


ONLY_SERIES = SeriesChoice()
"""The only series of an examination."""


class SeriesChoiceError(UsageError):
    """It is not clear which series of a case is meant.

    Args:
        what: What is wrong.
        fix: What to do about it.
        series: The series of the case, for a table.
    """

    def __init__(self, what: str, fix: str, series: Sequence[Series] = ()) -> None:
        super().__init__(what, fix)
        self.series = tuple(series)

    def __reduce__(self) -> tuple[type["SeriesChoiceError"], tuple[str, str, tuple[Series, ...]]]:  # type: ignore[override]
        """Supports pickling, which carries the error from one process to another."""
        return type(self), (self.what, self.fix, self.series)


class NoSeriesError(SeriesChoiceError):
    """None of the series of a case is meant."""


def choose_series(series: Sequence[Series], choice: SeriesChoice, name: str, modality: str = "") -> tuple[Series, ...]:
    """Returns the series that are meant, one per channel.

    Without a choice it is the only scan: localizers and secondary captures do not count, nor series of another modality
    than the model's, nor series with a defect if there is one without.

    Args:
        series: All series of a case, in the order of the table.
        choice: What the user says.
        name: Name of the case in messages.
        modality: Modality of the model's images, such as "CT", if it is known.

    Raises:
        NoSeriesError: There is no scan, or none fits.
        SeriesChoiceError: Several fit.
    """
    if choice.texts:
        chosen = tuple(_choose(series, text, name, choice) for text in choice.texts)
    else:
        chosen = (_choose_only(series, name, modality),)
    return tuple(replace(one, straighten=choice.resample_tilt) for one in chosen)


def list_rows(series: Sequence[Series], *, with_defects: bool = True) -> list[tuple[str, ...]]:
    """Returns the rows of the table of series; see `COLUMNS`.

    The number in the first column is what `SeriesChoice.series` takes.

    Args:
        series: All series of a case.
        with_defects: Whether the last column says why a series cannot be read.
    """
    return [(str(index), *_describe(one, with_defects=with_defects)) for index, one in enumerate(series, start=1)]


def _choose(series: Sequence[Series], text: str, name: str, choice: SeriesChoice) -> Series:
    option = "--channels" if choice.channels else "--series"
    if text.isdigit() and 1 <= int(text) <= len(series):
        return series[int(text) - 1]
    matching = [one for one in series if text == one.uid]
    matching = matching or [one for one in series if _matches(one, text)]
    scans = [one for one in matching if not one.role] or matching
    if not scans:
        fix = f"{option} takes the number, a pattern of the description, or the UID of one of these: {_names(series)}"
        raise NoSeriesError(f"{name} holds no series {text!r}", fix, series)
    return _only(scans, f"{name} holds {len(scans)} series {text!r}", series, option)


def _choose_only(series: Sequence[Series], name: str, modality: str) -> Series:
    scans = [one for one in series if not one.role]
    if not scans:
        roles = ", ".join(sorted({f"{one.role} {one.description!r}" for one in series})) or "no images at all"
        what, fix = f"{name} holds no scan ({roles})", "give a folder with one, or choose with --series"
        raise NoSeriesError(what, fix, series)
    scans = [one for one in scans if one.modality == modality] or scans
    scans = [one for one in scans if one.defect is None] or scans
    return _only(scans, f"{name} holds {len(scans)} series that could be meant", series, "--series")


def _only(scans: Sequence[Series], what: str, series: Sequence[Series], option: str) -> Series:
    if len(scans) > 1:
        numbers = {id(one): index for index, one in enumerate(series, start=1)}
        names = "; ".join(f"{numbers[id(one)]} is {one.name}" for one in scans[:MOST_LISTED])
        raise SeriesChoiceError(
            f"{what}: {names}", f"choose one by its number, description or UID with {option}", series
        )
    return scans[0]


def _matches(series: Series, pattern: str) -> bool:
    texts = (series.description, f"{series.description} {series.part}".strip())
    return any(fnmatchcase(text.lower(), pattern.lower()) for text in texts)


def _names(series: Sequence[Series]) -> str:
    names = "; ".join(f"{index} is {one.name}" for index, one in enumerate(series[:MOST_LISTED], start=1))
    return names + ("; ..." if len(series) > MOST_LISTED else "")


def _describe(series: Series, *, with_defects: bool) -> tuple[str, ...]:
    rows, columns = series.frames[0].size
    size = f"{columns} x {rows} x {len(series.frames)}"
    spacing = ""
    if series.geometry is not None:
        spacing = " x ".join(f"{step:.4g}" for step in series.geometry.spacing_mm[::-1])
    remarks = [series.role, *series.remarks, series.defect.what if series.defect and with_defects else ""]
    description = ", ".join(text for text in (series.description, series.part) if text)
    return series.modality, description, size, spacing, "; ".join(remark for remark in remarks if remark)
