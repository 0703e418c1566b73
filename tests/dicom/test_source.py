"""Label maps on the slices of a series, whatever the order and direction of the axes of either."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from dicom_series import ORIENTATIONS, write_enhanced_series, write_series

from autoseg.dicom.source import place_on_slices, read_source
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Volume

pytest.importorskip("pydicom")


def numbered(geometry) -> Volume:
    """Returns a volume in which each voxel has a number of its own."""
    return Volume(array=np.arange(1, 1 + np.prod(geometry.shape)).reshape(geometry.shape), geometry=geometry)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_permuted_and_reversed_maps_come_back(tmp_path, orientation):
    """A map in any orientation lies on the slices as if it had never been turned."""
    series = write_series(tmp_path, orientation=orientation)
    source, volume = read_source(series), numbered(series.geometry)
    for axes in permutations(range(3)):
        turned = volume.permute(axes)
        letters = turned.geometry.orientation
        opposite = letters.translate(str.maketrans("SIPALR", "ISAPRL"))
        for orientation_ in (letters, opposite):
            placed = place_on_slices(turned.reoriented(orientation_), source)
            assert np.array_equal(placed, volume.array)


def test_maps_on_other_grids_are_taken_from_the_nearest_voxel(tmp_path):
    """Finer, coarser, and cropped maps; outside of them is 0."""
    series = write_series(tmp_path, shape=(4, 8, 6), orientation="coronal")
    source, volume = read_source(series), numbered(series.geometry)
    finer = Volume(array=volume.array.repeat(3, 0).repeat(3, 2), geometry=series.geometry.resample((12, 8, 18)))
    assert np.array_equal(place_on_slices(finer, source), volume.array)
    cropped = place_on_slices(
        Volume(array=volume.array[1:3, :5], geometry=replace(series.geometry, shape=(2, 5, 6),
               origin_mm=series.geometry._position(np.array([1.0, 0.0, 0.0])))), source)  # fmt: skip
    expected = np.zeros_like(volume.array)
    expected[1:3, :5] = volume.array[1:3, :5]
    assert np.array_equal(cropped, expected)


def test_maps_that_lie_askew_are_taken_from_the_nearest_voxel(tmp_path):
    """A brute-force search for the nearest voxel finds the same."""
    axial = write_series(tmp_path / "a", shape=(5, 9, 8), spacing_mm=(2.0, 1.0, 1.0))
    oblique = write_series(tmp_path / "b", shape=(5, 9, 8), spacing_mm=(2.0, 1.0, 1.0), orientation="oblique")
    volume, source = numbered(axial.geometry), read_source(oblique)
    placed = place_on_slices(volume, source)
    centres = np.stack(np.meshgrid(*(np.arange(size) for size in (5, 9, 8)), indexing="ij"), -1).reshape(-1, 3)
    mm = np.array([axial.geometry._position(index) for index in centres])
    for index in centres[::7]:
        point = np.array(oblique.geometry._position(index))
        nearest = centres[np.linalg.norm(mm - point, axis=1).argmin()]
        off = np.abs((point - axial.geometry._position(nearest)) / axial.geometry.spacing_mm).max()
        assert placed[tuple(index)] == (volume.array[tuple(nearest)] if off < 0.5 else 0)


def test_tilted_slices_are_followed(tmp_path):
    """Each slice of a tilted gantry is shifted against the one before; its labels shift with it."""
    series = write_series(tmp_path, shape=(3, 6, 4), spacing_mm=(2.0, 1.0, 1.0))
    tilted = tuple(
        replace(frame, position_mm=(frame.position_mm[0], frame.position_mm[1] + number, frame.position_mm[2]))
        for number, frame in enumerate(series.frames)
    )
    volume = numbered(series.geometry)
    placed = place_on_slices(volume, read_source(replace(series, frames=tilted)))
    for number in range(3):
        assert np.array_equal(placed[number, : 6 - number], volume.array[number, number:])
        assert not placed[number, 6 - number :].any()


def test_headers_are_read_whole(tmp_path):
    """Text in the character set of the file, and only what objects take over."""
    source = read_source(write_series(tmp_path))
    assert str(source.headers[0].PatientName) == "Müller^Änne"
    assert "KVP" not in source.headers[0]
    assert source.shape == (4, 7, 5)
    assert source.series_number == 4
    assert read_source(write_series(tmp_path / "b", SeriesNumber=None)).series_number == 0
    assert read_source(write_enhanced_series(tmp_path / "c")).is_multi_frame


def test_series_that_lie_nowhere_or_in_several_files_are_refused(tmp_path):
    """The message names the folder and what to do."""
    series = write_series(tmp_path)
    nowhere = replace(series, frames=tuple(replace(frame, position_mm=None) for frame in series.frames))
    with pytest.raises(ImageError, match=r"does not state where its slices lie; ask for NIfTI alone"):
        read_source(nowhere)
    frames = tuple(replace(frame, number=0) for frame in series.frames)
    with pytest.raises(ImageError, match="frames of 4 files"):
        read_source(replace(series, frames=frames))
    series.frames[1].path.unlink()
    with pytest.raises(ImageError, match=r"cannot read .*slice_002"):
        read_source(series)
