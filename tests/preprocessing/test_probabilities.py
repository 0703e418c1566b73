"""Probabilities on the grid of the image file, one class at a time."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, special

from autoseg.imaging.geometry import Box, Geometry, Shape, Vector
from autoseg.preprocessing.case import PreprocessRecord, restore_case
from autoseg.preprocessing.probabilities import restore_probabilities
from autoseg.preprocessing.resampling import separate_axis

AXIS_ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (4.0, 0.5, 0.6)]
TIE = 1e-5
sizes = st.integers(1, 9)


def make_record(
    shape: Shape, preprocessed: Shape, *, axis_order: tuple[int, int, int], spacing_mm: Vector, seed: int
) -> PreprocessRecord:
    """A record with any cropping box; a shape of one slice is a plane."""
    random = np.random.default_rng(seed)
    geometry = Geometry(shape=shape, spacing_mm=spacing_mm, dimensions=2 if shape[0] == 1 else 3)
    starts = [int(random.integers(0, shape[axis])) for axis in axis_order]
    stops = [int(random.integers(start, shape[axis])) + 1 for start, axis in zip(starts, axis_order, strict=True)]
    return PreprocessRecord(
        geometry=geometry,
        axis_order=axis_order,
        box=Box(start=tuple(starts), stop=tuple(stops)),
        shape=preprocessed,
        spacing_mm=(1.0, 0.9, 0.8),
    )


def zoom_class(logits: NDArray[np.float32], record: PreprocessRecord) -> NDArray[np.float64]:
    """One class at full resolution, by scipy alone: each axis linearly, or the nearest slice."""
    result = logits.astype(np.float64)
    separate = separate_axis(record.spacing_mm, record.box_spacing_mm)
    for axis, (old, new) in enumerate(zip(record.shape, record.box.shape, strict=True)):
        factors = [new / old if other == axis else 1 for other in range(3)]
        order = 0 if axis == separate else 1
        result = ndimage.zoom(result, factors, order=order, mode="nearest", grid_mode=True)
    return result


def compute_at_once(logits: NDArray[np.float32], record: PreprocessRecord) -> NDArray[np.float64]:
    """The plain way: all classes resampled, softmax, and put back."""
    inside = special.softmax(np.stack([zoom_class(one, record) for one in logits]), axis=0)
    whole = np.zeros((len(logits), *(record.geometry.shape[axis] for axis in record.axis_order)))
    whole[0] = 1
    whole[(slice(None), *record.box.slices)] = inside
    back = np.argsort(record.axis_order)
    return whole.transpose(0, *(1 + back))


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(sizes, sizes, sizes),
    preprocessed=st.tuples(sizes, sizes, sizes),
    axis_order=st.sampled_from(AXIS_ORDERS),
    spacing_mm=st.sampled_from(SPACINGS),
    classes=st.integers(2, 6),
    scale=st.sampled_from([0.1, 3.0, 300.0]),
    seed=st.integers(0, 99),
)
def test_maps_equal_those_of_all_classes_at_once(
    *,
    shape: Shape,
    preprocessed: Shape,
    axis_order: tuple[int, int, int],
    spacing_mm: Vector,
    classes: int,
    scale: float,
    seed: int,
) -> None:
    """Anisotropic or not, planes, cropped, any axis order; sums are 1, and the likeliest class is that of the mask."""
    record = make_record(shape, preprocessed, axis_order=axis_order, spacing_mm=spacing_mm, seed=seed)
    logits = np.random.default_rng(seed).normal(0, scale, (classes, *preprocessed)).astype(np.float32)
    before = logits.copy()
    volumes = list(restore_probabilities(logits, record))
    np.testing.assert_array_equal(logits, before)
    assert len(volumes) == classes
    assert all(volume.geometry == record.geometry and volume.array.dtype == np.float32 for volume in volumes)
    maps = np.stack([volume.array for volume in volumes])
    np.testing.assert_allclose(maps, compute_at_once(logits, record), atol=1e-5 + 1e-6 * scale)
    np.testing.assert_allclose(maps.sum(axis=0), 1, atol=1e-5)
    chosen = np.take_along_axis(maps, restore_case(logits, record).array[np.newaxis].astype(np.intp), axis=0)[0]
    assert (maps.max(axis=0) - chosen).max() <= TIE + 1e-6 * scale


@pytest.mark.parametrize("temperatures", [(2.0, 0.5, 1.0), (3.0, 3.0, 3.0)])
def test_logits_are_divided_by_the_temperature_of_the_winner(temperatures: tuple[float, ...]) -> None:
    """On the grid of the image, where the mask is decided, so that the likeliest class stays that of the mask."""
    record = make_record((6, 7, 8), (5, 9, 4), axis_order=(2, 0, 1), spacing_mm=(1.0, 1.0, 1.0), seed=1)
    logits = np.random.default_rng(0).normal(0, 4, (3, *record.shape)).astype(np.float32)
    maps = np.stack([volume.array for volume in restore_probabilities(logits, record, temperatures=temperatures)])
    plain = np.stack([volume.array for volume in restore_probabilities(logits, record)]).astype(np.float64)
    powers = plain ** (1 / np.array(temperatures)[plain.argmax(axis=0)])
    inside = (plain > 1e-6).all(axis=0)
    np.testing.assert_allclose(maps[:, inside], (powers / powers.sum(axis=0))[:, inside], atol=1e-4)
    assert np.abs(maps - plain)[:, inside].max() > 0.05
    chosen = np.take_along_axis(maps, restore_case(logits, record).array[np.newaxis].astype(np.intp), axis=0)[0]
    assert (maps.max(axis=0) - chosen).max() <= TIE


def test_a_region_has_its_own_temperature() -> None:
    """Its logit is divided, and stays on its side of zero."""
    record = make_record((4, 5, 6), (4, 5, 6), axis_order=(0, 1, 2), spacing_mm=(1.0, 1.0, 1.0), seed=0)
    logits = np.random.default_rng(0).normal(0, 4, (2, *record.shape)).astype(np.float32)
    one, two = restore_probabilities(logits, record, exclusive=False, temperatures=(2.0, 0.5))
    plain = list(restore_probabilities(logits, record, exclusive=False))
    inside = plain[0].array > 0
    for volume, before, temperature in zip((one, two), plain, (2.0, 0.5), strict=True):
        wanted = special.expit(special.logit(before.array[inside].astype(np.float64)) / temperature)
        np.testing.assert_allclose(volume.array[inside], wanted, atol=1e-3)


def test_chosen_classes_come_alone_in_the_order_asked_for() -> None:
    """Their maps are those among all; tensors of 32 and 16 bit do too, and no class is no work."""
    record = make_record((6, 7, 8), (5, 9, 4), axis_order=(2, 0, 1), spacing_mm=(1.0, 1.0, 1.0), seed=1)
    logits = np.random.default_rng(0).integers(-40, 40, (4, *record.shape)).astype(np.float32) / 8
    everything = [volume.array for volume in restore_probabilities(logits, record)]
    for given_logits in (logits, torch.from_numpy(logits), torch.from_numpy(logits).half()):
        third, first = restore_probabilities(given_logits, record, [3, 1])
        np.testing.assert_array_equal(third.array, everything[3])
        np.testing.assert_array_equal(first.array, everything[1])
    assert list(restore_probabilities(logits, record, [])) == []


def test_background_is_certain_outside_the_box() -> None:
    """1 for the background, 0 for all others, as the label map is 0 there."""
    record = PreprocessRecord(
        geometry=Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0)),
        axis_order=(0, 1, 2),
        box=Box(start=(1, 2, 3), stop=(3, 4, 5)),
        shape=(2, 2, 2),
        spacing_mm=(1.0, 1.0, 1.0),
    )
    background, label = restore_probabilities(np.zeros((2, 2, 2, 2), np.float32), record)
    assert background.array.sum() == 4 * 5 * 6 - 8 + 4
    assert label.array.sum() == 4
    assert (label.array[1:3, 2:4, 3:5] == 0.5).all()


def test_extreme_logits_do_not_overflow() -> None:
    """Whichever class is the highest, and however much higher it is."""
    record = make_record((1, 1, 1), (1, 1, 1), axis_order=(0, 1, 2), spacing_mm=(1.0, 1.0, 1.0), seed=0)
    for values in ([1e5, -1e5, 0.0], [-1e5, 1e5, 1e5], [-1e30, 0.0, 1e30]):
        logits = np.array(values, np.float32).reshape(3, 1, 1, 1)
        maps = [volume.array.item() for volume in restore_probabilities(logits, record)]
        np.testing.assert_allclose(maps, special.softmax(values))


def test_logits_on_another_grid_are_refused_at_once() -> None:
    """Before the first map is asked for."""
    record = make_record((4, 5, 6), (4, 5, 6), axis_order=(0, 1, 2), spacing_mm=(1.0, 1.0, 1.0), seed=0)
    with pytest.raises(ValueError, match="do not lie on the grid"):
        restore_probabilities(np.zeros((2, 9, 9, 9), np.float32), record)


def peak_volumes(classes: int) -> float:
    """The most memory that is taken while all maps are gone through, in volumes of full resolution and 32 bit."""
    shape = (24, 80, 80)
    record = PreprocessRecord(
        geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0)),
        axis_order=(2, 0, 1),
        box=Box(start=(0, 0, 0), stop=(80, 24, 80)),
        shape=(40, 12, 40),
        spacing_mm=(2.0, 2.0, 2.0),
    )
    logits = np.random.default_rng(0).normal(size=(classes, *record.shape)).astype(np.float32)

    def go_through(volumes: Iterator[object]) -> int:
        return sum(1 for _ in volumes)

    go_through(restore_probabilities(logits, record))  # matrices are made once
    tracemalloc.start()
    try:
        assert go_through(restore_probabilities(logits, record)) == classes
        return tracemalloc.get_traced_memory()[1] / (4 * np.prod(shape))
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_classes() -> None:
    """A few volumes of full resolution, whether there are three classes or twelve."""
    few, many = peak_volumes(3), peak_volumes(12)
    assert many < 5.5
    assert many == pytest.approx(few, rel=0.02)
