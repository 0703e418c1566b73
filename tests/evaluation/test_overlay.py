"""Overlay pictures of a case are complete and true to scale, and accept unusual names."""

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.errors import ArtifactError
from autoseg.evaluation.metrics import case_overlaps
from autoseg.evaluation.overlay import COLOURS, arrange_planes, draw_overlay, intensity_window, legend_entries, outline
from autoseg.evaluation.views import choose_views
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.targets import Targets


def case(shape=(6, 20, 24), spacing_mm=(3.0, 1.0, 1.0), dimensions=3):
    """Noise with a block of label 1 in the reference and, one row further, in the prediction."""
    geometry = Geometry(shape=shape, spacing_mm=spacing_mm, dimensions=dimensions)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    reference = np.zeros(shape, dtype=np.uint8)
    reference[:, 5:12, 6:14] = 1
    prediction = np.roll(reference, 1, axis=1)
    return tuple(Volume(array=array, geometry=geometry) for array in (image, reference, prediction))


def has_colour(pixels, colour):
    """Tells whether a colour such as "#E69F00" occurs in a picture."""
    wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return bool((np.abs(pixels[..., :3] - wanted).max(axis=-1) < 0.01).any())


@pytest.mark.parametrize(("shape", "dimensions"), [((6, 20, 24), 3), ((1, 20, 24), 2)])
def test_a_picture_shows_the_outline_in_the_colour_of_the_label(tmp_path, shape, dimensions):
    """Volumes and planes both make one PNG file, and nothing else."""
    image, reference, prediction = case(shape=shape, dimensions=dimensions)
    draw_overlay(
        tmp_path / "a.png", image, reference, prediction, title="a", targets=Targets.of_labels({"x": 1, "y": 2})
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert has_colour(pixels, COLOURS[0])
    assert not has_colour(pixels, COLOURS[1])


@pytest.mark.parametrize("name", ["_hidden", "$x^{2", "脾臓"])
def test_odd_names_are_drawn_without_a_warning(tmp_path, name):
    """Underscores, half a formula and other scripts are drawn like any other name."""
    image, reference, prediction = case()
    draw_overlay(tmp_path / "a.png", image, reference, prediction, title=name, targets=Targets.of_labels({name: 1}))
    assert (tmp_path / "a.png").stat().st_size > 0


def test_an_empty_case_is_drawn(tmp_path):
    """A case without labels and contrast still gives a picture."""
    geometry = Geometry(shape=(3, 4, 5), spacing_mm=(1.0, 1.0, 1.0))
    image = Volume(array=np.zeros((2, 3, 4, 5), np.float32), geometry=geometry)
    empty = Volume(array=np.zeros((3, 4, 5), np.uint8), geometry=geometry)
    draw_overlay(tmp_path / "a.png", image, empty, empty, title="", targets=Targets.of_labels({"x": 1}))
    assert (tmp_path / "a.png").is_file()


def test_a_picture_that_cannot_be_written_is_an_error_in_one_line(tmp_path):
    """A file in place of the folder is reported."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        draw_overlay(tmp_path / "file" / "a.png", *case(), title="", targets=Targets.of_labels({"x": 1}))


@given(
    st.tuples(*[st.integers(2, 300)] * 3),
    st.tuples(*[st.floats(0.2, 10)] * 3),
    st.integers(0, 12),
)
@settings(max_examples=40, deadline=None)
def test_planes_keep_their_proportions_and_stay_on_the_picture(shape, spacing_mm, entries):
    """All planes have one scale in mm, none overlaps another, and the legend lies below them."""
    image = Volume(array=np.ones((1, *shape), np.float32), geometry=Geometry(shape=shape, spacing_mm=spacing_mm))
    empty = Volume(array=np.zeros(shape, np.uint8), geometry=image.geometry)
    views = choose_views(image, empty, empty)
    layout = arrange_planes(views, entries)
    scales = [width / view.width_mm for view, (_, _, width, _) in zip(views, layout.boxes, strict=True)]
    scales += [height / view.height_mm for view, (_, _, _, height) in zip(views, layout.boxes, strict=True)]
    assert scales == pytest.approx([scales[0]] * 6)
    ends = [0.0] + [left + width for left, _, width, _ in layout.boxes]
    assert all(left > end for (left, *_), end in zip(layout.boxes, ends[:-1], strict=True))
    assert ends[-1] < layout.width
    assert all(bottom > layout.legend_top for _, bottom, _, _ in layout.boxes)
    assert all(bottom + height < layout.height for _, bottom, _, height in layout.boxes)


@given(arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(1, 5))))
@settings(max_examples=60, deadline=None)
def test_an_outline_runs_between_pixels_that_differ(mask):
    """Each edge between a pixel inside and one outside is one segment of length 1; the picture's border is outside."""
    padded = np.pad(mask, 1)
    expected = set()
    for row, column in np.argwhere(padded):
        for other, segment in (
            ((row - 1, column), ((column - 1, row - 1), (column, row - 1))),
            ((row + 1, column), ((column - 1, row), (column, row))),
            ((row, column - 1), ((column - 1, row - 1), (column - 1, row))),
            ((row, column + 1), ((column, row - 1), (column, row))),
        ):
            if not padded[other]:
                expected.add(segment)
    segments = outline(mask)
    assert {tuple(map(tuple, segment)) for segment in segments.astype(int).tolist()} == expected
    assert len(segments) == len(expected)


def test_the_window_shows_soft_tissue_of_a_ct_and_ignores_borders_of_zeros():
    """The darkest and brightest intensities depend on what the picture is."""
    assert intensity_window([np.array([[-1000.0, 40.0]])]) == (-160.0, 240.0)
    low, high = intensity_window([np.array([[0.0] * 1000 + [100.0, 200.0]])])
    assert 100 <= low < high <= 200
    assert intensity_window([np.full((2, 2), 7.0)]) == (7.0, 8.0)
    assert intensity_window([np.zeros((2, 2))]) == (0.0, 1.0)


def test_the_legend_names_the_largest_labels_of_the_case_in_order():
    """Absent labels are left out, and so are the smallest ones beyond twelve."""
    reference = np.repeat(np.arange(1, 16, dtype=np.uint8), np.arange(1, 16))[np.newaxis, np.newaxis]
    labels = {f"label{number}": number for number in range(1, 20)}
    entries = legend_entries(case_overlaps(reference, reference, Targets.of_labels(labels)))
    assert [number for _, number in entries] == list(range(4, 16))
    assert entries[0] == ("label4  1.00", 4)
