"""Which series is meant."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.dicom.selection import SeriesChoice, SeriesChoiceError, choose_series, list_rows
from autoseg.dicom.series import Defect, Frame, Series
from autoseg.errors import UsageError
from autoseg.imaging.geometry import Geometry

FRAME = Frame(
    path=Path("a.dcm"),
    number=None,
    sop_uid="1",
    position_mm=(0.0, 0.0, 0.0),
    row_cosines=(1.0, 0.0, 0.0),
    column_cosines=(0.0, 1.0, 0.0),
    size=(4, 6),
    spacing_mm=(1.0, 2.0),
)
T2 = Series(
    uid="1.1",
    number=4,
    description="T2 TSE",
    modality="MR",
    frames=(FRAME,),
    geometry=Geometry(shape=(1, 4, 6), spacing_mm=(3.0, 1.0, 2.0)),
)
SERIES = [
    replace(T2, uid="1.0", number=1, description="survey", role="localizer"),
    T2,
    replace(T2, uid="1.2", number=5, description="DWI", part="DiffusionBValue 0"),
    replace(T2, uid="1.2", number=5, description="DWI", part="DiffusionBValue 800"),
    replace(T2, uid="1.3", number=6, description="ADC", defect=Defect(what="broken", fix="mend it")),
]


@pytest.mark.parametrize(
    ("text", "index"), [("2", 1), ("t2*", 1), ("T2 TSE", 1), ("1.1", 1), ("*b?alue 800", 3), ("survey", 0), ("5", 4)]
)
def test_a_series_is_chosen_by_number_description_or_uid(text, index):
    """Letters may be small or capital, and the part of a series counts too."""
    assert choose_series(SERIES, SeriesChoice(series=text), "case") == (SERIES[index],)


@pytest.mark.parametrize("text", ["DWI*", "1.2", "9", "flair"])
def test_a_choice_that_fits_several_or_none_is_refused(text):
    """The error holds the table, and survives being sent to another process."""
    with pytest.raises(SeriesChoiceError) as caught:
        choose_series(SERIES, SeriesChoice(series=text), "case")
    assert pickle.loads(pickle.dumps(caught.value)).series == tuple(SERIES)  # noqa: S301 - made here
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - made here


def test_the_only_scan_needs_no_choice():
    """Localizers do not count, nor series with a defect beside one without, nor other modalities."""
    only = SeriesChoice()
    assert choose_series([SERIES[0], SERIES[1], SERIES[4]], only, "case") == (T2,)
    assert choose_series([T2, replace(T2, modality="CT")], only, "case", "CT") == (replace(T2, modality="CT"),)
    assert choose_series([SERIES[4]], only, "case") == (SERIES[4],)
    with pytest.raises(UsageError, match=r"holds no scan \(localizer 'survey'\)"):
        choose_series(SERIES[:1], only, "case")
    with pytest.raises(SeriesChoiceError, match="case holds 3 series that could be meant: 2 is series 4"):
        choose_series(SERIES, only, "case")


def test_channels_are_chosen_in_order():
    """One series for each text; a tilt is straightened in all."""
    chosen = choose_series(SERIES, SeriesChoice(channels=("ADC", "t2*"), resample_tilt=True), "case")
    assert [series.description for series in chosen] == ["ADC", "T2 TSE"]
    assert all(series.straighten for series in chosen)


def test_the_table_names_what_is_odd():
    """One row per series, numbered from 1."""
    rows = list_rows(SERIES)
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[1] == ("2", "MR", "T2 TSE", "6 x 4 x 1", "2 x 1 x 3", "")
    assert rows[3][2] == "DWI, DiffusionBValue 800"
    assert rows[4][-1] == "broken"
