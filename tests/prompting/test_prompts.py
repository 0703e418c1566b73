"""Prompts of a user mean the voxels that a viewer shows, in voxels and in mm."""

import numpy as np
import pytest

from autoseg.errors import UsageError
from autoseg.imaging.geometry import Geometry, direction_of
from autoseg.prompting.planes import SlicePrompt, slice_grid
from autoseg.prompting.prompts import parse_unit, place_box, place_point
from autoseg.prompting.structures import arrange_structures

VOLUME = Geometry(
    shape=(5, 8, 10), spacing_mm=(3.0, 1.0, 0.5), origin_mm=(-20.0, 7.0, 11.0), direction=direction_of("SAR")
)
PICTURE = Geometry(shape=(1, 8, 10), spacing_mm=(1.0, 1.0, 1.0), dimensions=2, is_placed=False)


def in_mm(index: tuple[float, ...]) -> tuple[float, ...]:
    """Where an index lies."""
    return tuple(VOLUME.origin_mm + np.asarray(VOLUME.direction) @ (np.asarray(index) * VOLUME.spacing_mm))


def test_mm_and_voxels_mean_the_same() -> None:
    """On a grid whose axes run against those of the frame; the order of the corners does not matter."""
    point = place_point(in_mm((4, 2, 7)), VOLUME, "mm", is_foreground=False)
    assert point.index == pytest.approx((4, 2, 7))
    assert place_point((4, 2, 7), VOLUME, "voxels", is_foreground=True).index == (4, 2, 7)
    box = place_box((1, 2, 3, 3, 5, 8), VOLUME, "voxels")
    borders = place_box((*in_mm((3.5, 1.5, 8.5)), *in_mm((0.5, 5.5, 2.5))), VOLUME, "mm")
    assert (box.lower, box.upper) == ((0.5, 1.5, 2.5), (3.5, 5.5, 8.5))
    assert borders.lower == pytest.approx(box.lower)
    assert borders.upper == pytest.approx(box.upper)
    assert place_box((3, 5, 3, 1, 2, 8), VOLUME, "voxels") == box


def test_oblique_grids_are_placed_too() -> None:
    """By the inverse of their direction."""
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    oblique = Geometry(shape=(5, 8, 10), spacing_mm=(3.0, 1.0, 0.5), direction=tuple(map(tuple, turn.tolist())))
    point = turn @ (np.array([2, 3, 4]) * oblique.spacing_mm)
    assert place_point(point, oblique, "mm", is_foreground=True).index == pytest.approx((2, 3, 4))


def test_boxes_in_mm_are_cut_at_the_border() -> None:
    """If any of them lies in the scan."""
    box = place_box((*in_mm((-4, -4, -4)), *in_mm((2, 3, 40))), VOLUME, "mm")
    assert box.lower == (-0.5, -0.5, -0.5)
    assert box.upper == pytest.approx((2, 3, 9.5))
    with pytest.raises(UsageError, match="the box lies outside of the scan of 10 x 8 x 5 voxels"):
        place_box((*in_mm((-4, -4, -4)), *in_mm((-2, 3, 4))), VOLUME, "mm")


@pytest.mark.parametrize(
    ("values", "unit", "geometry", "text"),
    [
        (
            (1, 2, 10),
            "voxels",
            VOLUME,
            "the voxel 10 x 2 x 1 lies outside of the scan of 10 x 8 x 5 voxels (x, y, z)",
        ),
        ((1, -1, 1), "voxels", VOLUME, "number voxels from 0, or give mm between (-11, -7, -20) mm (right, anterior, "),
        ((500.0, 0.0, 0.0), "mm", VOLUME, "a point in mm lies outside of the scan"),
        ((8, 1), "voxels", PICTURE, "the voxel 1 x 8 lies outside of the scan of 10 x 8 pixels (x, y)"),
        ((1, 1), "voxels", VOLUME, "a prompt has 2 coordinates; a point of a volume has 3, and a box 6"),
        ((1, 1, 1), "voxels", PICTURE, "a prompt has 3 coordinates; a point of a plane has 2, and a box 4"),
        ((float("nan"), 1, 1), "voxels", VOLUME, "a prompt has the coordinates 1 x 1 x nan; give numbers"),
        ((1.0, 1.0), "mm", PICTURE, "the scan does not say where its voxels lie; give prompts in voxels"),
    ],
)
def test_points_that_mean_nothing_are_refused(values: tuple, unit: str, geometry: Geometry, text: str) -> None:
    """With what would be right."""
    with pytest.raises(UsageError) as caught:
        place_point(values, geometry, unit, is_foreground=True)
    assert text in str(caught.value)
    with pytest.raises(UsageError, match="'cm' is no unit of coordinates; choose from voxels, mm"):
        parse_unit("cm")


