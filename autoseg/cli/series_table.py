"""Tables of DICOM series: one from which one is chosen, and one of series with their masks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoseg.importing.dicom_check import DicomCheck


@contextmanager
def show_series() -> Iterator[None]:
    """Shows the series of an examination if it is not clear which is meant, before the error says so."""
    from autoseg.cli.terminal import print_table
    from autoseg.dicom.selection import COLUMNS, SeriesChoiceError, list_rows

    try:
        yield
    except SeriesChoiceError as error:
        print_table("series", COLUMNS, list_rows(error.series))
        raise


def show_checked(title: str, check: "DicomCheck") -> None:
    """Shows the series of all examinations, with what was drawn on them."""
    from autoseg.cli.terminal import print_table
    from autoseg.dicom.selection import COLUMNS, list_rows
    from autoseg.runtime.reporting import list_names

    rows = [
        (examination.name if number == 0 else "", *row, list_names(check.structures.get(series.uid, ())))
        for examination in check.examinations
        for number, (series, row) in enumerate(
            zip(examination.series, list_rows(examination.series, with_defects=False), strict=True)
        )
    ]
    print_table(title, ("examination", *COLUMNS, "masks"), rows)
