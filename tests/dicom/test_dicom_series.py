"""The type of a sorted series."""

from pathlib import Path

import pytest

from autoseg.dicom.series import Defect, Frame, Series
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Geometry


def make_frame(path: str, number: int | None = None) -> Frame:
    """Makes a slice in a file."""
    return Frame(
        path=Path(path),
        number=number,
        sop_uid="1.2",
        position_mm=(0.0, 0.0, 0.0),
        row_cosines=(1.0, 0.0, 0.0),
        column_cosines=(0.0, 1.0, 0.0),
        size=(2, 3),
        spacing_mm=(1.0, 1.0),
    )


def test_files_are_listed_once_in_slice_order():
    """A file of several frames is listed once, where its first frame lies."""
    frames = (make_frame("b.dcm", 1), make_frame("b.dcm", 0), make_frame("a.dcm"))
    assert Series(uid="1", frames=frames).paths == (Path("b.dcm"), Path("a.dcm"))


def test_a_series_with_a_defect_has_no_grid_and_says_why():
    """The message names the folder, the series, the defect and what to do."""
    frames = (make_frame("folder/a.dcm"),)
    series = Series(
        uid="1", number=3, description="T2", modality="MR", frames=frames, defect=Defect(what="broken", fix="mend it")
    )
    with pytest.raises(ImageError, match=r"folder, series 3 'T2' \(MR\): broken; mend it"):
        series.grid()


def test_a_sound_series_has_its_grid():
    """The grid is that of the sorted slices."""
    geometry = Geometry(shape=(1, 2, 3), spacing_mm=(1.0, 1.0, 1.0))
    assert Series(uid="1", frames=(make_frame("a.dcm"),), geometry=geometry).grid() == geometry