@pytest.mark.parametrize("orientation", ["SPL", "SAR", "LIP", "AIR", "PIL"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_are_upright_whatever_the_file_has(orientation: str, plane: str) -> None:
    """Anterior or superior is at the top, and the right or anterior at the left; prompts lie on the same voxel."""
    geometry = Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0), direction=direction_of(orientation))
    grid = slice_grid(geometry, plane)
    array = np.arange(120).reshape(4, 5, 6)
    slices = grid.apply(array)
    assert slices.shape == grid.shape
    assert np.array_equal(grid.restore(slices), array)
    for index in ((0, 0, 0), (3, 1, 5), (1, 4, 2)):
        number, row, column = (int(value) for value in grid.place(index))
        assert slices[number, row, column] == array[index]
    down = {"axial": 1, "coronal": 0, "sagittal": 0}[plane]  # the physical axis (z, y, x) that rows run along
    across = {"axial": 2, "coronal": 2, "sagittal": 1}[plane]
    places = np.stack(np.meshgrid(*map(np.arange, (4, 5, 6)), indexing="ij"))
    points = np.einsum("ij,jzyx->izyx", np.asarray(geometry.direction), places)
    sign = 1 if plane == "axial" else -1  # rows run to the back, or downwards
    assert (np.diff(grid.apply(points[down]), axis=1) == sign).all()
    assert (np.diff(grid.apply(points[across]), axis=2) == 1).all()


def test_the_usual_plane_is_that_of_the_scan() -> None:
    """Across the coarsest axis, or axial; a picture is its own plane."""
    sagittal = Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 4.0))
    assert slice_grid(sagittal).shape == (6, 4, 5)
    assert slice_grid(Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0))).shape == (4, 5, 6)
    assert slice_grid(PICTURE).shape == (1, 8, 10)
    with pytest.raises(UsageError, match="there is no plane 'oblique'; choose from axial, coronal, sagittal"):
        slice_grid(sagittal, "oblique")
    with pytest.raises(UsageError, match="the scan is a picture"):
        slice_grid(PICTURE, "axial")


GRID = slice_grid(Geometry(shape=(9, 20, 20), spacing_mm=(3.0, 1.0, 1.0)))
BOX = place_box((2, 4, 5, 6, 10, 12), Geometry(shape=(9, 20, 20), spacing_mm=(3.0, 1.0, 1.0)), "voxels")
FLAT = place_box((3, 4, 5, 3, 10, 12), Geometry(shape=(9, 20, 20), spacing_mm=(3.0, 1.0, 1.0)), "voxels")
RECTANGLE = (3.5, 4.5, 10.5, 12.5)


def point(*index: float, inside: bool = True):
    """A point of a prompt."""
    geometry = Geometry(shape=(9, 20, 20), spacing_mm=(3.0, 1.0, 1.0))
    return place_point(index, geometry, "voxels", is_foreground=inside)


def test_a_box_prompts_its_slices_or_its_middle() -> None:
    """Without propagation each of them, with it the middle one; a flat box then reaches the whole volume."""
    [structure] = arrange_structures([BOX], [], GRID)
    assert (sorted(structure.prompts), structure.reach, structure.slices) == ([2, 3, 4, 5, 6], range(0), 5)
    assert {prompt.box for prompt in structure.prompts.values()} == {RECTANGLE}
    [structure] = arrange_structures([BOX], [], GRID, propagate=True)
    assert (sorted(structure.prompts), structure.reach) == ([4], range(2, 7))
    [structure] = arrange_structures([FLAT], [], GRID, propagate=True, limits=(7, 1))
    assert (sorted(structure.prompts), structure.reach) == ([3], range(1, 8))


def test_points_are_one_structure() -> None:
    """Also with a box, which then stands on their slices as far as it reaches."""
    [structure] = arrange_structures([], [point(1, 2, 3), point(1, 9, 9, inside=False), point(5, 2, 3)], GRID)
    assert structure.prompts[1] == SlicePrompt(points=((2.0, 3.0, True), (9.0, 9.0, False)))
    assert sorted(structure.prompts) == [1, 5]
    [structure] = arrange_structures([BOX], [point(5, 6, 7, inside=False), point(4, 6, 7)], GRID, propagate=True)
    assert structure.prompts == {
        4: SlicePrompt(box=RECTANGLE, points=((6.0, 7.0, True),)),
        5: SlicePrompt(box=RECTANGLE, points=((6.0, 7.0, False),)),
    }
    assert len(arrange_structures([BOX, FLAT], [], GRID)) == 2


@pytest.mark.parametrize(
    ("boxes", "points", "limits", "text"),
    [
        ([], [], None, "nothing is prompted; give a box around the structure, or a point in it"),
        ([BOX, FLAT], [point(3, 5, 6)], None, "points could belong to any of 2 boxes"),
        ([], [point(3, 5, 6, inside=False)], None, "slice 3 has points of the background alone"),
        ([FLAT], [], (5, 8), "a prompt lies on slice 3, beyond the slices that are asked for"),
        ([], [point(3, 5, 6)], (5, 8), "a prompt lies on slice 3, beyond the slices that are asked for"),
        ([FLAT], [], (5, 9), "the slices 5 to 9 are not all among those of the scan; choose from 0 to 8"),
    ],
)
def test_prompts_that_cannot_be_meant_are_refused(boxes: list, points: list, limits: tuple, text: str) -> None:
    """With the slice."""
    with pytest.raises(UsageError) as caught:
        arrange_structures(boxes, points, GRID, limits=limits)
    assert text in str(caught.value)


def test_thin_boxes_in_mm_have_a_slice() -> None:
    """The nearest one, and numbers of slices are those of the file."""
    geometry = Geometry(shape=(9, 20, 20), spacing_mm=(3.0, 1.0, 1.0), direction=direction_of("IPL"))
    grid = slice_grid(geometry)
    slices, _ = grid.cut_box(place_box((-9.6, 1.0, 1.0, -9.9, 5.0, 5.0), geometry, "mm"))
    assert [grid.place_slice(number) for number in slices] == [3]
