"""Segmentations and structure sets are read onto their series."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import ORIENTATIONS, make_series, random_voxels, write_series
from dicom_masks import make_segmentation, make_structure_set, save
from dicom_readers import draw_by_plastimatch
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from autoseg.dicom.masks import describe_mask, place_masks, read_mask
from autoseg.dicom.search import find_series
from autoseg.dicom.structure_contours import fill_polygon
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import write_label_map

SHAPE = (4, 9, 11)


def make_masks(seed: int = 0, *, overlap: bool = True) -> dict[str, np.ndarray]:
    """Makes two masks in which every slice and line differs."""
    rng = np.random.default_rng(seed)
    first, second = rng.random(SHAPE) > 0.6, rng.random(SHAPE) > 0.7
    return {"Liver": first, "Tumour, left": second if overlap else second & ~first}


def read_all(folder: Path, slices: list[Dataset], mask: Dataset, *, shuffled: bool = False) -> dict[str, np.ndarray]:
    """Writes a series and a mask, and reads the mask."""
    write_series(folder, slices[::-1] if shuffled else slices)
    save(folder, mask, "mask.dcm")
    files = find_series(folder)
    [series], [header] = files.series, files.masks
    described = describe_mask(header)
    assert described.series_uid == slices[0].SeriesInstanceUID
    read = dict(read_mask(described, series.grid()))
    assert tuple(read) == described.names
    return read


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_binary_segments_lie_where_they_were_drawn(tmp_path, orientation):
    """In every orientation, with segments that overlap, and frames that do not begin at a byte."""
    slices, masks = make_series(random_voxels(SHAPE), orientation=ORIENTATIONS[orientation]), make_masks()
    read = read_all(tmp_path, slices, make_segmentation(slices, masks), shuffled=True)
    assert all(np.array_equal(read[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_label_maps_are_segments(tmp_path, syntax):
    """Each number is a segment; the background is none."""
    slices, masks = make_series(random_voxels(SHAPE)), make_masks(overlap=False)
    read = read_all(tmp_path, slices, make_segmentation(slices, masks, "LABELMAP", syntax))
    assert all(np.array_equal(read[name], mask) for name, mask in masks.items())


def test_fractional_segments_begin_at_a_half(tmp_path):
    """A voxel belongs to a segment from 0.5 on."""
    slices = make_series(random_voxels(SHAPE))
    shares = np.random.default_rng(1).choice([0.0, 0.2, 0.4, 0.6, 1.0], size=SHAPE)
    read = read_all(tmp_path, slices, make_segmentation(slices, {"Liver": shares}, "FRACTIONAL"))
    assert np.array_equal(read["Liver"], shares > 0.5)


def test_a_segment_without_voxels_is_empty(tmp_path):
    """It was annotated, and nothing was found."""
    slices, masks = make_series(random_voxels(SHAPE)), make_masks()
    masks["Cyst"] = np.zeros(SHAPE, dtype=bool)
    read = read_all(tmp_path, slices, make_segmentation(slices, masks))
    assert not read["Cyst"].any()


def test_a_segmentation_of_another_grid_is_refused(tmp_path):
    """Its voxels lie between those of the series."""
    slices = make_series(random_voxels(SHAPE))
    mask = make_segmentation(slices, make_masks())
    for item in mask.PerFrameFunctionalGroupsSequence:
        position = item.PlanePositionSequence[0].ImagePositionPatient
        item.PlanePositionSequence[0].ImagePositionPatient = [float(position[0]) + 0.45, position[1], position[2]]
    with pytest.raises(ImageError, match="do not lie on the voxels of the series"):
        read_all(tmp_path, slices, mask)


def test_a_segmentation_of_more_slices_is_refused(tmp_path):
    """It reaches out of the series."""
    slices = make_series(random_voxels(SHAPE))
    mask = make_segmentation(slices, {"Liver": np.ones(SHAPE, dtype=bool)})
    with pytest.raises(ImageError, match="reach out of the series"):
        read_all(tmp_path, slices[:3], mask)


def square(slices: list[Dataset], index: int, low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    """Makes the corners (x, y, z) of a rectangle from pixel (row, column) `low` to `high`."""
    data = slices[index]
    row, column = np.asarray(data.ImageOrientationPatient, float).reshape(2, 3)
    corners = [(low[0], low[1]), (low[0], high[1]), (high[0], high[1]), (high[0], low[1])]
    position = np.asarray(data.ImagePositionPatient, float)
    down, across = float(data.PixelSpacing[0]) * column, float(data.PixelSpacing[1]) * row
    return np.array([position + y * down + x * across for y, x in corners])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contours_with_holes_and_islands_are_filled(tmp_path, orientation):
    """A square with a hole, in which there is an island, and a keyhole in another slice."""
    slices = make_series(random_voxels(SHAPE), orientation=ORIENTATIONS[orientation])
    outer, hole = square(slices, 1, (0.5, 0.5), (7.5, 9.5)), square(slices, 1, (1.5, 2.5), (6.5, 8.5))
    island = square(slices, 1, (3.5, 4.5), (4.5, 6.5))
    ring, inside = square(slices, 2, (0.5, 0.5), (7.5, 9.5)), square(slices, 2, (1.5, 2.5), (6.5, 8.5))
    keyhole = np.concatenate([ring, ring[:1], inside, inside[:1]])
    mask = make_structure_set(slices, {"GTV": [outer, hole, island], "Ring": [keyhole], "Empty": []})
    read = read_all(tmp_path, slices, mask)
    expected = np.zeros(SHAPE, dtype=bool)
    expected[1, 1:8, 1:10] = True
    expected[1, 2:7, 3:9] = False
    assert np.array_equal(read["Ring"][2], expected[1])
    expected[1, 4, 5:7] = True
    assert np.array_equal(read["GTV"], expected)
    assert "Empty" not in read


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "oblique"])
def test_contours_of_a_planning_program_are_filled(tmp_path, orientation):
    """A hollow ball, drawn by plastimatch from the mask."""
    shape = (6, 31, 23)
    slices = make_series(random_voxels(shape), orientation=ORIENTATIONS[orientation])
    [series] = find_series(write_series(tmp_path / "scan", slices)).series
    middle = (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    radius = (((np.indices(shape) - middle) / middle) ** 2).sum(axis=0)
    drawn = (radius < 0.8) & (radius > 0.15)
    write_label_map(tmp_path / "mask.nrrd", Volume(array=drawn.astype(np.uint8), geometry=series.grid()))
    draw_by_plastimatch(tmp_path / "mask.nrrd", tmp_path / "scan", tmp_path / "contours")
    [header] = find_series(tmp_path / "contours").masks
    [(mask, found)] = place_masks([describe_mask(header)], [series])
    assert found == [series]
    [(_, read)] = read_mask(mask, series.grid())
    assert np.array_equal(read, drawn)


def test_contours_between_slices_are_refused(tmp_path):
    """They were drawn on another series."""
    slices = make_series(random_voxels(SHAPE))
    between = square(slices, 1, (0.5, 0.5), (7.5, 9.5)) + np.array([0.0, 0.0, 1.5])
    mask = make_structure_set(slices, {"GTV": [between]})
    with pytest.raises(ImageError, match="contours of 'GTV' do not lie on slices"):
        read_all(tmp_path, slices, mask)


def test_polygons_are_filled_as_point_by_point():
    """Compared with a test of each centre."""
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(5)
    for _ in range(20):
        points = rng.uniform(-2, 14, size=(rng.integers(3, 5), 2))
        y, x = np.indices((12, 13))
        inside = Outline(points).contains_points(np.stack([y.ravel(), x.ravel()], axis=1)).reshape(12, 13)
        if len(points) == 3:  # others may cut themselves
            assert np.array_equal(fill_polygon(points, (12, 13)), inside)
